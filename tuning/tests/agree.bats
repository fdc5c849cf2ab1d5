#!/usr/bin/env bats
# shellcheck disable=SC2154,SC2034
# `corelane-bench preflight` and `corelane-tune audit` say the same of every limit that both name.

setup() {
    load helpers
    bench=${CORELANE_BENCH:-}
    [[ $bench ]] || skip "CORELANE_BENCH names no corelane-bench"
    "$bench" preflight --help >/dev/null 2>&1 || skip "$bench has no command preflight"
}

# Sets `common` to the number of limits that both name; fails at one they disagree on.
compare() {
    "$@" "$bench" preflight --connections 1000 --format json >"$BATS_TEST_TMPDIR/bench" || [[ -s $BATS_TEST_TMPDIR/bench ]]
    "$@" "$tune" audit --profile idle-c100k --format json >"$BATS_TEST_TMPDIR/tune"
    # preflight names the hard limit, and the limits of control groups as files.
    run jq -rn --slurpfile bench "$BATS_TEST_TMPDIR/bench" --slurpfile tune "$BATS_TEST_TMPDIR/tune" '
        ($tune[0].knobs | map(select(.current != null) | {(.key): .current}) | add) as $knobs
        | ($tune[0].observations | map({(.name): .value}) | add) as $seen
        | ($knobs + $seen + {RLIMIT_NOFILE: $knobs["RLIMIT_NOFILE hard"]}) as $ours
        | $bench[0][] | select(.current != null and $ours[.name])
        | (.current | tostring | gsub("[\t-]"; " ")) as $theirs
        | if $theirs == $ours[.name] then "both \(.name)" else "\(.name): \($theirs) against \($ours[.name])" end'
    assert_success
    refute_output --partial " against "
    common=${#lines[@]}
}

@test "on this host" {
    compare env
    [[ $common -ge 5 ]] || fail "only $common limits in common: $output"
    assert_line "both RLIMIT_NOFILE"
    assert_line "both fs.nr_open"
    assert_line "both net.core.somaxconn"
}

@test "in a network namespace with other values, under another limit of descriptors" {
    unshare --net true 2>/dev/null || skip "needs the right to make a network namespace"
    compare unshare --net bash -c 'ulimit -n 4000; echo 12345 >/proc/sys/net/core/somaxconn
        echo "20000 30000" >/proc/sys/net/ipv4/ip_local_port_range; "$@"' in
    run grep -c 12345 "$BATS_TEST_TMPDIR/bench" "$BATS_TEST_TMPDIR/tune"
    refute_output --partial ":0"
    run grep -c 4000 "$BATS_TEST_TMPDIR/bench" "$BATS_TEST_TMPDIR/tune"
    refute_output --partial ":0"
}
