# The capacity calculator: what the stated load takes, and whether there is that much of it.
# shellcheck shell=bash disable=SC2034,SC2154

# One element each: name, number, unit, formula in words, what is there, verdict (fits, short, info).
declare -a size_name=() size_value=() size_unit=() size_formula=() size_has=() size_verdict=()

# Measured: corelane keeps 102 to 115 bytes for an idle connection (benches/results/memory.txt), the kernel 9.8 to
# 10.1 KB for both its ends (kernel.slope in c100k.json and c1m.json) on Linux 6.18. `corelane-bench preflight` reckons
# with the same.
readonly default_user_bytes=160 default_kernel_bytes=5040
# A larger number is no cost of a connection, and its product with their number might not fit into 64 bits.
readonly most_connection_bytes=1000000
# Assumed, not measured: what a connection that moves bytes holds in inbox and outbox, and a process beside all.
readonly active_user_bytes=8192 process_bytes=8388608
# From the kernel's slabs: a socket in TIME_WAIT, a handshake under way, an entry of connection tracking.
readonly time_wait_bytes=256 handshake_bytes=320 tracked_bytes=256

command_size() {
    read_costs
    evaluate_knobs
    size_descriptors
    size_ports
    size_queues
    size_buffers
    size_memory
    if [[ $format == json ]]; then size_json; else size_text; fi
}

# Sets vars[user_bytes] and vars[kernel_bytes], and `user_source` and `kernel_source` to where they are from.
read_costs() {
    vars[user_bytes]=$default_user_bytes user_source=default
    vars[kernel_bytes]=$default_kernel_bytes kernel_source=default
    if [[ $measured_from ]]; then read_measured; fi
    if [[ ${given[user_bytes]-} ]]; then vars[user_bytes]=${given[user_bytes]} user_source=stated; fi
    if [[ ${given[kernel_bytes]-} ]]; then vars[kernel_bytes]=${given[kernel_bytes]} kernel_source=stated; fi
}

