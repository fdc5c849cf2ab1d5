#!/usr/bin/env bats
# shellcheck disable=SC2154,SC2034,SC2016,SC1091
# The tables: nothing missing, nothing twice, every formula can be reckoned, every knob is explained.

setup() {
    load helpers
    table=$tuning/knobs/knobs.tsv
}

@test "every row has every field, every key stands once" {
    run awk -F '\t' '!/^#/ && NF != 15 { print NR }' "$table"
    assert_output ''
    run awk -F '\t' '!/^#/ && NF != 7 { print NR }' "$tuning/knobs/harmful.tsv"
    assert_output ''
    run awk -F '\t' '!/^#/ && NF != 8 { print NR }' "$tuning/knobs/profiles.tsv"
    assert_output ''
    run bash -c "grep -v '^#' '$table' | cut -f 1 | sort | uniq -d"
    assert_output ''
}

@test "the columns of the table are the profiles" {
    run awk -F '\t' '/^# key/ { print $8, $9, $10, $11, $12 }' "$table"
    assert_output "${all_profiles[*]}"
    run awk -F '\t' '!/^#/ { print $1 }' "$tuning/knobs/profiles.tsv"
    assert_output "$(printf '%s\n' "${all_profiles[@]}")"
}

@test "what is only shown has no target, and what has a target is not only shown" {
    run awk -F '\t' '!/^#/ { targets = ($8 $9 $10 $11 $12 != "-----"); if (targets == ($7 == "observe")) print $1 }' "$table"
    assert_output ''
}

@test "the README explains every knob, and every harmful setting is in its list" {
    local key
    while IFS=$'\t' read -r key _; do
        grep -qF "$key" "$tuning/README.md" || fail "$key is not in README.md"
    done < <(grep -hv '^#' "$table" "$tuning/knobs/harmful.tsv")
}

@test "every rule of the harmful table can be reckoned" {
    make_host debian12
    # A line for each rule that meets it, in one file.
    awk -F '\t' '!/^#/ { rule = $2; value = rule ~ />/ ? "999999999999999" : "0"
        print $1 " = " value " " value " " value }' "$tuning/knobs/harmful.tsv" >"$host/etc/sysctl.d/all.conf"
    run jq -r '.harmful[] | select(.place | startswith("/etc")) | .key' <(json_of audit --profile laptop)
    assert_success
    found=$output
    while read -r key; do
        grep -qxF "$key" <<<"$found" || fail "$key was not found"
    done < <(grep -v '^#' "$tuning/knobs/harmful.tsv" | cut -f 1)
}

@test "the schema tells its kinds apart: a document fits one of them, and nothing else fits any" {
    make_host debian12
    json_of plan --profile laptop >"$BATS_TEST_TMPDIR/json"
    assert_schema plan <"$BATS_TEST_TMPDIR/json"
    for change in '.command = "apply"' '.command = "tune"' 'del(.fits)' '. + {more: 1}' '.changes = 1'; do
        run jq -r --arg command plan --slurpfile schema "$tuning/schema/corelane-tune.json" -f "$tuning/tests/schema.jq" \
            <(jq "$change" "$BATS_TEST_TMPDIR/json")
        assert_line '$: fits 0 of its kinds, not one'
    done
}
