# What apply would do, and whether the host still fits.
# shellcheck shell=bash disable=SC2034,SC2154

# The changes that will be made, by index of this list: for knobs, and for the files of a device.
declare -a change_key=() change_type=() change_from=() change_to=() change_raw=() change_why=()

add_change() {
    change_key+=("$1") change_type+=("$2") change_from+=("$3") change_to+=("$4") change_raw+=("$5") change_why+=("$6")
}

# Fills the list from the knobs.
plan_knobs() {
    local index
    for index in "${!knob_key[@]}"; do
        [[ ${knob_status[index]} == change ]] || continue
        add_change "${knob_key[index]}" "${knob_type[index]}" "${knob_current[index]}" "${knob_final[index]}" \
            "${knob_raw[index]}" "${knob_direction[index]} to ${knob_filled[index]}"
    done
}

command_plan() {
    evaluate_knobs
    plan_knobs
    if [[ $format == json ]]; then plan_json; else plan_text; fi
}

# What apply cannot change drifts as well: the host does not match. The limits of a process are not the host's; they
# count where a process was named.
command_verify() {
    evaluate_knobs
    plan_knobs
    count_misfits
    if [[ $format == json ]]; then
        plan_json
    elif [[ ${#change_key[@]} -gt 0 ]]; then
        say "drift from $profile:"
        plan_text
    elif [[ $misfits -gt 0 ]]; then
        say "drift from $profile: nothing that can be changed here, and $misfits keys that do not fit"
        say_blocked ''
    else
        say "this host fits $profile"
        say_blocked ''
    fi
    [[ $misfits -eq 0 ]] || exit "$exit_drift"
}

# Sets `misfits` to the number of knobs that are not as the profile wants them, or cannot be told.
count_misfits() {
    local index
    misfits=0
    for index in "${!knob_key[@]}"; do
        case ${knob_status[index]} in
        change | blocked | unreadable) misfits=$((misfits + 1)) ;;
        limit) if [[ $pid != self ]]; then misfits=$((misfits + 1)); fi ;;
        esac
    done
}

plan_text() {
    if [[ ${#change_key[@]} -eq 0 ]]; then
        count_misfits
        say "nothing to change for $profile$( ((misfits)) && printf ' that can be changed here; %d keys do not fit' "$misfits")"
        say_blocked '# '
        return
    fi
    say "--- now"
    say "+++ $profile"
    changes_text
    say_blocked '# '
}

# Hunks of a unified diff: the texts to the right of the second @@ are free, and say how the number came about.
changes_text() {
    local index
    for index in "${!change_key[@]}"; do
        show "${change_why[index]}"
        say "@@ -$((index + 1)) +$((index + 1)) @@ $shown"
        show "${change_from[index]}" 4000
        say "-${change_key[index]} = $shown"
        show "${change_to[index]}" 4000
        say "+${change_key[index]} = $shown"
    done
}

# What should change and will not.
say_blocked() {
    local index mark=$1
    for index in "${!knob_key[@]}"; do
        case ${knob_status[index]} in
        blocked | limit)
            show_value "${knob_current[index]}" 60
            say "${mark}not done: ${knob_key[index]} is $shown, should be ${knob_final[index]}: ${knob_why[index]}"
            ;;
        unreadable) say "${mark}not done: ${knob_key[index]}: ${knob_why[index]}" ;;
        esac
    done
}

plan_json() {
    count_misfits
    json_begin
    json_literal fits "$([[ $misfits -eq 0 ]] && printf true || printf false)"
    changes_json
    blocked_json
    json_end
}

blocked_json() {
    local index
    json_key blocked
    json_open '['
    for index in "${!knob_key[@]}"; do
        [[ ${knob_status[index]} == @(blocked|limit|unreadable) ]] || continue
        json_open '{'
        json_text key "${knob_key[index]}"
        json_maybe current "${knob_current[index]}"
        json_maybe becomes "${knob_final[index]}"
        json_text why "${knob_why[index]}"
        json_close '}'
    done
    json_close ']'
}

changes_json() {
    local index
    json_key changes
    json_open '['
    for index in "${!change_key[@]}"; do
        json_open '{'
        json_text key "${change_key[index]}"
        json_text from "${change_from[index]}"
        json_text to "${change_to[index]}"
        json_text why "${change_why[index]}"
        json_close '}'
    done
    json_close ']'
}
