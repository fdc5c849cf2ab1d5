# Snapshots: what every key held before an apply. One folder each under the state folder:
#   meta     who, when, for which profile, in which boot and network namespace
#   values   KEY, TYPE, the old bytes, the new value, parted by tabs
#   journal  «begin KEY» before a key is written, «done KEY» once it was read back, «undo KEY» before
#            it is put back
#   state    applying, applied, undone (apply failed and put everything back), rolled-back, rolled-back-partly (the
#            rest was left to whoever changed it, or is not there any more) or forgotten. Only the first two are
#            still to be rolled back
# The journal is not synced: a power failure takes the values of the kernel with it, a killed process does not
# take what it handed to write.
# shellcheck shell=bash disable=SC2034,SC2154

state_folder=
snapshot=

name_state() {
    state_folder=${state_option:-$root/var/lib/$program}
}

# Sets `state_folder`; makes it if asked to.
open_state() {
    name_state
    if [[ ! -d $state_folder ]]; then
        [[ $1 == make ]] || return 1
        { mkdir -p -- "${state_folder%/*}" && mkdir -m 700 -- "$state_folder"; } 2>/dev/null ||
            die "$exit_privilege" "$state_folder cannot be made: is this root?"
    fi
    # What is in there gets written to the kernel.
    [[ -O $state_folder || ! -w $state_folder ]] || die "$exit_privilege" "$state_folder belongs to somebody else"
    if [[ ! -w $state_folder ]]; then die "$exit_privilege" "$state_folder cannot be written: is this root?"; fi
}

# One at a time. The lock ends with the process, however it ends.
lock_state() {
    exec {lock_descriptor}>"$state_folder/lock" || die "$exit_failed" "$state_folder/lock cannot be opened"
    flock --nonblock "$lock_descriptor" ||
        die "$exit_failed" "another $program is at work in $state_folder: nothing was changed"
}

# Sets `snapshots`, the oldest first.
list_snapshots() {
    local folder
    snapshots=()
    for folder in "$state_folder"/snapshots/[0-9]*Z-[0-9]*/; do
        folder=${folder%/}
        snapshots+=("${folder##*/}")
    done
}

# Sets `state`.
read_state() {
    state=
    if read_line "$state_folder/snapshots/$1/state"; then state=$line; fi
}

write_state() {
    local file=$state_folder/snapshots/$snapshot/state
    say "$1" >"$file.new" && mv -f -- "$file.new" "$file"
}

# An apply that was killed is put right before another one begins. One of an earlier boot took its values along, and
# those of another network namespace are not met here.
refuse_interrupted() {
    local name
    list_snapshots
    read_place
    for name in "${snapshots[@]}"; do
        read_state "$name"
        [[ $state == applying ]] || continue
        read_saved_place "$name"
        if [[ $boot == "$saved_boot" && $namespace == "$saved_namespace" ]]; then
            die "$exit_drift" "an earlier apply ended half way: run $program rollback $name first"
        fi
    done
}

# Sets `saved_boot` and `saved_namespace` to where a snapshot was made.
read_saved_place() {
    local name rest
    saved_boot='' saved_namespace=''
    [[ -r $state_folder/snapshots/$1/meta ]] || return 0
    while read -r name rest; do
        case $name in
        boot) saved_boot=$rest ;;
        namespace) saved_namespace=$rest ;;
        esac
    done <"$state_folder/snapshots/$1/meta"
}

# Whether a snapshot is of another network namespace of this boot.
is_of_another_namespace() {
    read_saved_place "$1"
    [[ $boot == "$saved_boot" && $namespace != "$saved_namespace" ]]
}

# Sets `escaped`: one line, no tab.
escape() {
    escaped=${1//\\/\\\\}
    escaped=${escaped//$'\t'/\\t}
    escaped=${escaped//$'\n'/\\n}
}

# Sets `unescaped`.
unescape() {
    printf -v unescaped '%b' "$1"
}

# Sets `boot` and `namespace` to what tells this boot and this network namespace from others.
read_place() {
    boot='' namespace=''
    if read_line "$root/proc/sys/kernel/random/boot_id"; then boot=$line; fi
    if [[ -L $root/proc/self/ns/net ]]; then namespace=$(readlink -- "$root/proc/self/ns/net"); fi
}

# Writes the changes down, on the disk before the first of them is made. Sets `snapshot`.
write_snapshot() {
    local index folder stamp old
    printf -v stamp '%(%Y%m%dT%H%M%SZ)T' -1
    snapshot=$stamp-${EPOCHREALTIME#*.}
    folder=$state_folder/snapshots/$snapshot
    (umask 077 && mkdir -p -- "$state_folder/snapshots/.$snapshot") || return 1
    read_clock
    read_place
    {
        say "version $version"
        say "time $now"
        say "user ${SUDO_USER:-$EUID}"
        say "kernel $kernel"
        say "goal ${profile:-nic $device}"
        say "boot $boot"
        say "namespace $namespace"
    } >"$state_folder/snapshots/.$snapshot/meta" || return 1
    for index in "${!change_key[@]}"; do
        escape "${change_raw[index]}"
        old=$escaped
        escape "${change_to[index]}"
        printf '%s\t%s\t=%s\t=%s\n' "${change_key[index]}" "${change_type[index]}" "$old" "$escaped" || return 1
    done >"$state_folder/snapshots/.$snapshot/values"
    say applying >"$state_folder/snapshots/.$snapshot/state" || return 1
    : >"$state_folder/snapshots/.$snapshot/journal" || return 1
    sync -- "$state_folder/snapshots/.$snapshot"/* || return 1
    mv -- "$state_folder/snapshots/.$snapshot" "$folder" && sync -- "$state_folder/snapshots"
}

journal() {
    printf '%s %s\n' "$1" "$2" >>"$state_folder/snapshots/$snapshot/journal"
}

# Reads a snapshot into saved_key, saved_type, saved_old (bytes), saved_new and the table `progress`.
read_snapshot() {
    local folder=$state_folder/snapshots/$snapshot key type old new step
    saved_key=() saved_type=() saved_old=() saved_new=()
    declare -gA progress=()
    [[ -f $folder/values ]] || die "$exit_usage" "$state_folder has no snapshot $snapshot"
    while IFS=$'\t' read -r key type old new; do
        if ! is_key "$key" || [[ $old != =* || $new != =* ]]; then
            die "$exit_failed" "$folder/values is damaged: nothing was changed"
        fi
        unescape "${old#=}"
        saved_key+=("$key") saved_type+=("$type") saved_old+=("$unescaped")
        unescape "${new#=}"
        saved_new+=("$unescaped")
    done <"$folder/values"
    if [[ -r $folder/journal ]]; then
        while read -r step key; do
            if [[ $key ]]; then progress[$key]=$step; fi
        done <"$folder/journal"
    fi
}
