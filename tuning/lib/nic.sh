# Interrupts, queues and steering of one device, against the CPUs that reactors run on.
# shellcheck shell=bash disable=SC2034,SC2154

# Words of the audit, and why something is not planned.
declare -a nic_lines=() nic_refused=()

command_nic() {
    local folder=$root/sys/class/net/$device
    [[ -d $folder ]] || die "$exit_unsupported" "no device is named $device: $(nic_names)"
    nic_cpus
    nic_read "$folder"
    nic_plan "$folder"
    if [[ ! $nic_apply ]]; then
        nic_report planned
        return
    fi
    # What a killed apply left half way must not look like a device that needs nothing.
    name_state
    refuse_interrupted
    if [[ ${#nic_refused[@]} -gt 0 && ${#change_key[@]} -eq 0 ]]; then
        nic_report refused
        exit "$exit_unsupported"
    fi
    if [[ ${#change_key[@]} -eq 0 ]]; then
        nic_report nothing
        return
    fi
    make_changes
    nic_report applied
}

nic_names() {
    local folder names=''
    for folder in "$root"/sys/class/net/*/; do
        folder=${folder%/}
        show "${folder##*/}" 20
        names+=" $shown"
    done
    say "there are${names:- none}"
}

# Sets `cpus` to the CPUs that reactors may use, as many as there are reactors.
nic_cpus() {
    local part cpu parts=() all=()
    IFS=, read -r -a parts <<<"$cpu_list"
    for part in "${parts[@]}"; do
        for ((cpu = ${part%-*}; cpu <= ${part#*-}; cpu++)); do all+=("$cpu"); done
    done
    reactors=${given[reactors]:-${#all[@]}}
    if ((reactors > ${#all[@]})); then
        warn "$reactors reactors on ${#all[@]} CPUs: some share one"
    fi
    cpus=("${all[@]:0:reactors}")
}

# Sets `mask` to the hexadecimal mask of CPU numbers, as the kernel groups it.
cpu_mask() {
    local cpu words=() index=0 last=0 word
    mask=
    for cpu in "$@"; do
        index=$((cpu / 32))
        words[index]=$((${words[index]:-0} | 1 << cpu % 32))
        if ((index > last)); then last=$index; fi
    done
    for ((index = last; index >= 0; index--)); do
        printf -v word '%08x' "${words[index]:-0}"
        mask+=${mask:+,}$word
    done
    mask=${mask:-0}
}

nic_read() {
    local folder=$1 speed=unknown node=none driver=none
    receive_queues=("$folder"/queues/rx-*)
    send_queues=("$folder"/queues/tx-*)
    if read_line "$folder/speed" && is_number "$line"; then speed="$line Mbit/s"; fi
    if read_line "$folder/device/numa_node" && is_number "$line"; then node=$line; fi
    if [[ -L $folder/device/driver ]]; then
        driver=$(readlink -- "$folder/device/driver")
        driver=${driver##*/}
    fi
    find_interrupts "$folder" "$device"
    find_irqbalance
    hardware=
    if [[ -e $folder/device ]]; then hardware=yes; fi
    show "$driver" 40
    nic_lines+=("driver $shown, speed $speed, NUMA node $node")
    nic_lines+=("${#receive_queues[@]} receive and ${#send_queues[@]} send queues, ${#interrupts[@]} interrupts, $reactors reactors on CPUs $cpu_list")
    if [[ $irqbalance ]]; then nic_lines+=("irqbalance runs (process $irqbalance): it moves interrupts as it likes"); fi
    nic_read_counters "$folder"
}

# What the device itself has dropped.
nic_read_counters() {
    local name
    for name in rx_dropped rx_missed_errors rx_fifo_errors tx_dropped; do
        if read_line "$1/statistics/$name" && is_number "$line" && ((line > 0)); then
            nic_lines+=("$name $line: packets lost at the device")
        fi
    done
}

# find_interrupts FOLDER DEVICE: sets `interrupts` to the numbers of the device's interrupts: those of its hardware,
# or those that name it. Of a paravirtual device they belong to its bus device, and those that only tell of its
# configuration do not count.
find_interrupts() {
    local folder=$1 device=$2 number rest name bus='' files=() entry
    interrupts=()
    files=("$folder"/device/msi_irqs/* "$folder"/device/../msi_irqs/*)
    declare -A own=()
    for entry in "${files[@]}"; do own[${entry##*/}]=yes; done
    if [[ -L $folder/device ]]; then
        bus=$(readlink -- "$folder/device")
        bus=${bus##*/}
    fi
    [[ -r $root/proc/interrupts ]] || return 0
    while IFS=: read -r number rest; do
        trim "$number"
        number=$trimmed name=${rest##* }
        is_number "$number" || continue
        if [[ $name == *-config ]]; then continue; fi
        if [[ ${own[$number]+set} || $name == "$device" || $name == "$device"[-:.]* || ($bus && $name == "$bus"[-.]*) ]]; then
            interrupts+=("$number")
        fi
    done <"$root/proc/interrupts"
}

find_irqbalance() {
    local file
    irqbalance=
    for file in "$root"/proc/[0-9]*/comm; do
        if read_line "$file" && [[ $line == irqbalance ]]; then
            irqbalance=${file%/comm}
            irqbalance=${irqbalance##*/}
        fi
    done
}

nic_plan() {
    plan_receive_steering
    plan_interrupts
    plan_send_steering
    plan_flow_table
}

# plan_file KEY TYPE WANTED WHY
plan_file() {
    local key=$1 type=$2 wanted=$3 current
    key_path "$key"
    find_access "$path"
    if [[ $access == missing ]]; then return; fi
    if [[ $access != ok && $access != root ]] || ! read_raw "$path" || ! normalise "$type" "$raw"; then
        nic_refused+=("$key: ${why:-holds no $type}")
        return
    fi
    current=$value
    normalise "$type" "$wanted"
    if [[ $value != "$current" ]]; then add_change "$key" "$type" "$current" "$value" "$raw" "$4"; fi
}

# Receive steering spreads in software what the hardware gives to too few CPUs. On a device without hardware, as
# loopback or veth, it only adds a wake-up of another CPU: measured, half the rate.
plan_receive_steering() {
    local queue name why
    steering=
    if [[ $hardware ]] && ((${#receive_queues[@]} < reactors && ${#cpus[@]} > 2)); then steering=yes; fi
    for queue in "${receive_queues[@]}"; do
        name=/sys/class/net/$device/queues/${queue##*/}
        if [[ $steering ]]; then
            cpu_mask "${cpus[@]}"
            why="${#receive_queues[@]} receive queues for $reactors reactors: spread in software"
        elif [[ ! $hardware ]]; then
            mask=0 why="no hardware: steering adds a wake-up of another CPU to each packet"
        else
            mask=0 why="the hardware's queues spread enough, or there are too few CPUs to gain from it"
        fi
        plan_file "$name/rps_cpus" mask "$mask" "$why"
    done
}

# One interrupt for each CPU, in turn.
plan_interrupts() {
    local index=0 number
    [[ ${#interrupts[@]} -gt 0 && ${#cpus[@]} -gt 0 ]] || return 0
    if [[ $irqbalance ]]; then
        nic_refused+=("interrupts: irqbalance would move them again; stop it, or ban these with --banirq: ${interrupts[*]}")
        return
    fi
    for number in "${interrupts[@]}"; do
        plan_file "/proc/irq/$number/smp_affinity_list" cpulist "${cpus[index % ${#cpus[@]}]}" \
            "interrupt $number to one CPU: its packets are handled where their reactor runs"
        index=$((index + 1))
    done
}

# Each CPU sends on a queue of its own, if there is one for each.
plan_send_steering() {
    local queue index=0
    ((${#send_queues[@]} > 1 && ${#send_queues[@]} >= ${#cpus[@]} && ${#cpus[@]} > 0)) || return 0
    for queue in "${send_queues[@]}"; do
        ((index < ${#cpus[@]})) || break
        cpu_mask "${cpus[index]}"
        plan_file "/sys/class/net/$device/queues/${queue##*/}/xps_cpus" mask "$mask" \
            "CPU ${cpus[index]} sends on a queue of its own"
        index=$((index + 1))
    done
}

# Flow steering needs both tables, and is of use only along with receive steering.
plan_flow_table() {
    local queue name entries=32768 share=1
    [[ $steering ]] || return 0
    key_path net.core.rps_sock_flow_entries
    if [[ ! -e $path ]]; then
        nic_refused+=("net.core.rps_sock_flow_entries: belongs to the host")
        return
    fi
    plan_table net.core.rps_sock_flow_entries "$entries" "packets follow the reactor that reads their connection"
    # The kernel takes powers of two and rounds up what is none.
    while ((share * ${#receive_queues[@]} < entries)); do share=$((share * 2)); done
    for queue in "${receive_queues[@]}"; do
        name=/sys/class/net/$device/queues/${queue##*/}/rps_flow_cnt
        plan_table "$name" "$share" "a share of that table for each queue"
    done
}

# plan_table KEY ENTRIES WHY: a table is only made larger.
plan_table() {
    key_path "$1"
    if read_raw "$path" && normalise int "$raw" && ! less "$value" "$2"; then return; fi
    plan_file "$1" int "$2" "$3"
}

nic_report() {
    local words
    if [[ $format == json ]]; then
        nic_json "$1"
        return
    fi
    show "$device"
    say "$shown"
    for words in "${nic_lines[@]}"; do say "  $words"; done
    case $1 in
    nothing) say "nothing to change" ;;
    failed) say "failed: everything is as it was before" ;;
    applied) say "applied; $program rollback $snapshot takes it back" ;;
    planned) if [[ ${#change_key[@]} -eq 0 ]]; then say "nothing to change"; fi ;;
    esac
    if [[ ${#change_key[@]} -gt 0 ]]; then
        say "--- now"
        say "+++ $device, $reactors reactors"
        changes_text
        if [[ $1 == planned ]]; then say "# $program nic $device --apply makes these changes"; fi
    fi
    for words in "${nic_refused[@]}"; do say "# not done: $words"; done
}

nic_json() {
    local words
    json_begin
    json_text result "$1"
    json_text device "$device"
    json_literal reactors "$reactors"
    json_literal receive_queues "${#receive_queues[@]}"
    json_literal send_queues "${#send_queues[@]}"
    json_literal interrupts "${#interrupts[@]}"
    json_literal irqbalance "$([[ $irqbalance ]] && printf true || printf false)"
    json_maybe snapshot "$snapshot"
    changes_json
    json_key notes
    json_open '['
    for words in "${nic_lines[@]}"; do json_item "$words"; done
    json_close ']'
    json_key refused
    json_open '['
    for words in "${nic_refused[@]}"; do json_item "$words"; done
    json_close ']'
    json_end
}
