# What else stands in the way: limits, counters of the kernel, queues, interrupts, power, memory. Shown, never
# changed.
# shellcheck shell=bash disable=SC2034,SC2154

# One element each: name, value, verdict (ok, warn or info) and what it means.
declare -a seen_name=() seen_value=() seen_verdict=() seen_meaning=()

note() {
    seen_name+=("$1") seen_value+=("$2") seen_verdict+=("$3") seen_meaning+=("$4")
}

# note_count NAME VALUE MEANING: a counter that should stand at 0.
note_count() {
    is_number "$2" || return 0
    if (($2 > 0)); then note "$1" "$2" warn "$3"; else note "$1" "$2" ok "$3"; fi
}

observe_host() {
    observe_cgroup
    observe_systemd
    observe_sockets
    observe_tcp_counters
    observe_conntrack
    observe_softnet
    observe_devices
    observe_cpu
    observe_memory
}

# Named is the group that leaves the least, as that is the first to be met.
observe_cgroup() {
    local needed human_left
    read_cgroup pids
    if [[ $cgroup_tight == max ]]; then
        note "cgroup pids.max" max ok "no limit on threads and processes"
    elif ((cgroup_left < vars[cores] * 4 + vars[processes] * 4)); then
        note "cgroup pids.max" "$cgroup_tight" warn "threads and processes of this group, $cgroup_left left; too few for the reactors"
    else
        note "cgroup pids.max" "$cgroup_tight" ok "threads and processes of this group, $cgroup_left left"
    fi
    read_cgroup memory
    if [[ $cgroup_tight == max ]]; then
        note "cgroup memory.max" max ok "no limit on memory; kernel memory of sockets counts too"
        return
    fi
    needed=$((vars[connections] * (default_user_bytes + default_kernel_bytes) + vars[active] * active_user_bytes + vars[processes] * process_bytes))
    human_bytes "$cgroup_left"
    if ((cgroup_left < needed)); then
        human_left=$human
        human_bytes "$needed"
        note "cgroup memory.max" "$cgroup_tight" warn "$human_left left, $human needed; kernel memory of sockets counts too: see size"
    else
        note "cgroup memory.max" "$cgroup_tight" ok "$human left; kernel memory of sockets counts too: see size"
    fi
}

# What systemd would give the service.
observe_systemd() {
    read_default_limits
    if [[ -d $root/run/systemd/system || $had_place != 'built in' ]]; then
        note systemd.DefaultLimitNOFILE "$had_soft:$had_hard" info "$had_place: services without LimitNOFILE get this"
    fi
    if [[ $unit ]]; then observe_unit; fi
}

