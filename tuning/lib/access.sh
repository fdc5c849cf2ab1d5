# Whether a key can be read and written here, and why not.
# shellcheck shell=bash disable=SC2034,SC2154

# Mount points under /proc and /sys that are read only, as container runtimes make them.
read_only_mounts=()

read_mounts() {
    local mount options rest
    read_only_mounts=()
    [[ -r $root/proc/self/mountinfo ]] || return 0
    while read -r rest rest rest rest mount options rest; do
        if [[ ($mount == /proc* || $mount == /sys*) && ,$options, == *,ro,* ]]; then
            read_only_mounts+=("$mount")
        fi
    done <"$root/proc/self/mountinfo"
}

# Sets `access` to ok, root (this user may not), read-only, unreadable or missing, and `why` to the reason
# in words. `mode` may hold the file's permissions in octal, which spares a process.
find_access() {
    local file=$1 mode=${2-} mount
    access=ok why=
    if [[ ! -e $file ]]; then
        access=missing
        return
    fi
    if [[ ! -f $file || ! -r $file ]]; then
        access=unreadable why="cannot be read"
        return
    fi
    for mount in "${read_only_mounts[@]}"; do
        if [[ ${file#"$root"}/ == "$mount"/* ]]; then
            access=read-only why="$mount is mounted read only here${container:+ (container: $container)}"
            return
        fi
    done
    if [[ ! $mode ]]; then mode=$(stat -c %a -- "$file" 2>/dev/null) || mode=0; fi
    if ((!(8#$mode & 8#222))); then
        access=read-only why="the kernel offers it read only"
        if [[ $netns == own ]]; then why+=" in this network namespace: it belongs to the host"; fi
    elif [[ ! -w $file ]]; then
        if [[ $EUID -eq 0 ]]; then
            access=read-only why="not writable even for root here"
        else
            access=root why="needs root"
        fi
    fi
}

# Sets `why` for a key that is not there: gone, not yet there, the host's, or not built in.
explain_missing() {
    local key=$1 scope=$2 since=$3 until=$4
    if [[ $until != - ]] && kernel_to_number "$until" && ((kernel_number >= number)); then
        why="gone since Linux $until"
    elif [[ $since != - ]] && kernel_to_number "$since" && ((kernel_number < number)); then
        why="comes with Linux $since, this is $kernel"
    elif [[ $scope == host && $netns == own && $key == net.* ]]; then
        why="belongs to the host: this network namespace does not show it"
    elif [[ $key == net.netfilter.* ]]; then
        why="connection tracking is not loaded"
    else
        why="this kernel does not have it"
    fi
}
