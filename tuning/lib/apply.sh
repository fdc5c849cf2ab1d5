# Makes the changes of a plan: all of them or none.
# shellcheck shell=bash disable=SC2034,SC2154

# Set by a signal; looked at between two keys, so that none is left half written.
stopped_by=

command_apply() {
    evaluate_knobs
    plan_knobs
    if [[ ${#change_key[@]} -eq 0 ]]; then
        # A file that a killed apply left empty cannot be planned for: this must not look like a host that fits.
        name_state
        refuse_interrupted
        count_misfits
        if [[ $misfits -eq 0 ]]; then
            apply_report nothing "nothing to change: this host fits $profile"
        else
            apply_report nothing "nothing to change that can be changed here: $misfits keys do not fit $profile"
        fi
        return
    fi
    make_changes
    apply_report applied "applied for $profile"
}

# Makes every change, or dies with nothing changed.
make_changes() {
    check_privilege
    open_state make
    lock_state
    refuse_interrupted
    write_snapshot || die "$exit_failed" "the snapshot cannot be written in $state_folder: nothing was changed"
    # Whoever reads what we say may be gone before we are done.
    trap '' PIPE
    trap 'stopped_by=SIGTERM' TERM
    trap 'stopped_by=SIGINT' INT
    trap 'stopped_by=SIGHUP' HUP
    local index
    for index in "${!change_key[@]}"; do
        if ! make_change "$index"; then
            undo_changes "$index"
        fi
    done
    if ! write_state applied; then
        failure="the state of snapshot $snapshot cannot be written"
        undo_changes "$index"
    fi
    trap - TERM INT HUP
}

check_privilege() {
    local index
    for index in "${!change_key[@]}"; do
        key_path "${change_key[index]}"
        find_access "$path"
        case $access in
        ok) ;;
        root) die "$exit_privilege" "${change_key[index]} needs root: nothing was changed" ;;
        *) die "$exit_failed" "${change_key[index]}: ${why:-not there any more}: nothing was changed" ;;
        esac
    done
}

# Sets `failure` if it fails.
make_change() {
    local key=${change_key[$1]} type=${change_type[$1]} to=${change_to[$1]}
    if [[ $stopped_by ]]; then
        failure="stopped by $stopped_by"
        return 1
    fi
    key_path "$key"
    if ! read_raw "$path" || [[ $raw != "${change_raw[$1]}" ]]; then
        failure="$key was changed by somebody else meanwhile"
        return 1
    fi
    if ! journal begin "$key" || ! write_value "$path" "$to"$'\n'; then
        failure="$key: the kernel refused '$to'"
        return 1
    fi
    if ! read_raw "$path" || ! normalise "$type" "$raw" || [[ $value != "$to" ]]; then
        failure="$key: wrote '$to', read back '$value'"
        return 1
    fi
    if ! journal "done" "$key"; then
        failure="the journal cannot be written"
        return 1
    fi
}

# write_value PATH BYTES: the kernel takes a value as one write. Of a list it takes more in the next one, but each has
# to be less than a page and end with an entry, and bash parts a text wherever its buffer is full.
write_value() {
    local rest=$2 piece out
    # No redirection may make a file that was not there.
    [[ -f $1 && ($rest != *[!0-9,$'\n'-]* || ${#rest} -le 1000) ]] || return 1
    { exec {out}>"$1"; } 2>/dev/null || return 1
    while [[ ${#rest} -gt 1000 ]]; do
        piece=${rest:0:1000}
        piece=${piece%"${piece##*,}"}
        if [[ ! $piece ]] || ! printf '%s' "$piece" 1>&"$out" 2>/dev/null; then
            exec {out}>&-
            return 1
        fi
        rest=${rest#"$piece"}
    done
    printf '%s' "$rest" 1>&"$out" 2>/dev/null
    piece=$?
    exec {out}>&-
    return "$piece"
}

# undo_changes INDEX: puts back what was written up to and with INDEX, the last first, and ends the program.
undo_changes() {
    local index left=()
    trap '' TERM INT HUP
    for ((index = $1; index >= 0; index--)); do
        key_path "${change_key[index]}"
        # Somebody else's value is left to them.
        if read_raw "$path" && [[ $raw == "${change_raw[index]}" ]]; then continue; fi
        if [[ $failure == *'by somebody else'* && $index -eq $1 ]]; then continue; fi
        journal undo "${change_key[index]}" || true
        restore_value "$path" "${change_type[index]}" "${change_raw[index]}" || left+=("${change_key[index]}")
    done
    if [[ ${#left[@]} -gt 0 ]]; then
        warn "$failure"
        die "$exit_failed" "could not put back ${left[*]}: run $program rollback $snapshot"
    fi
    write_state undone || failure+=$'\n'"the state of snapshot $snapshot cannot be written"
    warn "$failure"
    if [[ $command == nic ]]; then
        nic_report failed
    else
        apply_report failed "failed: everything is as it was before"
    fi
    exit "$exit_failed"
}

# restore_value PATH TYPE BYTES: writes what was there, and reads it back.
restore_value() {
    local type=$2 bytes=$3 wanted text
    normalise "$type" "$bytes" || return 1
    wanted=$value text=$bytes
    # The kernel prints all choices and takes one.
    if [[ $type == choice ]] && is_live; then text=$value$'\n'; fi
    write_value "$1" "$text" && read_raw "$1" && normalise "$type" "$raw" && [[ $value == "$wanted" ]]
}

apply_report() {
    local index
    if [[ $format == json ]]; then
        json_begin
        json_text result "$1"
        json_maybe snapshot "$snapshot"
        changes_json
        blocked_json
        json_end
        return
    fi
    if [[ $1 == applied ]]; then
        for index in "${!change_key[@]}"; do
            show "${change_from[index]}" 100
            say "${change_key[index]}: ${shown:-(empty)} -> ${change_to[index]}"
        done
        say "$2; $program rollback $snapshot takes it back"
    else
        say "$2"
    fi
    say_blocked ''
    # That nobody reads it is no drift.
    return 0
}
