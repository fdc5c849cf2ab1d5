# Values of the kernel's files by type: checking, a form in which equal values are equal texts, and which of two
# goes further in the direction a knob is meant to move. Types: int, vector (numbers side by side), range (two
# ports), ports (a list of ports and ranges), cpulist (the same for CPUs), mask (hexadecimal), word, and choice
# (words with the chosen one in brackets).
# shellcheck shell=bash disable=SC2034,SC2154

# normalise TYPE TEXT: sets `value` to the one way of writing it. Fails if it is not of that type.
normalise() {
    local type=$1
    trim "$2"
    value=$trimmed
    case $type in
    int) normalise_int ;;
    vector | range) normalise_vector "$type" ;;
    ports | cpulist) normalise_list ;;
    mask) normalise_mask ;;
    word) [[ $value =~ ^[A-Za-z0-9_.-]+$ ]] ;;
    choice) normalise_choice ;;
    *) return 1 ;;
    esac
}

# Some keys may hold -1. The kernel says «no limit» with numbers up to that of an unsigned long, which bash cannot
# reckon with: they are compared as texts and never put another way.
normalise_int() {
    [[ $value =~ ^(-?(0|[1-9][0-9]{0,18})|[1-9][0-9]{19})$ ]]
}

# Whether an integer is less than another.
less() {
    case $1:$2 in
    -*:-*) less "${2#-}" "${1#-}" ;;
    -*:*) return 0 ;;
    *:-*) return 1 ;;
    *) [[ ${#1} -lt ${#2} ]] || [[ ${#1} -eq ${#2} && $1 < $2 ]] ;;
    esac
}

normalise_vector() {
    local field joined='' fields=() text=$value
    read -r -a fields <<<"$text"
    [[ ${#fields[@]} -ge 1 ]] || return 1
    [[ $1 != range || ${#fields[@]} -eq 2 ]] || return 1
    for field in "${fields[@]}"; do
        value=$field
        normalise_int || return 1
        joined+="${joined:+ }$value"
    done
    value=$joined
}

# Sorts the ranges and joins those that touch, as the kernel prints them.
normalise_list() {
    local part low high joined='' last_low last_high parts=() sorted=() entry
    [[ $value ]] || return 0
    IFS=, read -r -a parts <<<"$value"
    for part in "${parts[@]}"; do
        [[ $part =~ ^([0-9]{1,5})(-([0-9]{1,5}))?$ ]] || return 1
        low=$((10#${BASH_REMATCH[1]}))
        high=$((10#${BASH_REMATCH[3]:-$low}))
        ((low <= high && high <= 65535)) || return 1
        # An insertion sort: the lists are short, and every pair is one text that sorts as it is.
        printf -v entry '%05d %05d' "$low" "$high"
        insert_sorted "$entry"
    done
    for entry in "${sorted[@]}"; do
        read -r low high <<<"$entry"
        low=$((10#$low)) high=$((10#$high))
        if [[ ${last_low-} ]] && ((low <= last_high + 1)); then
            last_high=$((high > last_high ? high : last_high))
        else
            append_range
            last_low=$low last_high=$high
        fi
    done
    append_range
    value=$joined
}

insert_sorted() {
    local index=${#sorted[@]}
    while ((index > 0)) && [[ ${sorted[index - 1]} > $1 ]]; do
        sorted[index]=${sorted[index - 1]}
        index=$((index - 1))
    done
    sorted[index]=$1
}

append_range() {
    [[ ${last_low-} ]] || return 0
    joined+=${joined:+,}$last_low
    if ((last_high > last_low)); then joined+=-$last_high; fi
}

normalise_mask() {
    value=${value//,/}
    value=${value,,}
    [[ $value =~ ^[0-9a-f]+$ ]] || return 1
    value=${value#"${value%%[!0]*}"}
    value=${value:-0}
}

# «always [madvise] never» is madvise; what is written is the word alone.
normalise_choice() {
    if [[ $value =~ \[([A-Za-z0-9_-]+)\] ]]; then
        value=${BASH_REMATCH[1]}
    else
        [[ $value =~ ^[A-Za-z0-9_-]+$ ]]
    fi
}

# merge TYPE DIRECTION CURRENT TARGET, both normalised: sets `value` to what the knob should become. It is
# CURRENT where that is as good as TARGET or better.
merge() {
    local type=$1 direction=$2 current=$3 target=$4
    case $type:$direction in
    *:observe) value=$current ;;
    int:raise | vector:raise | int:lower | vector:lower) merge_fields "$direction" "$current" "$target" ;;
    vector:set) merge_fields set "$current" "$target" ;;
    range:widen) merge_range "$current" "$target" ;;
    ports:union)
        value="$current${current:+${target:+,}}$target"
        normalise_list
        ;;
    choice:set)
        # «always=madvise»: only this one choice is replaced; another was somebody's decision.
        if [[ $target == "$current="* ]]; then value=${target#*=}; else value=$current; fi
        ;;
    *:set) value=$target ;;
    *) return 1 ;;
    esac
}

# Field by field; a target of `.` leaves its field alone.
merge_fields() {
    local index want have joined='' has=() wants=()
    read -r -a has <<<"$2"
    read -r -a wants <<<"$3"
    [[ ${#has[@]} -eq ${#wants[@]} ]] || return 1
    for index in "${!has[@]}"; do
        have=${has[index]} want=${wants[index]}
        if [[ $want == . ]]; then
            want=$have
        elif [[ $1 == raise ]]; then
            if less "$want" "$have"; then want=$have; fi
        elif [[ $1 == lower ]]; then
            if less "$have" "$want"; then want=$have; fi
        fi
        joined+="${joined:+ }$want"
    done
    value=$joined
}

merge_range() {
    local low high want_low want_high
    read -r low high <<<"$1"
    read -r want_low want_high <<<"$2"
    value="$((low < want_low ? low : want_low)) $((high > want_high ? high : want_high))"
}

# Sets `number` from a text such as 24, 512M or 16G: UNIT 1024 for memory, 1000 for rates.
parse_scaled() {
    local text=$1 unit=$2 exponent=0
    [[ $text =~ ^([1-9][0-9]{0,14})([kKmMgGtT]?)$ ]] || return 1
    number=${BASH_REMATCH[1]}
    case ${BASH_REMATCH[2],,} in
    k) exponent=1 ;;
    m) exponent=2 ;;
    g) exponent=3 ;;
    t) exponent=4 ;;
    esac
    while ((exponent-- > 0)); do
        ((number < formula_limit / unit)) || return 1
        number=$((number * unit))
    done
}

# Sets `human` to a number of bytes that a person can read, one decimal cut off.
human_bytes() {
    local unit tenths=$(($1 * 10))
    if (($1 > formula_limit / 10)); then tenths=$formula_limit; fi
    for unit in B KiB MiB GiB; do
        if ((tenths < 10240)); then
            human="$((tenths / 10)).$((tenths % 10)) $unit"
            human=${human/.0 / }
            return
        fi
        tenths=$((tenths / 1024))
    done
    human="$((tenths / 10)).$((tenths % 10)) TiB"
}
