# Loads the tables. A row that does not fit is refused as a whole: half a table would tune half a host.
# shellcheck shell=bash disable=SC2034,SC2154

# One element of each array is one knob, in the order of the table, which is the order of writing.
declare -a knob_key=() knob_type=() knob_scope=() knob_since=() knob_until=() knob_default=() knob_direction=()
declare -a knob_target=() knob_reason=() knob_source=() knob_risk=()

readonly profile_names=(idle-c100k latency throughput loadgen laptop)
readonly knob_columns=15 harmful_columns=7

load_knobs() {
    [[ $knob_folder ]] || knob_folder=$here/knobs
    local file
    for file in knobs.tsv profiles.tsv harmful.tsv; do
        [[ -r $knob_folder/$file ]] || usage_error "$knob_folder/$file cannot be read"
    done
    local number=0 fields=() row
    while IFS= read -r row || [[ $row ]]; do
        number=$((number + 1))
        [[ $row && $row != '#'* ]] || continue
        IFS=$'\t' read -r -a fields <<<"$row"
        [[ ${#fields[@]} -eq $knob_columns ]] ||
            die "$exit_unsupported" "$knob_folder/knobs.tsv:$number has ${#fields[@]} fields, not $knob_columns"
        check_knob "${fields[@]}" || die "$exit_unsupported" "$knob_folder/knobs.tsv:$number: $knob_error"
        add_knob "${fields[@]}"
    done <"$knob_folder/knobs.tsv"
}

check_knob() {
    local key=$1 type=$2 scope=$3 since=$4 until=$5 direction=$7
    knob_error=
    is_key "$key" || [[ $scope == process ]] || knob_error="'$key' is no key"
    [[ $type =~ ^(int|vector|range|ports|word|choice)$ ]] || knob_error="no type is named '$type'"
    [[ $scope =~ ^(process|namespace|host|device)$ ]] || knob_error="no scope is named '$scope'"
    [[ $since == - ]] || kernel_to_number "$since" || knob_error="'$since' is no version"
    [[ $until == - ]] || kernel_to_number "$until" || knob_error="'$until' is no version"
    case $type:$direction in
    *:observe | *:set | int:raise | vector:raise | int:lower | vector:lower | range:widen | ports:union) ;;
    *) knob_error="$type cannot be moved by '$direction'" ;;
    esac
    [[ ! $knob_error ]]
}

add_knob() {
    local index column=0
    knob_key+=("$1") knob_type+=("$2") knob_scope+=("$3") knob_since+=("$4") knob_until+=("$5")
    knob_default+=("$6") knob_direction+=("$7")
    for index in "${!profile_names[@]}"; do
        if [[ ${profile_names[index]} == "$profile" ]]; then column=$((8 + index)); fi
    done
    if ((column)); then knob_target+=("${!column}"); else knob_target+=(-); fi
    knob_reason+=("${13}") knob_source+=("${14}") knob_risk+=("${15}")
}
