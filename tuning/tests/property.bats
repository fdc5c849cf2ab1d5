#!/usr/bin/env bats
# shellcheck disable=SC2154,SC2034
# For any subset of knobs and any starting values. The seed is printed; set SEED to repeat a run.

setup() {
    load helpers
    RANDOM=${SEED:-$((SRANDOM % 32768))}
    seed=$RANDOM
    RANDOM=$seed
    echo "SEED=$seed"
}

# Sets `drawn` to a value for a key of a type, plausible or not.
draw() {
    local sizes=(0 1 2 60 128 1000 4096 65535 131072 1048576 4294967295 9223372036854775807 18446744073709551615)
    local one=${sizes[RANDOM % ${#sizes[@]}]} two=${sizes[RANDOM % ${#sizes[@]}]} three=${sizes[RANDOM % ${#sizes[@]}]}
    case $1 in
    int) drawn=$one ;;
    vector) drawn=$one$'\t'$two$'\t'$three ;;
    range) drawn=$((1024 + RANDOM % 30000))$'\t'$((33000 + RANDOM % 30000)) ;;
    ports)
        drawn=
        if ((RANDOM % 2)); then drawn=$((RANDOM + 1)),$((40000 + RANDOM % 100))-$((41000 + RANDOM % 100)); fi
        ;;
    choice)
        local choices=('[always] madvise never' 'always [madvise] never' 'always madvise [never]')
        drawn=${choices[RANDOM % 3]}
        ;;
    esac
    # Some kernels' files end without a newline, some hands write blanks.
    if ((RANDOM % 8 == 0)); then drawn+=' '; fi
}

# A random table out of ours, and a host whose keys hold anything.
draw_host() {
    local key type rest
    make_host debian12
    picked=$BATS_TEST_TMPDIR/knobs
    mkdir -p "$picked"
    cp "$tuning"/knobs/{profiles,harmful}.tsv "$picked"
    : >"$picked/knobs.tsv"
    in_table=' '
    while IFS=$'\t' read -r key type rest; do
        [[ $key != '#'* && $key != RLIMIT* && $type != word ]] || continue
        if ((RANDOM % 3)); then
            printf '%s\t%s\t%s\n' "$key" "$type" "$rest" >>"$picked/knobs.tsv"
            in_table+="$key "
        fi
        draw "$type"
        if ((RANDOM % 10 == 0)); then continue; fi
        if [[ $key == /* ]]; then put "${key#/}" "$drawn"; else put "proc/sys/${key//.//}" "$drawn"; fi
    done <"$tuning/knobs/knobs.tsv"
}

@test "apply then rollback restores every byte; apply twice is apply once; only the plan is written" {
    for round in {1..12}; do
        draw_host
        profile=${all_profiles[RANDOM % ${#all_profiles[@]}]}
        goal=(--profile "$profile" --knobs "$picked" --connections $((RANDOM * 9 + 1)) --rate $((RANDOM + 1)) --rtt $((RANDOM % 200 + 1)))
        before=$(picture)
        earlier=$(stamps)
        planned=$(json_of plan "${goal[@]}" | jq -r '.changes[].key')

        on_host apply "${goal[@]}"
        assert_success
        once=$(picture)
        # Every file that was touched is a key of the plan, and every key of the plan was touched.
        touched=$(diff <(echo "$earlier") <(stamps) | sed -n 's|^> \./\([^ ]*\) .*|\1|p' |
            sed -e 's|^sys/|/sys/|' -e 's|^proc/sys/||' | while read -r file; do
            [[ $file == /* ]] && echo "$file" || echo "${file//\//.}"
        done)
        assert_equal "$(sort <<<"$touched")" "$(sort <<<"$planned")"
        for key in $planned; do [[ $in_table == *" $key "* ]]; done

        on_host apply "${goal[@]}"
        assert_success
        assert_line --partial "nothing to change"
        assert_equal "$(picture)" "$once"
        on_host verify "${goal[@]}"
        assert_success

        on_host rollback
        if [[ $planned ]]; then assert_success; fi
        assert_equal "$(picture)" "$before"
    done
}

@test "no value ever moves against its direction" {
    for round in {1..6}; do
        draw_host
        profile=${all_profiles[RANDOM % ${#all_profiles[@]}]}
        json_of audit --profile "$profile" --knobs "$picked" >"$BATS_TEST_TMPDIR/json"
        run jq -r '
            def fields: split(" ") | map(tonumber);
            .knobs[] | select(.status == "change")
            | (.current | split(" ")) as $from | (.becomes | split(" ")) as $to
            | select((.direction == "raise" and ([.current, .becomes] | map(fields) | transpose | any(.[1] < .[0])))
                or (.direction == "lower" and ([.current, .becomes] | map(fields) | transpose | any(.[1] > .[0])))
                or (.direction == "widen" and ((.becomes | fields)[0] > (.current | fields)[0]
                    or (.becomes | fields)[1] < (.current | fields)[1])))
            | .key' "$BATS_TEST_TMPDIR/json"
        assert_success
        assert_output ''
    done
}
