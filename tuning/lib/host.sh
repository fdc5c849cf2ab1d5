# What kind of host this is: kernel, memory, CPUs, container, namespace. And the load of the profile.
# shellcheck shell=bash disable=SC2034,SC2154

# Sets `kernel`, `kernel_number`, `container`, `netns` and the host's names in `vars`.
read_host() {
    read_kernel
    read_container
    read_memory
    read_cores
    read_mounts
    # Tables reckon in pages; nothing but getconf would tell, and all of 4.19 to now on amd64 and most arm64 have this.
    vars[page]=4096
    if is_live && command -v getconf >/dev/null; then vars[page]=$(getconf PAGESIZE); fi
    read_listening_ports
}

read_kernel() {
    if read_line "$root/proc/sys/kernel/osrelease" && [[ $line =~ ^[0-9] ]]; then
        kernel=$line
    else
        die "$exit_unsupported" "$root/proc/sys/kernel/osrelease cannot be read: is /proc mounted, is this Linux?"
    fi
    kernel_to_number "$kernel" || die "$exit_unsupported" "kernel release '$kernel' has no version in it"
    kernel_number=$number
}

# Sets `number` so that later versions have greater ones: 6.1.0-13-amd64 is 6001.
kernel_to_number() {
    [[ $1 =~ ^([0-9]{1,4})\.([0-9]{1,3}) ]] || return 1
    number=$((10#${BASH_REMATCH[1]} * 1000 + 10#${BASH_REMATCH[2]}))
}

# Sets `container` to what gave it away, and `netns`: initial, or own if this network namespace is another.
read_container() {
    container=
    if [[ -e $root/.dockerenv ]]; then
        container=docker
    elif [[ -e $root/run/.containerenv ]]; then
        container=podman
    elif read_line "$root/run/systemd/container" && [[ $line =~ ^[a-z0-9-]+$ ]]; then
        container=$line
    elif read_raw "$root/proc/1/cgroup" && [[ $raw =~ (docker|kubepods|lxc|libpod|containerd) ]]; then
        container=${BASH_REMATCH[1]}
    fi
    # A namespace that is not the first has no table of the host-wide keys. Links of other processes would need root.
    netns=initial
    if [[ -d $root/proc/sys/net/core && ! -e $root/proc/sys/net/core/netdev_max_backlog ]]; then netns=own; fi
}

# The memory there is: that of the host, or what the cgroup leaves of it.
read_memory() {
    vars[memory]=
    if read_raw "$root/proc/meminfo" && [[ $raw =~ MemTotal:[[:space:]]+([0-9]{1,12})\ kB ]]; then
        vars[host_memory]=$((10#${BASH_REMATCH[1]} * 1024))
        vars[memory]=${vars[host_memory]}
    fi
    read_cgroup memory
    if is_number "$cgroup_value" && [[ ${vars[memory]} ]] && ((cgroup_value < vars[memory])); then
        vars[memory]=$cgroup_value
    fi
}

# read_cgroup pids|memory: sets `cgroup_value` to the least limit from our group up to the root, or to «max» where
# none is set; `cgroup_tight` to the limit of the group that leaves the least, and `cgroup_left` to what it leaves.
read_cgroup() {
    local kind=$1 hierarchy controllers group folder files
    cgroup_value=max cgroup_tight=max cgroup_left=max
    [[ -r $root/proc/self/cgroup ]] || return 0
    while IFS=: read -r hierarchy controllers group; do
        files=()
        if [[ $hierarchy == 0 && ! $controllers ]]; then
            folder=$root/sys/fs/cgroup files=("$kind.max" "$kind.current")
            # Both versions at once.
            if [[ -d $folder/unified ]]; then folder+=/unified; fi
        elif [[ ,$controllers, == *,$kind,* ]]; then
            folder=$root/sys/fs/cgroup/$kind files=("$kind.max" "$kind.current")
            if [[ $kind == memory ]]; then files=(memory.limit_in_bytes memory.usage_in_bytes); fi
        fi
        [[ ${#files[@]} -gt 0 && $group == /* && $group != *..* ]] || continue
        while :; do
            read_group "$folder${group%/}"
            [[ $group != / && $group ]] || break
            group=${group%/*}
        done
    done <"$root/proc/self/cgroup"
}

# read_group FOLDER: one group's limit and use.
read_group() {
    local limit left
    read_line "$1/${files[0]}" || return 0
    # The first version says «unlimited» by a number near the largest.
    [[ ${#line} -le 19 && $line =~ ^[1-9][0-9]*$ ]] && ((line > 0 && line < formula_limit)) || return 0
    limit=$line left=$line
    if read_line "$1/${files[1]}" && is_number "$line"; then left=$((line < limit ? limit - line : 0)); fi
    if [[ $cgroup_value == max ]] || ((limit < cgroup_value)); then cgroup_value=$limit; fi
    if [[ $cgroup_left == max ]] || ((left < cgroup_left)); then cgroup_left=$left cgroup_tight=$limit; fi
}

# Whether connections are tracked here. Without a rule that asks for it nothing is, however large the table: then it
# is empty, also after a datagram over loopback. A number that cannot be read is no reason to believe so.
is_tracking() {
    local file=$root/proc/sys/net/netfilter/nf_conntrack_count
    if [[ ! $tracking ]]; then
        tracking=yes
        if read_line "$file" && [[ $line == 0 ]]; then
            if is_live; then { printf . >/dev/udp/127.0.0.1/9; } 2>/dev/null; fi
            if read_line "$file" && [[ $line == 0 ]]; then tracking=no; fi
        fi
    fi
    [[ $tracking == yes ]]
}
tracking=

# The CPUs this process may use.
read_cores() {
    local part low high count=0 parts=()
    if read_raw "$root/proc/self/status" && [[ $raw =~ Cpus_allowed_list:[[:space:]]+([0-9,-]+) ]]; then
        cpu_list=${BASH_REMATCH[1]}
        [[ $cpu_list =~ ^[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*$ ]] || cpu_list=0
        IFS=, read -r -a parts <<<"$cpu_list"
        for part in "${parts[@]}"; do
            low=${part%-*} high=${part#*-}
            count=$((count + 10#$high - 10#$low + 1))
        done
    else
        cpu_list=0
    fi
    vars[cores]=$((count > 0 ? count : 1))
}

# Ports of services: the automatic choice of a local port must not meet them. Sets vars[listening] as a list that the
# kernel takes. The range and the list hold for UDP too. A UDP socket does not say whether it is a service: those with
# a port inside the range in force may have got it by that choice, and do not count.
read_listening_ports() {
    local address rest port list='' low=0 high=0
    declare -A seen=()
    if read_raw "$root/proc/sys/net/ipv4/ip_local_port_range" && normalise range "$raw"; then read -r low high <<<"$value"; fi
    while read -r rest rest address rest; do
        if [[ $address =~ :([0-9]{1,5})$ ]]; then seen[${BASH_REMATCH[1]}]=yes; fi
    done < <(list_sockets tcp 0A listening)
    while read -r rest rest address rest; do
        [[ $address =~ :([0-9]{1,5})$ ]] || continue
        port=${BASH_REMATCH[1]}
        if ((port < low || port > high)); then seen[$port]=yes; fi
    done < <(list_sockets udp 07 unconnected)
    for port in "${!seen[@]}"; do list+=${list:+,}$port; done
    normalise ports "$list" || value=
    vars[listening]=$value
}

# list_sockets tcp|udp STATE NAME: lines as ss prints them. With a million connections /proc/net/tcp takes minutes to
# read, and so does what ss calls --listening, which asks for closed sockets too; this state alone takes no time. In a
# folder there is only the file.
list_sockets() {
    if is_live && command -v ss >/dev/null; then
        ss --no-header "--$1" --numeric state "$3" 2>/dev/null
        return
    fi
    local file number address state rest
    for file in "$root/proc/net/$1" "$root/proc/net/${1}6"; do
        [[ -f $file && -r $file ]] || continue
        while read -r number address rest state rest; do
            if [[ $state == "$2" && $address =~ :([0-9A-F]{4})$ ]]; then say "0 0 *:$((16#${BASH_REMATCH[1]}))"; fi
        done <"$file"
    done
}

# Takes the load from the profile, then what the caller stated, and reckons what both imply.
choose_profile() {
    local name connections active rate rtt_us bandwidth stall_ms words found='' names=''
    # A command without --profile reads no table.
    [[ $profile ]] || return 0
    load_knobs
    while IFS=$'\t' read -r name connections active rate rtt_us bandwidth stall_ms words; do
        [[ $name && $name != '#'* ]] || continue
        names+=" $name"
        [[ $name == "$profile" ]] || continue
        found=yes profile_words=$words
        vars+=([connections]=$connections [active]=$active [rate]=$rate [rtt_us]=$rtt_us)
        vars+=([bandwidth]=$bandwidth [stall_ms]=$stall_ms [processes]=1 [headroom]=25)
    done <"$knob_folder/profiles.tsv"
    [[ $found ]] || usage_error "no profile is named '$profile':$names"
    # A stated number of connections alone must not meet a larger active part of the profile.
    if [[ ${given[connections]-} && ! ${given[active]-} ]] && ((vars[active] > given[connections])); then
        vars[active]=${given[connections]}
    fi
    for name in "${!given[@]}"; do vars["$name"]=${given["$name"]}; done
    if ((vars[active] > vars[connections])); then
        usage_error "--active ${vars[active]} is more than the ${vars[connections]} connections of the profile"
    fi
    [[ ${vars[memory]} ]] ||
        die "$exit_unsupported" "$root/proc/meminfo does not say how much memory there is: state --memory"
    derive_load
}

derive_load() {
    local factor=$((100 + vars[headroom])) bytes_in_ms
    vars[mem_pages]=$((vars[memory] / vars[page]))
    vars[per_process]=$(((vars[connections] + vars[processes] - 1) / vars[processes]))
    # Beside the connections a process has listeners, pollers, logs and upstreams.
    vars[nofile]=$((vars[per_process] * factor / 100 + 512))
    vars[files]=$((vars[connections] * factor / 100 + vars[processes] * 512))
    # In two steps: their product may not fit into 64 bits.
    bytes_in_ms=$((vars[bandwidth] / 8000))
    vars[bdp]=$((bytes_in_ms * vars[rtt_us] / 1000))
    vars[accept_queue]=$((vars[rate] * vars[stall_ms] * factor / 100000))
    # The kernel keeps a socket in TIME_WAIT for 60 seconds, which no key changes.
    vars[time_wait]=$((vars[rate] * 60))
    # All flows together fill the path once, twice with what waits to be acknowledged or read; 64 KiB more for
    # each active one, which is what its first windows may hold.
    vars[tcp_pages]=$(((4 * vars[bdp] + vars[active] * 65536) / vars[page] + 1))
}
