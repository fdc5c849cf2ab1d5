# Puts back what a snapshot holds. A key that somebody changed after us is theirs, unless forced.
# shellcheck shell=bash disable=SC2034,SC2154

# One element for each key of the snapshot: restored, unchanged, refused, failed or missing.
declare -a outcome=() outcome_current=()

command_rollback() {
    if ! open_state find; then
        rollback_report nothing "no snapshots in $state_folder: nothing to roll back"
        return
    fi
    lock_state
    read_place
    pick_snapshot || return 0
    if [[ $forget ]]; then
        write_state forgotten || die "$exit_failed" "the state of snapshot $snapshot cannot be written"
        rollback_report forgotten "forgot $snapshot: nothing was written to the host"
        return
    fi
    read_snapshot
    if is_of_another_namespace "$snapshot" && [[ ! $force || ! $snapshot_name ]]; then
        die "$exit_unsupported" "snapshot $snapshot is of another network namespace ($saved_namespace): run this there, or rollback $snapshot --force, or --forget if it is gone"
    fi
    # Half a rollback is a state that another rollback puts right, but nobody should have to.
    trap '' TERM INT HUP PIPE
    restore_keys
}

# Restores all it can and ends the program.
restore_keys() {
    local index worst=0 end=rolled-back words="rolled back $snapshot"
    for ((index = ${#saved_key[@]} - 1; index >= 0; index--)); do
        restore_key "$index"
        case ${outcome[index]} in
        refused | missing)
            if ((worst < exit_drift)); then worst=$exit_drift end=rolled-back-partly; fi
            ;;
        denied | failed)
            if [[ ${outcome[index]} == failed ]]; then worst=$exit_failed; else worst=$exit_privilege; fi
            end=incomplete
            ;;
        esac
    done
    case $end in
    incomplete) words="snapshot $snapshot is not wholly rolled back" ;;
    *-partly) words="rolled back $snapshot but for these keys; rollback $snapshot --force overrides what somebody changed" ;;
    esac
    # What is left to others is over; what failed is tried again by the next rollback.
    if [[ $end != incomplete ]]; then
        write_state "$end" || die "$exit_failed" "the state of snapshot $snapshot cannot be written"
    fi
    rollback_report "$end" "$words"
    exit "$worst"
}

# Sets `snapshot`: the named one, or the newest that is in force here. Those of other namespaces are not for this one.
pick_snapshot() {
    local index elsewhere=
    list_snapshots
    if [[ $snapshot_name ]]; then
        [[ -d $state_folder/snapshots/$snapshot_name ]] ||
            usage_error "$state_folder has no snapshot $snapshot_name (${snapshots[*]:-none})"
        snapshot=$snapshot_name
        return
    fi
    for ((index = ${#snapshots[@]} - 1; index >= 0; index--)); do
        read_state "${snapshots[index]}"
        [[ $state == applied || $state == applying ]] || continue
        snapshot=${snapshots[index]}
        is_of_another_namespace "$snapshot" || return 0
        elsewhere=${elsewhere:-$snapshot}
    done
    snapshot=$elsewhere
    if [[ $snapshot ]]; then return; fi
    rollback_report nothing "nothing to roll back"
    return 1
}

restore_key() {
    local index=$1 key=${saved_key[$1]} type=${saved_type[$1]} old=${saved_old[$1]}
    outcome[index]=unchanged outcome_current[index]=
    key_path "$key"
    if ! read_raw "$path"; then
        # Of a key that was never written nothing needs to come back.
        if [[ ${progress[$key]-} ]]; then outcome[index]=missing; fi
        return
    fi
    trim "$raw"
    outcome_current[index]=$trimmed
    if [[ ! ${progress[$key]-} || $raw == "$old" ]]; then return; fi
    if ! is_ours "$index"; then
        if [[ ! $force ]]; then
            if same_value "$type" "$raw" "$old"; then return; fi
            outcome[index]=refused
            return
        fi
    fi
    # Without it no more is lost than the trace of a rollback that is killed now.
    journal undo "$key" || true
    if restore_value "$path" "$type" "$old"; then
        outcome[index]=restored
    elif [[ $EUID -ne 0 && ! -w $path ]]; then
        outcome[index]=denied
    else
        outcome[index]=failed
    fi
}

# Whether a key still holds what apply wrote. A file that a killed apply had just emptied counts as ours, and so does
# a list of which a killed apply or rollback had written a part.
is_ours() {
    local step=${progress[${saved_key[$1]}]} type=${saved_type[$1]}
    [[ ! $raw && $step != "done" ]] || same_value "$type" "$raw" "${saved_new[$1]}" ||
        { [[ $step == begin ]] && is_part "$type" "$raw" "${saved_new[$1]}"; } ||
        { [[ $step == undo ]] && is_part "$type" "$raw" "${saved_old[$1]}"; }
}

# is_part TYPE LIST LIST
is_part() {
    local part whole
    [[ $1 == ports ]] && normalise ports "$2" || return 1
    part=$value
    normalise ports "$3" || return 1
    whole=$value
    merge ports union "$part" "$whole" && [[ $value == "$whole" ]]
}

same_value() {
    local first
    normalise "$1" "$2" || return 1
    first=$value
    normalise "$1" "$3" && [[ $first == "$value" ]]
}

rollback_report() {
    local index
    if [[ $format == json ]]; then
        rollback_json "$1"
        return
    fi
    for index in "${!saved_key[@]}"; do
        trim "${saved_old[index]}"
        show_value "$trimmed" 100
        case ${outcome[index]} in
        restored) say "${saved_key[index]}: ${outcome_current[index]} -> $shown" ;;
        refused) say "${saved_key[index]}: left at ${outcome_current[index]}: somebody changed it since apply set ${saved_new[index]} (was $shown); --force overrides" ;;
        missing) say "${saved_key[index]}: not there any more (was $shown)" ;;
        denied) say "${saved_key[index]}: needs root" ;;
        failed) say "${saved_key[index]}: the kernel refused $shown" ;;
        esac
    done
    say "$2"
}

rollback_json() {
    local index
    json_begin
    json_text result "$1"
    json_maybe snapshot "$snapshot"
    json_key keys
    json_open '['
    for index in "${!saved_key[@]}"; do
        trim "${saved_old[index]}"
        json_open '{'
        json_text key "${saved_key[index]}"
        json_text outcome "${outcome[index]}"
        json_text found "${outcome_current[index]}"
        json_text before "$trimmed"
        json_text applied "${saved_new[index]}"
        json_close '}'
    done
    json_close ']'
    json_end
}
