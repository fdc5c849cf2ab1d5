#!/usr/bin/env bats
# shellcheck disable=SC2154,SC2034,SC2016
# `corelane-bench preflight` and `corelane-tune audit` say the same of every limit that both name: what it is, whether
# it is in the way, and what to do about it.

setup() {
    load helpers
    bench=${CORELANE_BENCH:-}
    [[ $bench ]] || skip "CORELANE_BENCH names no corelane-bench"
    "$bench" preflight --help >/dev/null 2>&1 || skip "$bench has no command preflight"
    export bench tune
}

# compare N COMMAND..: both programs under a command that ends with running its arguments, for N connections whose
# server is on this host. Sets `output` to a line for each limit that both name.
compare() {
    local connections=$1
    shift
    "$@" "$bench" preflight --role server --connections "$connections" --format json >"$BATS_TEST_TMPDIR/raw" ||
        [[ -s $BATS_TEST_TMPDIR/raw ]]
    "$@" "$tune" audit --profile idle-c100k --connections "$connections" --active "$connections" --format json >"$BATS_TEST_TMPDIR/tune"
    # jq cannot hold a number of 19 digits: as a text it stays what it is.
    sed -E 's/("current": )([0-9]+)/\1"\2"/' "$BATS_TEST_TMPDIR/raw" >"$BATS_TEST_TMPDIR/bench"
    run jq -rn --slurpfile bench "$BATS_TEST_TMPDIR/bench" --slurpfile tune "$BATS_TEST_TMPDIR/tune" '
        # Where both say so, what preflight needs is within the headroom of what audit wants: 25%, 65,536 others, and
        # what is tracked for two minutes after its end.
        def within(needed): . >= needed and . <= needed * 1.25 + 190000;
        ($tune[0].knobs | map(select(.current != null) | {(.key): .}) | add) as $knobs
        | ($tune[0].observations | map({(.name): {current: .value, status: .verdict}}) | add) as $seen
        | ($knobs + $seen + {RLIMIT_NOFILE: $knobs["RLIMIT_NOFILE hard"]}) as $ours
        | $bench[0][] | select(.current != null and $ours[.name]) | . as $theirs | $ours[.name] as $own
        | ($theirs.current | gsub("[\t-]"; " ")) as $current
        | if $current != $own.current then "\(.name): \($current) against \($own.current)"
          elif (.name | IN("net.ipv4.tcp_mem", "kernel.pid_max")) then "both \(.name)"
          elif ($own.status | IN("ok", "unused")) and .verdict != "fits"
            then "\(.name): audit says \($own.status) against \(.verdict)"
          elif $own.status == "unused" and .needed > 0 then "\(.name): \(.needed) needed against nothing wanted"
          elif $own.status == "warn" and .verdict == "fits" and .name != "cgroup memory.max" and .name != "cgroup pids.max"
            then "\(.name): a warning against fits"
          elif ($own.status | IN("change", "blocked", "limit")) and ($own.becomes | tonumber | within($theirs.needed) | not)
              and ($own.becomes | IN("1048576", "262144") | not)
            then "\(.name): \(.needed) needed against \($own.becomes)"
          else "both \(.name) \(.verdict)" end'
    assert_success
    refute_output --partial " against "
}

# What preflight advises, in a file, is nothing that audit finds harmful; nor is it more than audit would set, but for
# the least that is not called lowered.
judge_advice() {
    local connections key value
    make_host debian12
    mkdir -p "$host/etc/sysctl.d"
    cp /proc/meminfo "$host/proc/meminfo"
    for connections in 100 10000 100000 1000000 100000000; do
        "$@" "$bench" preflight --connections "$connections" --format json >"$BATS_TEST_TMPDIR/bench" || [[ -s $BATS_TEST_TMPDIR/bench ]]
        jq -r '.[].advice // empty | scan("sysctl -w ([a-z0-9_.-]+=(?:\"[0-9 ]+\"|[0-9]+))")[0] | gsub("\""; "")' \
            "$BATS_TEST_TMPDIR/bench" >"$host/etc/sysctl.d/advice.conf"
        run jq -r '.harmful[] | select(.place | startswith("/etc")) | "\(.severity) \(.key) \(.value)"' \
            <(json_of audit --profile idle-c100k)
        assert_success
        assert_output ''
        cat "$host/etc/sysctl.d/advice.conf" >>"$BATS_TEST_TMPDIR/advised"
    done
}

# other_host KEY=VALUE..: writes the script of a host with other values: files that stand over those keys, in a mount
# namespace of its own. `in_other COMMAND..` runs there.
other_host() {
    local pair file key_file
    unshare --mount true 2>/dev/null || skip "needs the right to make a mount namespace"
    printf 'set -e\n' >"$BATS_TEST_TMPDIR/other"
    mkdir -p "$BATS_TEST_TMPDIR/keys"
    for pair in "$@"; do
        file=$BATS_TEST_TMPDIR/keys/${pair%%=*}
        printf '%s\n' "${pair#*=}" >"$file"
        # What this kernel does not have nothing can stand over.
        key_file=/proc/sys/${pair%%=*}
        printf 'if [ -e %s ]; then mount --bind %q %s; fi\n' "${key_file//.//}" "$file" "${key_file//.//}" >>"$BATS_TEST_TMPDIR/other"
    done
    printf '%s\n' "${other_more:-}" '"$@"' >>"$BATS_TEST_TMPDIR/other"
}

