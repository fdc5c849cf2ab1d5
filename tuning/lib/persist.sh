# Keeps values over a reboot, in files of our own: never a line in a file of somebody else.
# shellcheck shell=bash disable=SC2034,SC2154

readonly sysctl_file=/etc/sysctl.d/90-corelane.conf limits_file=/etc/security/limits.d/90-corelane.conf

# The files to be written: path under the root, and what goes below the header.
declare -a own_path=() own_body=()
# What became of each file: written, same, removed.
declare -a own_outcome=()
# What those held that were there before, and which folders were made.
declare -a own_earlier=() own_made=()
# Lines of others that are read after ours and say something else.
declare -a over_key=() over_value=() over_place=()

command_persist() {
    evaluate_knobs
    compose_sysctl
    if [[ $unit ]]; then compose_unit; fi
    if [[ ${#users[@]} -gt 0 ]]; then compose_limits; fi
    local index
    for index in "${!own_path[@]}"; do check_writable "${own_path[index]}"; done
    # All of them or none: a signal waits for the end.
    trap '' TERM INT HUP PIPE
    for index in "${!own_path[@]}"; do
        if ! write_own "$index"; then
            unwrite_own "$index"
            die "$exit_failed" "${own_path[index]} cannot be written: everything is as it was before"
        fi
    done
    find_overriding_settings
    if [[ $unit ]]; then find_overriding_unit_files; fi
    find_overriding_limits
    persist_report
    [[ ${#over_key[@]} -eq 0 ]] || exit "$exit_drift"
}

# Every key that is other than it would be without us: what apply would change now, what it has changed, what our
# file holds already.
compose_sysctl() {
    local index body='' key rest
    declare -A keep=()
    if is_own "$root$sysctl_file"; then
        while read -r key rest; do
            if [[ $key != '#'* ]]; then keep[$key]=yes; fi
        done <"$root$sysctl_file"
    fi
    find_applied
    for index in "${!knob_key[@]}"; do
        key=${knob_key[index]}
        case ${knob_status[index]} in
        change) ;;
        ok) [[ ${keep[$key]+set} || ${applied[$key]-} == "${knob_current[index]}" ]] || continue ;;
        *) continue ;;
        esac
        if [[ $key == /* ]]; then
            warn "$key is no sysctl and is not kept: for systemd a line in /etc/tmpfiles.d, 'w $key - - - - ${knob_final[index]}'"
            continue
        fi
        body+="# ${knob_reason[index]}"$'\n'"$key = ${knob_final[index]}"$'\n'
    done
    # A file of ours that has nothing to say any more is taken away: it would be in force at the next boot.
    if [[ $body ]] || is_own "$root$sysctl_file"; then
        own_path+=("$sysctl_file") own_body+=("$body")
    fi
    if [[ $netns == own ]]; then warn "files of /etc/sysctl.d are for the boot of a host: this is a network namespace of its own"; fi
}

# Fills `applied`: key to the value that snapshots in force have set.
find_applied() {
    local name index
    declare -gA applied=()
    name_state
    [[ -r $state_folder/snapshots ]] || return 0
    list_snapshots
    for name in "${snapshots[@]}"; do
        read_state "$name"
        [[ $state == applied ]] || continue
        snapshot=$name
        read_snapshot
        for index in "${!saved_key[@]}"; do applied[${saved_key[index]}]=${saved_new[index]}; done
    done
    snapshot=
}

# The soft limit is what the load needs, for programs that do not raise it by themselves; neither is ever less than
# without our file.
compose_unit() {
    local soft
    read_unit_limits "$unit" without-ours
    larger_limit "${vars[nofile]}" "$had_soft"
    soft=$limit
    larger_limit "${vars[nofile]}" "$had_hard"
    own_path+=("/etc/systemd/system/$unit.d/90-corelane.conf")
    own_body+=("[Service]"$'\n'"LimitNOFILE=$soft:$limit"$'\n')
}

compose_limits() {
    local user body='' soft hard row
    # Users of an earlier call keep their lines.
    if is_own "$root$limits_file" && read_own "$root$limits_file"; then
        local earlier=$body
        body=
        while read -r row; do
            if [[ $row && " ${users[*]} " != *" ${row%% *} "* ]]; then body+=$row$'\n'; fi
        done <<<"$earlier"
    fi
    for user in "${users[@]}"; do
        read_user_limits "$user"
        larger_limit "${vars[nofile]}" "$had_hard"
        session_limit "$user"
        hard=$limit
        larger_limit "${vars[nofile]}" "$had_soft"
        session_limit "$user"
        soft=$limit
        body+="$user soft nofile $soft"$'\n'"$user hard nofile $hard"$'\n'
    done
    own_path+=("$limits_file")
    own_body+=("$body")
}

# Turns `limit` into what pam_limits can set. It refuses the login where the kernel refuses a limit, and no limit at
# all means to it the most that the kernel takes; but what the user's own line says stays its word.
session_limit() {
    local most=
    if read_line "$root/proc/sys/fs/nr_open" && is_number "$line"; then most=$line; fi
    if [[ $limit == infinity ]]; then
        limit=unlimited
        if [[ ! $user_sets && $most ]]; then limit=$most; fi
    elif [[ $most ]] && ((limit > most)); then
        ((vars[nofile] <= most)) ||
            die "$exit_unsupported" "fs.nr_open is $most: with ${vars[nofile]} descriptors pam_limits would refuse the logins of $1; apply first. nothing was written"
        limit=$most
    fi
}

# Whether a file is one of ours.
is_own() {
    [[ -f $1 && ! -L $1 ]] && read_line "$1" && [[ $line == "# $program "+([0-9.])" wrote this file"* ]]
}

# Sets `body` to what is below the header and `body_kept` if nobody edited it.
read_own() {
    local header sum
    read_raw "$1" || return 1
    body=${raw#*$'\n# body '}
    sum=${body%%$'\n'*}
    body=${body#*$'\n'}
    header=${raw%"$body"}
    folder_made=
    if [[ $header == *$'\n# folder made here\n'* ]]; then folder_made=yes; fi
    body_kept=
    checksum "$body"
    if [[ $sum == "$check" ]]; then body_kept=yes; fi
}

checksum() {
    check=$(printf '%s' "$1" | sha256sum)
    check=${check%% *}
}

# Refuses what is not ours, before anything is written.
check_writable() {
    local file=$root$1 folder=$root${1%/*}
    if [[ -e $file || -L $file ]]; then
        is_own "$file" || die "$exit_unsupported" "$1 is there and $program did not make it: nothing was written"
        read_own "$file"
        [[ $body_kept ]] || die "$exit_unsupported" "$1 was edited since: unpersist --force removes it; nothing was written"
    fi
    while [[ ! -e $folder && $folder == */* ]]; do folder=${folder%/*}; done
    [[ -w ${folder:-/} ]] || die "$exit_privilege" "$1 cannot be written: is this root? nothing was written"
}

write_own() {
    local path=${own_path[$1]} text=${own_body[$1]} file folder made=
    file=$root$path folder=$root${path%/*}
    own_outcome[$1]=written
    if is_own "$file"; then
        read_own "$file"
        made=$folder_made
        if [[ $body == "$text" ]]; then
            own_outcome[$1]=same
            return
        fi
        own_earlier[$1]=$raw
        if [[ ! $text ]]; then
            own_outcome[$1]=removed
            remove_own "$file"
            return
        fi
    elif [[ ! -d $folder ]]; then
        mkdir -p -- "$folder" 2>/dev/null || return 1
        made=yes own_made[$1]=yes
    fi
    read_clock
    checksum "$text"
    {
        say "# $program $version wrote this file: do not edit it, '$program unpersist' takes it away."
        say "# when $now, by ${SUDO_USER:-$(id -un 2>/dev/null || say "$EUID")}"
        say "# plan --profile $profile --connections ${vars[connections]} --processes ${vars[processes]} --active ${vars[active]}" \
            "--rate ${vars[rate]} --rtt $((vars[rtt_us] / 1000)).$(printf '%03d' $((vars[rtt_us] % 1000)))" \
            "--bandwidth ${vars[bandwidth]} --stall ${vars[stall_ms]} --headroom ${vars[headroom]} --memory ${vars[memory]}"
        if [[ $made ]]; then say "# folder made here"; fi
        say "# body $check"
        printf '%s' "$text"
    } 2>/dev/null >"$file.corelane-new" && sync -- "$file.corelane-new" && mv -f -- "$file.corelane-new" "$file"
}

# Takes back the files before INDEX, and what is left of that one.
unwrite_own() {
    local index file
    for ((index = $1; index >= 0; index--)); do
        file=$root${own_path[index]}
        rm -f -- "$file.corelane-new"
        if [[ ${own_earlier[index]+set} ]]; then
            mkdir -p -- "${file%/*}" && printf '%s' "${own_earlier[index]}" >"$file"
        elif [[ ${own_outcome[index]} != same ]]; then
            rm -f -- "$file"
            if [[ ${own_made[index]-} ]]; then rmdir -- "${file%/*}" 2>/dev/null || true; fi
        fi
    done
}

command_unpersist() {
    local file index
    for file in "$root$sysctl_file" "$root"/etc/systemd/system/*.service.d/90-corelane.conf "$root$limits_file"; do
        if is_own "$file"; then own_path+=("${file#"$root"}"); fi
    done
    # All are looked at before the first is removed.
    for index in "${!own_path[@]}"; do
        file=$root${own_path[index]}
        read_own "$file"
        [[ $body_kept || $force ]] ||
            die "$exit_drift" "${own_path[index]} was edited since: --force removes it all the same; nothing was removed"
        [[ -w ${file%/*} ]] || die "$exit_privilege" "${own_path[index]} cannot be removed: is this root? nothing was removed"
    done
    trap '' TERM INT HUP PIPE
    for index in "${!own_path[@]}"; do
        file=$root${own_path[index]}
        read_own "$file"
        rm -f -- "$file.corelane-new"
        remove_own "$file" || die "$exit_failed" "${own_path[index]} cannot be removed"
        own_outcome[index]=removed
    done
    persist_report
}

# Removes a file that read_own has just read.
remove_own() {
    rm -- "$1" || return 1
    # Only a folder of ours, and only if nobody has put anything else in it.
    if [[ $folder_made ]]; then rmdir -- "${1%/*}" 2>/dev/null || true; fi
}

add_overriding() {
    over_key+=("$1") over_value+=("$2") over_place+=("$3")
}

# Lines of sysctl files that are read after ours and leave a key of ours worse than our line does.
find_overriding_settings() {
    local file index after='' number
    declare -A kept=()
    is_own "$root$sysctl_file" && read_settings "$root$sysctl_file" || return 0
    for index in "${!set_key[@]}"; do kept[${set_key[index]}]=${set_text[index]}; done
    list_sysctl_files
    for file in "${conf_files[@]}"; do
        if [[ $file == "$root$sysctl_file" ]]; then
            after=yes
        elif [[ $after ]] && read_settings "$file"; then
            for number in "${!set_key[@]}"; do
                if [[ ${kept[${set_key[number]}]+set} ]] &&
                    ! is_as_good "${set_key[number]}" "${set_text[number]}" "${kept[${set_key[number]}]}"; then
                    add_overriding "${set_key[number]}" "${set_text[number]}" "${file#"$root"}:${set_row[number]}"
                fi
            done
        fi
    done
}

# is_as_good KEY TEXT OURS: whether the knob would stay as it is at that text.
is_as_good() {
    local index ours theirs
    for index in "${!knob_key[@]}"; do
        [[ ${knob_key[index]} == "$1" ]] || continue
        normalise "${knob_type[index]}" "$3" || return 1
        ours=$value
        normalise "${knob_type[index]}" "$2" || return 1
        theirs=$value
        merge "${knob_type[index]}" "${knob_direction[index]}" "$theirs" "$ours" && [[ $value == "$theirs" ]]
        return
    done
}

find_overriding_unit_files() {
    local file soft hard ours=$root/etc/systemd/system/$unit.d/90-corelane.conf
    read_setting "$ours" LimitNOFILE || return 0
    soft=$had_soft hard=$had_hard
    list_unit_files "$unit"
    for file in "${unit_files[@]}"; do
        if [[ $file == *.d/* && ${file##*/} > 90-corelane.conf ]] && read_setting "$file" LimitNOFILE &&
            is_lower "$soft" "$hard"; then
            add_overriding "$unit LimitNOFILE" "$had_soft:$had_hard" "$had_place"
        fi
    done
}

# is_lower SOFT HARD: whether what was read last is less than these.
is_lower() {
    larger_limit "$had_soft" "$1"
    if [[ $limit != "$had_soft" ]]; then return; fi
    larger_limit "$had_hard" "$2"
    [[ $limit != "$had_hard" ]]
}

# Lines for our users in files of limits.d that are read after ours.
find_overriding_limits() {
    local file domain kind item number ours row rank place
    for file in "$root"/etc/security/limits.d/*.conf; do
        [[ ${file##*/} > 90-corelane.conf && -f $file && -r $file ]] || continue
        row=0
        while read -r domain kind item number; do
            row=$((row + 1))
            [[ " ${users[*]} " == *" $domain "* && ${item,,} == nofile ]] || continue
            number=${number%%[[:blank:]#]*} place=${file#"$root"}:$row
            read_own_limits "$domain"
            if take_later "${kind,,}" "${number,,}"; then add_overriding "$domain $kind nofile" "$number" "$place"; fi
        done <"$file"
    done
}

# Whether a line for the user makes less of what our file has, which is in `own_soft` and `own_hard`.
take_later() {
    local -A best=([soft]=0 [hard]=0)
    had_soft=$own_soft had_hard=$own_hard
    take_limit "$1" "$2" 3
    is_lower "$own_soft" "$own_hard"
}

read_own_limits() {
    local domain kind item number
    own_soft=0 own_hard=0
    while read -r domain kind item number; do
        if [[ $domain != "$1" || $item != nofile ]]; then continue; fi
        if [[ $number == unlimited ]]; then number=infinity; fi
        if [[ $kind == soft ]]; then own_soft=$number; else own_hard=$number; fi
    done <"$root$limits_file"
}

persist_report() {
    local index
    if [[ $format == json ]]; then
        json_begin
        json_key files
        json_open '['
        for index in "${!own_path[@]}"; do
            json_open '{'
            json_text path "${own_path[index]}"
            json_text outcome "${own_outcome[index]}"
            json_close '}'
        done
        json_close ']'
        json_key overridden
        json_open '['
        for index in "${!over_key[@]}"; do
            json_open '{'
            json_text key "${over_key[index]}"
            json_text value "${over_value[index]}"
            json_text place "${over_place[index]}"
            json_close '}'
        done
        json_close ']'
        json_end
        return
    fi
    if [[ ${#own_path[@]} -eq 0 ]]; then
        if [[ $command == persist ]]; then say "nothing to keep: this host fits $profile without us"; else say "no files of $program"; fi
    fi
    for index in "${!own_path[@]}"; do
        case ${own_outcome[index]} in
        written) say "wrote ${own_path[index]}" ;;
        same) say "${own_path[index]} is as it should be" ;;
        removed) say "removed ${own_path[index]}" ;;
        esac
        if [[ ${own_outcome[index]} != same && ${own_path[index]} == */systemd/* ]]; then
            say "  then: systemctl daemon-reload, and restart the service"
        fi
    done
    for index in "${!over_key[@]}"; do
        show "${over_value[index]}" 60
        say "overridden: ${over_place[index]} is read later and says ${over_key[index]} = $shown"
    done
}