# Takes the memory of an idle connection from a result of corelane-bench: the slope of a series of user memory, or
# a number by name, and the slope of the kernel's, which is that of both ends: they were on one host. Of several the
# largest counts.
read_measured() {
    local text found
    [[ -f $measured_from && -r $measured_from ]] || usage_error "--from $measured_from cannot be read"
    (($(stat -Lc %s -- "$measured_from") <= 67108864)) || usage_error "--from $measured_from is larger than 64 MiB"
    read_raw "$measured_from"
    text=${raw//[[:space:]]/}
    largest_number '(user":\{[^}]*"slope|user_bytes_per_connection|idle_per_connection|bytes_per_connection)' ||
        usage_error "--from $measured_from holds no memory per connection (user.slope, user_bytes_per_connection, idle_per_connection)"
    vars[user_bytes]=$found user_source=measured
    if largest_number '(kernel":\{[^}]*"slope)'; then
        vars[kernel_bytes]=$(((found + 1) / 2)) kernel_source=measured
    fi
}

# Sets `found` to the largest number in `text` that has such a name.
largest_number() {
    local rest=$text name
    found=-1
    while [[ $rest =~ \"$1\":([0-9]{1,9})(\.[0-9]+)?([^0-9.]|$) ]]; do
        # Rounded up: a capacity is not reckoned from less than was measured.
        name=${BASH_REMATCH[2]}
        if [[ ${BASH_REMATCH[3]} ]]; then name=$((name + 1)); fi
        if ((name > found)); then found=$name; fi
        rest=${rest#*"${BASH_REMATCH[0]}"}
    done
    ((found <= most_connection_bytes)) ||
        usage_error "--from $measured_from says $found bytes for a connection: more than $most_connection_bytes are taken for a mistake"
    ((found >= 0))
}

# size NAME VALUE UNIT FORMULA HAS: HAS is empty where nothing bounds it.
size() {
    size_name+=("$1") size_value+=("$2") size_unit+=("$3") size_formula+=("$4") size_has+=("$5")
    if ! is_number "$5"; then
        size_verdict+=(info)
    elif (($2 <= $5)); then
        size_verdict+=(fits)
    else
        size_verdict+=(short)
    fi
}

# Sets `has` to one field of a knob as it is now, empty if not known.
knob_now() {
    local index fields=()
    has=
    for index in "${!knob_key[@]}"; do
        if [[ ${knob_key[index]} == "$1" && ${knob_current[index]} ]]; then
            read -r -a fields <<<"${knob_current[index]}"
            has=${fields[$2 - 1]-}
            # «No limit», in a number that can be reckoned with.
            if [[ $has =~ ^[0-9]{19,}$ ]]; then has=999999999999999999; fi
        fi
    done
}

size_descriptors() {
    local headroom="${vars[headroom]}%"
    knob_now 'RLIMIT_NOFILE hard' 1
    size descriptors_per_process "${vars[nofile]}" descriptors \
        "${vars[connections]} connections / ${vars[processes]} processes, + $headroom, + 512 for the rest; now: hard RLIMIT_NOFILE" "$has"
    knob_now fs.nr_open 1
    size descriptors_ceiling "${vars[nofile]}" descriptors "the same; now: fs.nr_open" "$has"
    knob_now fs.file-max 1
    size files_of_host "$((vars[files] + 65536))" files \
        "${vars[connections]} connections + $headroom, + 512 for each process, + 65536 for the rest; now: fs.file-max" "$has"
    knob_now fs.epoll.max_user_watches 1
    size epoll_watches "${vars[connections]}" watches "one for each connection; now: fs.epoll.max_user_watches" "$has"
    if [[ $limit_hard ]] && ((limit_hard > 512)); then
        local each=$(((limit_hard - 512) * 100 / (100 + vars[headroom])))
        size processes_needed "$(((vars[connections] + each - 1) / each))" processes \
            "${vars[connections]} connections / $each that fit the hard RLIMIT_NOFILE of this process, headroom left" "${vars[processes]}"
    fi
}

# Only the side that connects needs ports.
size_ports() {
    local low=32768 high=60999 ports wide reserved list=()
    knob_now net.ipv4.ip_local_port_range 1
    if is_number "$has"; then
        low=$has
        knob_now net.ipv4.ip_local_port_range 2
        high=$has
    fi
    knob_now net.ipv4.ip_local_reserved_ports 1
    IFS=, read -r -a list <<<"$has"
    count_reserved 10240 65535
    wide=$((55296 - reserved))
    ((wide > 0)) || wide=1
    count_reserved "$low" "$high"
    ports=$((high - low + 1 - reserved))
    ((ports > 0)) || ports=1
    size source_addresses $(((vars[connections] + ports - 1) / ports)) addresses \
        "outgoing only: ${vars[connections]} connections / $ports ports in $low-$high, for each address and port connected to" ''
    size source_addresses_wide $(((vars[connections] + wide - 1) / wide)) addresses "the same with 10240-65535: $wide ports" ''
    size outgoing_rate $((ports / 60)) connections/s \
        "$ports ports / 60 s of TIME_WAIT, for each source and destination, if we close first and tcp_tw_reuse is off" ''
}

# Sets `reserved` to how many ports of `list` are from LOW to HIGH.
count_reserved() {
    local part first last
    reserved=0
    for part in "${list[@]}"; do
        first=$((${part%-*} > $1 ? ${part%-*} : $1))
        last=$((${part#*-} < $2 ? ${part#*-} : $2))
        if ((last >= first)); then reserved=$((reserved + last - first + 1)); fi
    done
}

size_queues() {
    size time_wait "${vars[time_wait]}" sockets "${vars[rate]} a second x 60 s, if we close first" ''
    knob_now net.ipv4.tcp_max_tw_buckets 1
    size_has[-1]=$has
    if is_number "$has" && ((vars[time_wait] > has)); then size_verdict[-1]=short; elif [[ $has ]]; then size_verdict[-1]=fits; fi
    knob_now net.core.somaxconn 1
    size accept_queue "${vars[accept_queue]}" connections \
        "${vars[rate]} a second x ${vars[stall_ms]} ms without accept, + ${vars[headroom]}%; now: net.core.somaxconn, and the backlog given to listen" "$has"
    size handshakes $((vars[rate] * vars[rtt_us] / 1000000 + 1)) connections \
        "${vars[rate]} a second x one round trip, in the SYN queue" "$has"
    knob_now net.netfilter.nf_conntrack_max 1
    if [[ $has ]] && is_tracking; then
        size tracked $((vars[connections] + vars[rate] * 120 + 65536)) entries \
            "${vars[connections]} connections + ${vars[rate]} a second x 120 s, + 65536; now: nf_conntrack_max" "$has"
    fi
}

size_buffers() {
    local share
    size bandwidth_delay_product "${vars[bdp]}" bytes "${vars[bandwidth]} bit/s / 8 x $((vars[rtt_us])) us" ''
    knob_now net.ipv4.tcp_rmem 3
    size window_of_one_flow $((2 * vars[bdp])) bytes "2 x that, for one flow to fill the path; now: last field of tcp_rmem" "$has"
    knob_now net.ipv4.tcp_wmem 3
    size send_buffer_of_one_flow $((2 * vars[bdp])) bytes "the same; now: last field of tcp_wmem" "$has"
    share=$((vars[bdp] / (vars[active] > 0 ? vars[active] : 1)))
    size share_of_each_active "$share" bytes "the product / ${vars[active]} active connections: what each has under way when all send" ''
    knob_now net.ipv4.tcp_mem 3
    size tcp_pages "${vars[tcp_pages]}" pages \
        "(4 x the product + 64 KiB x ${vars[active]} active) / ${vars[page]}; now: last field of tcp_mem" "$has"
}

size_memory() {
    local user kernel buffers rest total each most tracked=0 available
    user=$((vars[connections] * vars[user_bytes] + vars[active] * active_user_bytes + vars[processes] * process_bytes))
    kernel=$((vars[connections] * vars[kernel_bytes]))
    buffers=$((vars[tcp_pages] * vars[page]))
    knob_now net.netfilter.nf_conntrack_max 1
    if [[ $has ]] && is_tracking; then tracked=$(((vars[connections] + vars[rate] * 120) * tracked_bytes)); fi
    rest=$((vars[time_wait] * time_wait_bytes + vars[accept_queue] * handshake_bytes + tracked))
    total=$(((user + kernel + buffers + rest) * (100 + vars[headroom]) / 100))
    size memory_user "$user" bytes \
        "${vars[connections]} x ${vars[user_bytes]} ($user_source) + ${vars[active]} active x $active_user_bytes (assumed) + ${vars[processes]} processes x $process_bytes (assumed)" ''
    size memory_kernel_sockets "$kernel" bytes "${vars[connections]} x ${vars[kernel_bytes]} ($kernel_source); both ends on one host cost twice that, and some" ''
    size memory_tcp_buffers "$buffers" bytes "${vars[tcp_pages]} pages, if all of them fill" ''
    size memory_queues "$rest" bytes "TIME_WAIT x $time_wait_bytes + accept queue x $handshake_bytes + tracked x $tracked_bytes" ''
    size memory "$total" bytes "all of these + ${vars[headroom]}%; now: memory of the host or the group" "${vars[memory]}"
    each=$(((vars[user_bytes] + vars[kernel_bytes]) * (100 + vars[headroom]) / 100))
    available=$((vars[memory] - (total - each * vars[connections])))
    most=$((available > 0 ? available / (each > 0 ? each : 1) : 0))
    size connections_that_fit "$most" connections \
        "memory without buffers, queues and processes / ($each bytes: user and kernel of one idle connection + ${vars[headroom]}%)" ''
}

size_text() {
    local index mark value suffix
    say_goal
    say ''
    for index in "${!size_name[@]}"; do
        value=${size_value[index]} suffix=
        if [[ ${size_unit[index]} == bytes ]]; then
            human_bytes "$value"
            suffix=" ($human)"
        fi
        case ${size_verdict[index]} in
        fits) mark=' ' ;;
        short) mark='!' ;;
        *) mark=' ' ;;
        esac
        say "$mark ${size_name[index]}: $value ${size_unit[index]}$suffix"
        say "      ${size_formula[index]}"
        if [[ ${size_has[index]} ]]; then
            show_value "${size_has[index]}"
            say "      there is: $shown$([[ $mark == ! ]] && printf ', too little')"
        fi
    done
}

size_json() {
    local index
    json_begin
    json_key per_connection
    json_open '{'
    json_literal user_bytes "${vars[user_bytes]}"
    json_literal kernel_bytes "${vars[kernel_bytes]}"
    json_text user_source "$user_source"
    json_text kernel_source "$kernel_source"
    json_close '}'
    json_key sizes
    json_open '['
    for index in "${!size_name[@]}"; do
        json_open '{'
        json_text name "${size_name[index]}"
        json_literal value "${size_value[index]}"
        json_text unit "${size_unit[index]}"
        json_text formula "${size_formula[index]}"
        json_number_or_null available "${size_has[index]}"
        json_text verdict "${size_verdict[index]}"
        json_close '}'
    done
    json_close ']'
    json_end
}