in_other() {
    unshare --mount bash "$BATS_TEST_TMPDIR/other" "$@"
}

@test "on this host" {
    for connections in 1000 100000; do
        compare "$connections" env
        [[ ${#lines[@]} -ge 5 ]] || fail "only ${#lines[@]} limits in common: $output"
        assert_line --partial "both RLIMIT_NOFILE"
        assert_line --partial "both fs.nr_open"
        assert_line --partial "both net.core.somaxconn"
    done
}

@test "in a network namespace with other values, under another limit of descriptors" {
    unshare --net true 2>/dev/null || skip "needs the right to make a network namespace"
    compare 1000 unshare --net bash -c 'ulimit -n 4000; echo 12345 >/proc/sys/net/core/somaxconn
        echo "20000 30000" >/proc/sys/net/ipv4/ip_local_port_range; "$@"' in
    run grep -c 12345 "$BATS_TEST_TMPDIR/bench" "$BATS_TEST_TMPDIR/tune"
    refute_output --partial ":0"
    run grep -c 4000 "$BATS_TEST_TMPDIR/bench" "$BATS_TEST_TMPDIR/tune"
    refute_output --partial ":0"
}

@test "nothing is advised that the audit calls harmful, on this host" {
    judge_advice env
}

@test "on hosts where everything is low, or just enough, tracked or not" {
    local high low tracking
    low=(fs.nr_open=4096 fs.file-nr=$'1000\t0\t20000' fs.file-max=20000 fs.epoll.max_user_watches=500
        net.core.somaxconn=128 net.ipv4.tcp_mem=$'10\t20\t30' net.core.netdev_max_backlog=10)
    high=(fs.nr_open=1048576 fs.file-nr=$'1000\t0\t9223372036854775807' fs.file-max=9223372036854775807
        fs.epoll.max_user_watches=9999999 net.core.somaxconn=65535 net.core.netdev_max_backlog=100000)
    for tracking in 0 50; do
        other_host "${low[@]}" net.netfilter.nf_conntrack_max=500 "net.netfilter.nf_conntrack_count=$tracking"
        compare 10000 in_other
        assert_line "both net.core.somaxconn slower"
        assert_line "both fs.file-max fits"
        assert_line "both fs.epoll.max_user_watches lacking"
        if [[ -e /proc/sys/net/netfilter/nf_conntrack_max ]]; then
            if [[ $tracking == 0 ]]; then words=fits; else words=lacking; fi
            assert_line "both net.netfilter.nf_conntrack_max $words"
        fi
        judge_advice in_other
        run cat "$BATS_TEST_TMPDIR/advised"
        assert_line fs.nr_open=1048576
        assert_line fs.file-max=262144
        if [[ -e /proc/sys/net/core/netdev_max_backlog ]]; then assert_line net.core.netdev_max_backlog=100000; fi
    done
    other_host "${high[@]}" net.netfilter.nf_conntrack_max=999999 net.netfilter.nf_conntrack_count=7
    compare 100000 in_other
    assert_line "both fs.file-max fits"
    judge_advice in_other
}

@test "in nested groups: named is the one that leaves the least" {
    local group folder kind hierarchy controllers
    while IFS=: read -r hierarchy controllers group; do
        if [[ $controllers == memory ]]; then
            folder=/sys/fs/cgroup/memory kind=(memory.limit_in_bytes memory.usage_in_bytes)
            break
        elif [[ $hierarchy == 0 ]]; then
            folder=/sys/fs/cgroup kind=(memory.max memory.current)
        fi
    done </proc/self/cgroup
    [[ ${group-} == /?* ]] || skip "this process is in no group below the first one"
    other_more="mount -t tmpfs none /sys/fs/cgroup
        mkdir -p $folder$group
        echo 64000000000 >$folder/${kind[0]}; echo 63900000000 >$folder/${kind[1]}
        echo 4000000000 >$folder$group/${kind[0]}; echo 1000000000 >$folder$group/${kind[1]}"
    other_host
    compare 1000 in_other
    assert_line "both cgroup memory.max fits"
    assert_equal "$(jq -r '.[] | select(.name == "cgroup memory.max") | .current' "$BATS_TEST_TMPDIR/bench")" 64000000000
    compare 100000 in_other
    assert_line "both cgroup memory.max lacking"
}

@test "both reckon with the same memory of a connection" {
    local source=$tuning/../benches/harness/src/preflight/limit.rs cost
    cost=$("$tune" size --profile laptop --format json | jq -r '.per_connection | "\(.kernel_bytes) \(.user_bytes)"')
    run sed -nE 's/.*const (KERNEL_BYTES_PER_END|SERVER_BYTES): u64 = ([0-9_]+);/\2/p' "$source"
    assert_equal "${lines[0]//_/} ${lines[1]//_/}" "$cost"
}
