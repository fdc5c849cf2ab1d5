# Settings that should not be there, wherever they stand: in the files that are read at boot, and in force now.
# shellcheck shell=bash disable=SC2034,SC2154

# One element for each find.
declare -a find_key=() find_value=() find_place=() find_severity=() find_reason=() find_instead=() find_source=()
declare -a harmful_key=() harmful_rule=() harmful_severity=() harmful_reason=() harmful_source=() harmful_instead=()
# Key to the place of the last line that sets it: the one that wins at boot.
declare -A file_winner=()

load_harmful() {
    local number_of_row=0 row fields=()
    while IFS= read -r row || [[ $row ]]; do
        number_of_row=$((number_of_row + 1))
        [[ $row && $row != '#'* ]] || continue
        IFS=$'\t' read -r -a fields <<<"$row"
        [[ ${#fields[@]} -eq $harmful_columns && ${fields[1]} =~ ^(any|[1-9][\<\>].+)$ ]] ||
            die "$exit_unsupported" "$knob_folder/harmful.tsv:$number_of_row cannot be read"
        harmful_applies "${fields[3]}" || continue
        harmful_key+=("${fields[0]}") harmful_rule+=("${fields[1]}") harmful_severity+=("${fields[2]}")
        harmful_reason+=("${fields[4]}") harmful_source+=("${fields[5]}") harmful_instead+=("${fields[6]}")
    done <"$knob_folder/harmful.tsv"
}

harmful_applies() {
    [[ $1 == - ]] || { kernel_to_number "$1" && ((kernel_number >= number)); }
}

# Fills the finds.
find_harmful() {
    load_harmful
    scan_files
    scan_live
}

# Sets `conf_files` to the files that are read at boot, in their order, and `conf_hidden` as list_conf does.
list_sysctl_files() {
    local file folders=({/etc,/run,/usr/local/lib,/usr/lib}/sysctl.d) read=()
    # On a merged /usr it is the one before.
    if [[ ! -L $root/lib ]]; then folders+=(/lib/sysctl.d); fi
    list_conf "${folders[@]}"
    for file in "${conf_files[@]}"; do
        # An empty file or a link to /dev/null masks its namesakes.
        if [[ -f $file && ! $file -ef $root/etc/sysctl.conf ]]; then read+=("$file"); fi
    done
    # Read last by `sysctl --system`, and by systemd through 99-sysctl.conf, a link to it.
    if [[ -f $root/etc/sysctl.conf ]]; then read+=("$root/etc/sysctl.conf"); fi
    conf_files=("${read[@]}")
}

# Those that are hidden are looked into all the same, and said to be hidden.
scan_files() {
    local file
    list_sysctl_files
    for file in "${!conf_hidden[@]}"; do scan_file "$file" "hidden by ${conf_hidden[$file]}"; done
    for file in "${conf_files[@]}"; do scan_file "$file" ''; done
}

# scan_file FILE HIDDEN
scan_file() {
    local file=$1 hidden=$2 index place=${1#"$root"}
    if ! read_settings "$file"; then
        add_find - - "$place" useless "cannot be read: its settings were not judged" - -
        return
    fi
    for index in "${!set_key[@]}"; do
        [[ $hidden ]] || file_winner[${set_key[index]}]=$place:${set_row[index]}
        judge_setting "${set_key[index]}" "${set_text[index]}" "$place:${set_row[index]}${hidden:+ ($hidden)}"
    done
}

# Sets `set_key`, `set_text` and `set_row` to the lines of a sysctl file that set something. Fails if it cannot be read.
read_settings() {
    local row number=0 key
    set_key=() set_text=() set_row=()
    [[ -r $1 ]] || return 1
    while IFS= read -r row || [[ $row ]]; do
        number=$((number + 1))
        trim "$row"
        row=$trimmed
        [[ $row && $row != [\#\;]* && $row == *=* ]] || continue
        trim "${row%%=*}"
        key=${trimmed#-}
        [[ $key ]] || continue
        trim "${row#*=}"
        dotted_key "$key"
        set_key+=("$key") set_text+=("$trimmed") set_row+=("$number")
    done <"$1"
}

# Sets `key` to the name with dots. Where a slash comes first it parts the name, and dots belong to an interface.
dotted_key() {
    key=$1
    if [[ $key =~ ^[^.]*/ ]]; then
        key=${key//./$'\1'}
        key=${key//\//.}
        key=${key//$'\1'/\/}
    fi
}

# judge_setting KEY TEXT PLACE
judge_setting() {
    local key=$1 text=$2 place=$3 index found=
    for index in "${!harmful_key[@]}"; do
        [[ ${harmful_key[index]} == "$key" ]] || continue
        rule_matches "${harmful_rule[index]}" "$text" || continue
        add_find "$key" "$text" "$place" "${harmful_severity[index]}" "${harmful_reason[index]}" \
            "${harmful_instead[index]}" "${harmful_source[index]}"
        found=yes
    done
    if [[ ! $found && $place != now ]]; then judge_missing "$key" "$text" "$place"; fi
}

# A line for a key that is not there sets nothing.
judge_missing() {
    local key=$1 text=$2 place=$3
    [[ $key == net.core.* || $key == net.ipv4.tcp_* || $key == net.ipv4.udp_* ]] || return 0
    is_key "$key" || return 0
    # Another namespace shows fewer keys: there nothing follows from one that is missing.
    [[ $netns == initial && -d $root/proc/sys/net/core ]] || return 0
    key_path "$key"
    if [[ ! -e $path ]]; then
        add_find "$key" "$text" "$place" gone "Linux $kernel has no such key: the line sets nothing" "delete the line" -
    fi
}

# rule_matches RULE TEXT: `any`, or a field against a formula.
rule_matches() {
    local rule=$1 fields=() field value
    [[ $rule != any ]] || return 0
    read -r -a fields <<<"$2"
    field=${fields[${rule:0:1} - 1]-}
    value=$field
    normalise_int || return 1
    formula "${rule:2}" || return 1
    case ${rule:1:1} in
    '<') less "$field" "$result" ;;
    '>') less "$result" "$field" ;;
    esac
}

add_find() {
    find_key+=("$1") find_value+=("$2") find_place+=("$3") find_severity+=("$4")
    find_reason+=("$5") find_instead+=("$6") find_source+=("$7")
}

# The same rules for what is in force, once for each key.
scan_live() {
    local key
    declare -A judged=()
    for key in "${harmful_key[@]}"; do
        [[ ! ${judged[$key]+set} ]] || continue
        judged[$key]=yes
        key_path "$key"
        # Reading this one does nothing, and says nothing of what was written.
        [[ $key != vm.drop_caches ]] || continue
        read_raw "$path" || continue
        trim "$raw"
        # These follow memory: in force on a small host they may be its kernel's own choice.
        [[ $key != @(net.ipv4.tcp_max_tw_buckets|net.ipv4.tcp_max_orphans|net.netfilter.nf_conntrack_max|fs.file-max) ]] || continue
        judge_live "$key" "${trimmed//$'\t'/ }"
    done
    judge_port_range
}

# Of a live value only «harmful» is worth a word: the defaults of a kernel are not anybody's mistake.
judge_live() {
    local count=${#find_key[@]}
    judge_setting "$1" "$2" now
    while ((${#find_key[@]} > count)) && [[ ${find_severity[-1]} != harmful ]]; do
        unset 'find_key[-1]' 'find_value[-1]' 'find_place[-1]' 'find_severity[-1]'
        unset 'find_reason[-1]' 'find_instead[-1]' 'find_source[-1]'
    done
}

# Ports in use that the range in force covers and nothing reserves.
judge_port_range() {
    local low high part first last covered='' reserved parts=()
    read_raw "$root/proc/sys/net/ipv4/ip_local_port_range" || return 0
    normalise range "$raw" || return 0
    read -r low high <<<"$value"
    reserved=
    if read_raw "$root/proc/sys/net/ipv4/ip_local_reserved_ports" && normalise ports "$raw"; then reserved=$value; fi
    IFS=, read -r -a parts <<<"${vars[listening]}"
    for part in "${parts[@]}"; do
        first=${part%-*} last=${part#*-}
        if ((last >= low && first <= high)); then
            merge ports union "$reserved" "$part"
            if [[ $value != "$reserved" ]]; then covered+="${covered:+,}$part"; fi
        fi
    done
    if [[ $covered ]]; then
        add_find net.ipv4.ip_local_port_range "$low $high" now useless \
            "services listen on $covered, inside the range: after a restart they may find their port taken" \
            "net.ipv4.ip_local_reserved_ports=$covered" Documentation/networking/ip-sysctl.rst
    fi
}
