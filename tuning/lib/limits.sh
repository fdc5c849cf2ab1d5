# The descriptor limits that systemd and pam_limits give by themselves: what persist writes must not be less.
# shellcheck shell=bash disable=SC2034,SC2154

# A limit is a number, or infinity. What a service or a session has without us, and the line that says so.
had_soft='' had_hard='' had_place=''

# Sets `limit` to the larger of two.
larger_limit() {
    limit=$1
    if [[ $1 != infinity ]] && { [[ $2 == infinity ]] || (($2 > $1)); }; then limit=$2; fi
}

# Takes SOFT:HARD, or one for both. systemd ignores a soft limit above the hard one, and so do we.
parse_limits() {
    local soft=${1%%:*} hard=${1#*:}
    [[ $soft == infinity ]] || is_number "$soft" || return 1
    [[ $hard == infinity ]] || is_number "$hard" || return 1
    larger_limit "$hard" "$soft"
    [[ $limit == "$hard" ]] || return 1
    had_soft=$soft had_hard=$hard
}

# read_setting FILE NAME: takes the last line of a file of systemd that sets NAME. Fails if there is none.
read_setting() {
    local row number=0 found=1
    [[ -f $1 && -r $1 ]] || return 1
    while IFS= read -r row || [[ $row ]]; do
        number=$((number + 1))
        if [[ $row =~ ^[[:blank:]]*$2[[:blank:]]*=[[:blank:]]*([0-9a-z:]+)[[:blank:]]*$ ]] &&
            parse_limits "${BASH_REMATCH[1]}"; then
            had_place=${1#"$root"}:$number found=0
        fi
    done <"$1"
    return "$found"
}

# What services get that set nothing, and sessions too: they are started by services.
read_default_limits() {
    local file folder folders=(/etc /run /usr/local/lib /usr/lib)
    had_soft=1024 had_hard=524288 had_place='built in'
    if read_line "$root/proc/sys/fs/nr_open" && is_number "$line" && ((line < had_hard)); then had_hard=$line; fi
    for folder in "${folders[@]}"; do
        if [[ -f $root$folder/systemd/system.conf ]]; then
            read_setting "$root$folder/systemd/system.conf" DefaultLimitNOFILE || true
            break
        fi
    done
    list_conf "${folders[@]/%//systemd/system.conf.d}"
    for file in "${conf_files[@]}"; do read_setting "$file" DefaultLimitNOFILE || true; done
}

# Sets `unit_files` to the files of a unit in the order in which systemd reads them: the first one found under its
# name, or that of its template; then drop-ins by name, those for all its namesakes and for all services too.
list_unit_files() {
    local name=$1 base folder folders=() names=("$1") dropins=()
    if [[ $name == *@* ]]; then names+=("${name%%@*}@.service"); fi
    unit_files=()
    for name in "${names[@]}"; do
        for base in {/etc,/run,/usr/local/lib,/usr/lib,/lib}/systemd/system; do
            if [[ ! ${unit_files[0]-} && -f $root$base/$name ]]; then unit_files=("$root$base/$name"); fi
        done
    done
    base=${1%.service}
    while [[ $base == *-* ]]; do
        base=${base%-*}
        names+=("$base-.service")
    done
    for name in "${names[@]}" service; do
        for folder in {/etc,/run,/usr/local/lib,/usr/lib,/lib}/systemd/system; do dropins+=("$folder/$name.d"); done
    done
    list_conf "${dropins[@]}"
    unit_files+=("${conf_files[@]}")
}

# read_unit_limits UNIT [without-ours]: sets `unit_sets` if any of its files sets a limit, and what it gets.
read_unit_limits() {
    local file own=$root/etc/systemd/system/$1.d/90-corelane.conf
    unit_sets=
    read_default_limits
    list_unit_files "$1"
    for file in "${unit_files[@]}"; do
        [[ ! ${2-} || $file != "$own" ]] || continue
        if read_setting "$file" LimitNOFILE; then unit_sets=yes; fi
    done
}

# Sets `account_groups` to the names of the groups a user is in, a blank around each.
read_account() {
    local name rest gid='' members
    account_groups=' '
    if is_live; then
        account_groups=" $(id -Gn -- "$1" 2>/dev/null) "
        return
    fi
    if [[ -r $root/etc/passwd ]]; then
        while IFS=: read -r name rest rest rest; do
            if [[ $name == "$1" ]]; then gid=${rest%%:*}; fi
        done <"$root/etc/passwd"
    fi
    [[ -r $root/etc/group ]] || return 0
    while IFS=: read -r name rest rest members; do
        if [[ $rest == "$gid" || ,$members, == *,$1,* ]]; then account_groups+="$name "; fi
    done <"$root/etc/group"
}

# What a user's sessions get without our file. pam_limits takes a line for the user before one for a group of his,
# and that before one for all; of two alike the later one counts. A line for a range of ids counts as his: whether it
# is, only the running system could tell.
read_user_limits() {
    local user=$1 file domain kind item number rank
    local -A best=([soft]=0 [hard]=0)
    read_account "$user"
    read_default_limits
    user_sets=
    for file in "$root/etc/security/limits.conf" "$root"/etc/security/limits.d/*.conf; do
        [[ $file != */limits.d/90-corelane.conf && -f $file && -r $file ]] || continue
        while read -r domain kind item number; do
            number=${number%%[[:blank:]#]*}
            rank_domain "$user" "$domain"
            if [[ $rank -gt 0 && ${item,,} == nofile ]]; then take_limit "${kind,,}" "${number,,}" "$rank"; fi
        done <"$file"
    done
}

# Sets `rank` to how much a line of limits.conf counts for a user, 0 if it does not.
rank_domain() {
    rank=0
    case $2 in
    "$1" | [0-9:]*:*) rank=3 ;;
    @*:*) rank=2 ;;
    @*) if [[ $account_groups == *" ${2#@} "* ]]; then rank=2; fi ;;
    '*') rank=1 ;;
    esac
}

# take_limit soft|hard|- NUMBER RANK
take_limit() {
    local number=$2
    case $number in
    unlimited | infinity | -1) number=infinity ;;
    *) is_number "$number" || return 0 ;;
    esac
    if [[ $1 == @(soft|-) ]] && (($3 >= best[soft])); then had_soft=$number best[soft]=$3; fi
    if [[ $1 == @(hard|-) ]] && (($3 >= best[hard])); then had_hard=$number best[hard]=$3 user_sets=yes; fi
}
