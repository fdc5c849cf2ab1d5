# Judges every knob of the profile on this host. No process is started per knob: an audit of fifty files must not
# take a second.
# shellcheck shell=bash disable=SC2034,SC2154

# By the index of the knob: the bytes read, the value in its one form, what the profile asks for, the formula with
# numbers in it, what it should become, and the judgement:
#   ok         as good as asked or better          change      apply would write it
#   blocked    should change and cannot here       limit       a limit of a process, which persist can set
#   unused     this profile asks nothing           observe     only shown, never changed
#   missing    no such key here                    unreadable  there, but its value cannot be used
declare -a knob_raw=() knob_current=() knob_wanted=() knob_filled=() knob_final=() knob_status=() knob_access=() knob_why=()
declare -A file_mode=()

evaluate_knobs() {
    local index
    read_modes
    read_limits
    for index in "${!knob_key[@]}"; do
        knob_raw[index]='' knob_current[index]='' knob_wanted[index]='' knob_filled[index]='' knob_final[index]=''
        read_knob "$index" || continue
        if [[ ${knob_direction[index]} == observe ]]; then
            knob_status[index]=observe
        elif [[ ${knob_target[index]} == - ]]; then
            knob_status[index]=unused
        elif [[ ${knob_key[index]} == net.netfilter.nf_conntrack_max ]] && ! is_tracking; then
            knob_status[index]=unused knob_why[index]="nothing is tracked here: no rule asks for it"
        else
            judge_knob "$index"
        fi
    done
}

# The permissions of all files at once.
read_modes() {
    local index mode name paths=()
    for index in "${!knob_key[@]}"; do
        if [[ ${knob_scope[index]} != process ]]; then
            key_path "${knob_key[index]}"
            paths+=("$path")
        fi
    done
    file_mode=()
    while read -r mode name; do
        file_mode[$name]=$mode
    done < <(stat -c '%a %n' -- "${paths[@]}" 2>/dev/null)
}

# Sets `limit_soft` and `limit_hard`, the descriptors of the process in question; empty if not known.
read_limits() {
    limit_soft='' limit_hard=''
    if read_raw "$root/proc/$pid/limits" &&
        [[ $raw =~ Max\ open\ files[[:space:]]+([0-9]+|unlimited)[[:space:]]+([0-9]+|unlimited) ]]; then
        limit_soft=${BASH_REMATCH[1]/unlimited/999999999999999999}
        limit_hard=${BASH_REMATCH[2]/unlimited/999999999999999999}
    elif [[ $pid != self ]]; then
        die "$exit_unsupported" "the limits of process $pid cannot be read: is it running, is it yours?"
    fi
}

# Fills in what the knob is now. Fails if there is nothing to judge.
read_knob() {
    local index=$1 key=${knob_key[$1]}
    knob_access[index]=ok knob_why[index]=
    if [[ ${knob_scope[index]} == process ]]; then
        case $key in
        'RLIMIT_NOFILE soft') knob_raw[index]=$limit_soft ;;
        'RLIMIT_NOFILE hard') knob_raw[index]=$limit_hard ;;
        esac
        if [[ ! ${knob_raw[index]} ]]; then
            knob_status[index]=unreadable knob_why[index]="/proc/$pid/limits cannot be read"
            return 1
        fi
    else
        key_path "$key"
        find_access "$path" "${file_mode[$path]-}"
        knob_access[index]=$access knob_why[index]=$why
        if [[ $access == missing ]]; then
            explain_missing "$key" "${knob_scope[index]}" "${knob_since[index]}" "${knob_until[index]}"
            knob_status[index]=missing knob_why[index]=$why
            return 1
        fi
        if [[ $access == unreadable ]] || ! read_raw "$path"; then
            knob_status[index]=unreadable knob_access[index]=unreadable knob_why[index]=${why:-cannot be read}
            return 1
        fi
        knob_raw[index]=$raw
    fi
    if ! normalise "${knob_type[index]}" "${knob_raw[index]}"; then
        knob_status[index]=unreadable knob_why[index]="holds no ${knob_type[index]}"
        return 1
    fi
    knob_current[index]=$value
}

judge_knob() {
    local index=$1
    fill_target "$index"
    if ! merge "${knob_type[index]}" "${knob_direction[index]}" "${knob_current[index]}" "${knob_wanted[index]}"; then
        knob_status[index]=unreadable
        knob_why[index]="holds '${knob_current[index]}', which cannot be compared with '${knob_wanted[index]}'"
        return
    fi
    knob_final[index]=$value
    if [[ $value == "${knob_current[index]}" ]]; then
        knob_status[index]=ok
    elif [[ ${knob_scope[index]} == process ]]; then
        knob_status[index]=limit knob_why[index]="persist --unit or --user sets it, or whoever starts the process"
    elif [[ ${knob_access[index]} == ok || ${knob_access[index]} == root ]]; then
        knob_status[index]=change
    else
        knob_status[index]=blocked
    fi
}

# Reckons the target, field by field.
fill_target() {
    local index=$1 field wanted='' shown='' fields=() type=${knob_type[$1]}
    case $type in
    word | choice)
        knob_wanted[index]=${knob_target[index]} knob_filled[index]=${knob_target[index]}
        return
        ;;
    ports)
        # The one list that a table can ask for is that of the ports in use, within ranges.
        { [[ ${knob_target[index]} == listening:* ]] && normalise ports "${knob_target[index]#*:}"; } ||
            formula_broken "$index" "a list is listening:LOW-HIGH"
        listening_within "$value"
        knob_wanted[index]=$value knob_filled[index]="the ports in use there: ${value:-none}"
        return
        ;;
    esac
    read -r -a fields <<<"${knob_target[index]}"
    for field in "${fields[@]}"; do
        if [[ $field == . ]]; then
            result=. filled=.
        else
            formula "$field" || formula_broken "$index" "$formula_error"
        fi
        wanted+="${wanted:+ }$result" shown+="${shown:+ }$filled"
    done
    knob_wanted[index]=$wanted knob_filled[index]=$shown
}

formula_broken() {
    die "$exit_unsupported" "$knob_folder: ${knob_key[$1]}: '${knob_target[$1]}': $2"
}

# Sets `value` to the ports in use that are in a list.
listening_within() {
    local range port found='' ranges=() used=()
    IFS=, read -r -a ranges <<<"$1"
    IFS=, read -r -a used <<<"${vars[listening]}"
    for port in "${used[@]}"; do
        for range in "${ranges[@]}"; do
            # Ports side by side are one range in the list; one that only touches is reserved with its neighbours.
            if ((${port#*-} >= ${range%-*} && ${port%-*} <= ${range#*-})); then
                found+=${found:+,}$port
                break
            fi
        done
    done
    normalise ports "$found"
}