observe_unit() {
    local place
    read_unit_limits "$unit"
    place=$had_place
    if [[ ! $unit_sets ]]; then place+=" (DefaultLimitNOFILE, its files set none)"; fi
    larger_limit "$had_hard" "${vars[nofile]}"
    if [[ ${#unit_files[@]} -eq 0 ]]; then
        note "$unit LimitNOFILE" missing warn "no file of this unit was found"
    elif [[ $limit == "$had_hard" ]]; then
        note "$unit LimitNOFILE" "$had_soft:$had_hard" ok "$place: enough for ${vars[nofile]}"
    else
        note "$unit LimitNOFILE" "$had_soft:$had_hard" warn "$place: less than ${vars[nofile]}: see persist --unit"
    fi
}

observe_sockets() {
    local orphans waiting pages
    read_raw "$root/proc/net/sockstat" || return 0
    [[ $raw =~ TCP:\ inuse\ ([0-9]+)\ orphan\ ([0-9]+)\ tw\ ([0-9]+)\ alloc\ ([0-9]+)\ mem\ ([0-9]+) ]] || return 0
    orphans=${BASH_REMATCH[2]} waiting=${BASH_REMATCH[3]} pages=${BASH_REMATCH[5]}
    note tcp.sockets "${BASH_REMATCH[4]}" info "allocated now, this namespace and the host together"
    note tcp.orphans "$orphans" info "closed by their program, still sending"
    note tcp.time_wait "$waiting" info "in TIME_WAIT now"
    note tcp.pages "$pages" info "buffer pages in use, to compare with net.ipv4.tcp_mem"
}

observe_tcp_counters() {
    local kind names numbers index
    declare -A counter=()
    [[ -r $root/proc/net/netstat ]] || return 0
    while read -r kind names && read -r kind numbers; do
        [[ $kind == TcpExt: ]] || continue
        local -a name=() number=()
        read -r -a name <<<"$names"
        read -r -a number <<<"$numbers"
        for index in "${!name[@]}"; do counter[${name[index]}]=${number[index]-}; done
    done <"$root/proc/net/netstat"
    note_count TcpExt.ListenOverflows "${counter[ListenOverflows]-}" \
        "handshakes dropped since boot because an accept queue was full: a longer queue, or accept faster"
    note_count TcpExt.ListenDrops "${counter[ListenDrops]-}" "the same, and listeners short of memory or closing"
    note_count TcpExt.TCPReqQFullDrop "${counter[TCPReqQFullDrop]-}" "SYN dropped, queue full and no cookies"
    note_count TcpExt.TCPReqQFullDoCookies "${counter[TCPReqQFullDoCookies]-}" "SYN answered by cookie, queue full"
    note_count TcpExt.TCPTimeWaitOverflow "${counter[TCPTimeWaitOverflow]-}" "TIME_WAIT skipped: tcp_max_tw_buckets"
    note_count TcpExt.TCPMemoryPressures "${counter[TCPMemoryPressures]-}" "times that tcp_mem's second field was passed"
    note_count TcpExt.TCPAbortOnMemory "${counter[TCPAbortOnMemory]-}" "connections reset for want of tcp_mem or orphans"
    note_count TcpExt.PruneCalled "${counter[PruneCalled]-}" "receive buffers squeezed: readers slower than senders"
}

observe_conntrack() {
    local count most name index full=0 names=() numbers=()
    if ! read_line "$root/proc/sys/net/netfilter/nf_conntrack_max"; then
        note conntrack off ok "not loaded: nothing to fill up"
        return
    fi
    most=$line
    if ! is_tracking; then
        note conntrack.count 0 ok "nothing is tracked here: no rule asks for it"
        return
    fi
    if read_line "$root/proc/sys/net/netfilter/nf_conntrack_count" && is_number "$line" && is_number "$most"; then
        count=$line
        if ((count > most * 8 / 10)); then
            note conntrack.count "$count" warn "of $most entries: nearly full"
        else
            note conntrack.count "$count" ok "of $most entries"
        fi
    fi
    # One row for each CPU, hexadecimal.
    [[ -r $root/proc/net/stat/nf_conntrack ]] || return 0
    {
        read -r -a names
        while read -r -a numbers; do
            for index in "${!names[@]}"; do
                name=${names[index]}
                if [[ ($name == drop || $name == insert_failed) && ${numbers[index]-} =~ ^[0-9a-f]{1,15}$ ]]; then
                    full=$((full + 16#${numbers[index]}))
                fi
            done
        done
    } <"$root/proc/net/stat/nf_conntrack"
    note_count conntrack.drops "$full" "connections refused by a full or contended table"
}

observe_softnet() {
    local dropped squeezed rest drops=0 squeezes=0
    [[ -r $root/proc/net/softnet_stat ]] || return 0
    while read -r rest dropped squeezed rest; do
        [[ $dropped =~ ^[0-9a-f]{1,15}$ && $squeezed =~ ^[0-9a-f]{1,15}$ ]] || continue
        drops=$((drops + 16#$dropped)) squeezes=$((squeezes + 16#$squeezed))
    done <"$root/proc/net/softnet_stat"
    note_count softnet.dropped "$drops" "packets dropped since boot: net.core.netdev_max_backlog"
    note softnet.time_squeeze "$squeezes" info "receive turns cut short since boot: net.core.netdev_budget, if it grows fast"
}

# Queues of every device; qdiscs only the running system can tell.
observe_devices() {
    local folder name queues discipline
    declare -A kinds=()
    if is_live && command -v tc >/dev/null; then
        local word kind dev rest
        while read -r word kind rest dev name rest; do
            if [[ $word == qdisc && $dev == dev && ! ${kinds[$name]+set} ]]; then kinds[$name]=$kind; fi
        done < <(tc qdisc show 2>/dev/null)
    fi
    for folder in "$root"/sys/class/net/*/; do
        folder=${folder%/} name=${folder##*/}
        queues=("$folder"/queues/rx-*)
        find_interrupts "$folder" "$name"
        discipline=${kinds[$name]:-unknown}
        show "$name" 20
        note "device.$shown" "${#queues[@]} receive queues, ${#interrupts[@]} interrupts, qdisc $discipline" info \
            "$program nic $shown says more"
    done
}

observe_cpu() {
    local file governors='' source
    for file in "$root"/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor; do
        read_line "$file" || continue
        [[ " $governors " == *" $line "* ]] || governors+="${governors:+ }$line"
    done
    case $governors in
    '') note cpu.governor none info "no frequency scaling here, or the hypervisor keeps it" ;;
    performance) note cpu.governor performance ok "clocks stay up" ;;
    *)
        if [[ $profile == latency || $profile == loadgen ]]; then
            note cpu.governor "$governors" warn "clocks fall when idle: the first requests after a pause are slower; performance avoids it"
        else
            note cpu.governor "$governors" info "clocks fall when idle"
        fi
        ;;
    esac
    if read_line "$root/sys/devices/system/clocksource/clocksource0/current_clocksource"; then
        source=$line
        case $source in
        hpet | acpi_pm | jiffies) note clocksource "$source" warn "reading the clock is a slow system call with it: want tsc" ;;
        *) note clocksource "$source" ok "reading the clock is cheap" ;;
        esac
    fi
}

observe_memory() {
    local nodes=("$root"/sys/devices/system/node/node*/)
    if [[ ${#nodes[@]} -gt 1 ]]; then
        note numa.nodes "${#nodes[@]}" info "keep a reactor, its memory and its device's interrupts on one node"
    fi
    if read_line "$root/proc/sys/fs/file-nr" && [[ $line =~ ^([0-9]+) ]]; then
        note files.open "${BASH_REMATCH[1]}" info "of the whole host, to compare with fs.file-max"
    fi
}
