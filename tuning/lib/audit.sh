# The audit: every knob, what else was seen, and what should not be there.
# shellcheck shell=bash disable=SC2034,SC2154

command_audit() {
    evaluate_knobs
    find_harmful
    observe_host
    if [[ $format == json ]]; then audit_json; else audit_text; fi
}

# Sets `advice` to one word for what is to be done about a knob.
knob_advice() {
    case ${knob_status[$1]} in
    ok) advice=ok ;;
    change) if [[ ${knob_access[$1]} == root ]]; then advice='change (needs root)'; else advice=change; fi ;;
    blocked) advice='cannot change here' ;;
    limit) advice='limit of the process' ;;
    unused) advice='no target' ;;
    observe) advice='shown only' ;;
    *) advice=${knob_status[$1]} ;;
    esac
}

audit_text() {
    local index status title
    say_goal
    for status in change blocked limit ok missing unreadable unused observe; do
        title=yes
        for index in "${!knob_key[@]}"; do
            [[ ${knob_status[index]} == "$status" ]] || continue
            if [[ $title ]]; then
                title=
                knob_advice "$index"
                printf '\n%s\n' "$advice"
            fi
            audit_knob_text "$index"
        done
    done
    audit_seen_text
    audit_finds_text
}

audit_knob_text() {
    local index=$1 current wanted=
    show_value "${knob_current[index]}" 60
    current=$shown
    case ${knob_status[index]} in
    missing | unreadable)
        say "  ${knob_key[index]}: ${knob_why[index]}"
        return
        ;;
    ok | change | blocked | limit)
        show_value "${knob_wanted[index]}" 60
        wanted=", wants $shown"
        ;;
    esac
    say "  ${knob_key[index]} = $current$wanted (default ${knob_default[index]}; ${knob_scope[index]})"
    say "      ${knob_reason[index]} [${knob_source[index]}]"
    if [[ ${knob_why[index]} ]]; then say "      ${knob_why[index]}"; fi
}

audit_seen_text() {
    local index mark
    printf '\nthe host\n'
    for index in "${!seen_name[@]}"; do
        mark=' '
        if [[ ${seen_verdict[index]} == warn ]]; then mark='!'; fi
        show "${seen_value[index]}" 60
        say "$mark ${seen_name[index]} = $shown: ${seen_meaning[index]}"
    done
}

audit_finds_text() {
    local index
    [[ ${#find_key[@]} -gt 0 ]] || return 0
    printf '\nshould not be there\n'
    for index in "${!find_key[@]}"; do
        find_shown "$index"
        say "! $shown"
        say "      ${find_reason[index]}; instead: ${find_instead[index]}"
    done
}

find_shown() {
    local key text
    show "${find_key[$1]}" 80
    key=$shown
    show "${find_value[$1]}" 60
    text=$shown
    show "${find_place[$1]}" 200
    shown="${find_severity[$1]}: $key = $text ($shown)"
}

audit_json() {
    local index
    json_begin
    json_key knobs
    json_open '['
    for index in "${!knob_key[@]}"; do audit_knob_json "$index"; done
    json_close ']'
    json_key observations
    json_open '['
    for index in "${!seen_name[@]}"; do
        json_open '{'
        json_text name "${seen_name[index]}"
        json_text value "${seen_value[index]}"
        json_text verdict "${seen_verdict[index]}"
        json_text meaning "${seen_meaning[index]}"
        json_close '}'
    done
    json_close ']'
    finds_json
    json_end
}

audit_knob_json() {
    local index=$1 writable=false
    json_open '{'
    json_text key "${knob_key[index]}"
    json_text type "${knob_type[index]}"
    json_text scope "${knob_scope[index]}"
    case ${knob_status[index]} in
    missing | unreadable) json_literal current null ;;
    *) json_text current "${knob_current[index]}" ;;
    esac
    json_maybe default "${knob_default[index]}"
    if [[ ${knob_status[index]} == @(ok|change|blocked|limit) ]]; then
        json_text target "${knob_wanted[index]}"
        json_text becomes "${knob_final[index]}"
        json_text formula "${knob_target[index]}"
        json_text filled "${knob_filled[index]}"
    else
        json_literal target null
        json_literal becomes null
        json_literal formula null
        json_literal filled null
    fi
    json_text direction "${knob_direction[index]}"
    json_text status "${knob_status[index]}"
    if [[ ${knob_access[index]} == ok && ${knob_scope[index]} != process ]]; then writable=true; fi
    json_literal writable "$writable"
    json_text access "${knob_access[index]}"
    json_maybe why "${knob_why[index]}"
    json_text reason "${knob_reason[index]}"
    json_text source "${knob_source[index]}"
    json_text risk "${knob_risk[index]}"
    json_maybe since "${knob_since[index]}"
    json_maybe until "${knob_until[index]}"
    json_close '}'
}

finds_json() {
    local index effective
    json_key harmful
    json_open '['
    for index in "${!find_key[@]}"; do
        json_open '{'
        json_text key "${find_key[index]}"
        json_text value "${find_value[index]}"
        json_text place "${find_place[index]}"
        json_text severity "${find_severity[index]}"
        json_text reason "${find_reason[index]}"
        json_text instead "${find_instead[index]}"
        json_maybe source "${find_source[index]}"
        effective=false
        if [[ ${find_place[index]} == now || ${file_winner[${find_key[index]:-?}]-} == "${find_place[index]}" ]]; then
            effective=true
        fi
        json_literal effective "$effective"
        json_close '}'
    done
    json_close ']'
}
