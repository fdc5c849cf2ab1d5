#!/usr/bin/env bats
# shellcheck disable=SC2154,SC2034,SC2016
# The real kernel, in network namespaces of our own: only keys that belong to a namespace are in the tables here.

setup() {
    load helpers
    unshare --net true 2>/dev/null || skip "needs the right to make a network namespace"
    pick_knobs '$3 == "namespace"'
    export tune picked
    export state=$BATS_TEST_TMPDIR/state
    # What every key of the namespace holds, without those that count or that come at random.
    export keys='grep -rsH . /proc/sys/net --exclude=*key* --exclude=*secret* --exclude=nf_conntrack_count | sort || true'
}

# Runs a script in a fresh namespace. Nothing of it may leave a host-wide key changed.
in_namespace() {
    printf 'set -euo pipefail\nsnap() { %s; }\nip link set lo up\n%s\n' "$keys" "$1" >"$BATS_TEST_TMPDIR/script"
    run unshare --net --mount bash "$BATS_TEST_TMPDIR/script"
}

@test "apply, verify, drift, rollback: to exactly what was there, for every profile" {
    in_namespace '
        for profile in idle-c100k latency throughput loadgen laptop; do
            goal=(--profile "$profile" --knobs "$picked")
            snap >"$BATS_TEST_TMPDIR/before"
            "$tune" plan "${goal[@]}"
            "$tune" apply "${goal[@]}" --state "$state"
            snap >"$BATS_TEST_TMPDIR/applied"
            "$tune" verify "${goal[@]}"
            "$tune" apply "${goal[@]}" --state "$state" | grep "nothing to change"
            if ! cmp -s "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/applied"; then
                "$tune" rollback --state "$state"
            fi
            snap | diff "$BATS_TEST_TMPDIR/before" -
        done'
    assert_success
    assert_line "+net.ipv4.tcp_notsent_lowat = 131072"
    assert_line "net.ipv4.tcp_slow_start_after_idle: 1 -> 0"
}

@test "every knob of a namespace takes its target, from any profile, and gives it back" {
    in_namespace '
        "$tune" apply --profile loadgen --rate 50000 --knobs "$picked" --state "$state"
        [[ $(cat /proc/sys/net/core/somaxconn) == 65535 ]]
        [[ $(cat /proc/sys/net/ipv4/ip_local_port_range) == $(printf "10240\t65535") ]]
        [[ $(cat /proc/sys/net/ipv4/tcp_tw_reuse) == 1 ]]
        "$tune" rollback --state "$state"
        [[ $(cat /proc/sys/net/core/somaxconn) == 4096 || $(cat /proc/sys/net/core/somaxconn) == 128 ]]'
    assert_success
}

@test "ports that are listened on are reserved before the range is widened, and freed again" {
    # A listener by means of what is there: bash cannot listen, ip can not either; nc is in the list of .ci/run.
    command -v nc >/dev/null || skip "needs nc"
    in_namespace '
        nc -l 127.0.0.1 20000 & listener=$!
        trap "kill $listener" EXIT
        for try in {1..100}; do ss -Htn state listening | grep :20000 >/dev/null && break; read -rt 0.05 <> <(:) || true; done
        "$tune" apply --profile loadgen --knobs "$picked" --state "$state"
        [[ $(cat /proc/sys/net/ipv4/ip_local_reserved_ports) == 20000 ]]
        "$tune" rollback --state "$state"
        [[ -z $(cat /proc/sys/net/ipv4/ip_local_reserved_ports) ]]'
    assert_success
}

@test "a list of reserved ports of more than a page is kept whole, with ours in it, and comes back" {
    command -v nc >/dev/null || skip "needs nc"
    in_namespace '
        list=/proc/sys/net/ipv4/ip_local_reserved_ports
        seq -s, 1501 2 4301 | dd of=$list bs=1M status=none
        cat $list >"$BATS_TEST_TMPDIR/before"
        nc -l 127.0.0.1 20005 & listener=$!
        trap "kill $listener" EXIT
        for try in {1..100}; do ss -Htn state listening | grep :20005 >/dev/null && break; read -rt 0.05 <> <(:) || true; done
        "$tune" apply --profile loadgen --knobs "$picked" --state "$state"
        [[ $(cat $list) == "$(cat "$BATS_TEST_TMPDIR/before"),20005" ]]
        "$tune" apply --profile loadgen --knobs "$picked" --state "$state" | grep "nothing to change"
        "$tune" rollback --state "$state"
        cat $list | cmp - "$BATS_TEST_TMPDIR/before"'
    assert_success
    [[ $(stat -c %s "$BATS_TEST_TMPDIR/before") -gt 6000 ]]
}

@test "a value that the kernel refuses: everything goes back, exit 5" {
    # Written after knobs that do work: the kernel knows no such algorithm.
    sed -i 's/^net.ipv4.tcp_congestion_control\t.*/net.ipv4.tcp_congestion_control\tword\tnamespace\t-\t-\t-\tset\tnonesuch\tnonesuch\tnonesuch\tnonesuch\tnonesuch\treason\tsource\trisk/' "$picked/knobs.tsv"
    in_namespace '
        snap >"$BATS_TEST_TMPDIR/before"
        status=0
        "$tune" apply --profile latency --knobs "$picked" --state "$state" || status=$?
        [[ $status -eq 5 ]]
        snap | diff "$BATS_TEST_TMPDIR/before" -
        grep -c done "$state"/snapshots/*/journal'
    assert_success
    assert_line "corelane-tune: net.ipv4.tcp_congestion_control: the kernel refused 'nonesuch'"
    # It was not the first one.
    [[ ${lines[-1]} -ge 2 ]]
}

@test "SIGKILL and SIGTERM in the middle: the namespace is repaired" {
    for signal in KILL TERM; do
        for at in 1 2 3; do
            export KILL_SIGNAL=$signal KILL_AT=$at KILL_WHEN=after signal
            rm -rf "$state"
            in_namespace '
                snap >"$BATS_TEST_TMPDIR/before"
                status=0
                BASH_ENV='"$tuning"'/tests/kill_at.bash "$tune" apply --profile loadgen --knobs "$picked" --state "$state" || status=$?
                if [[ $signal == KILL ]]; then
                    [[ $status -eq 137 ]]
                    if snap | cmp -s "$BATS_TEST_TMPDIR/before" -; then echo "nothing was written"; exit 1; fi
                    "$tune" rollback --state "$state"
                else
                    [[ $status -eq 5 ]]
                fi
                snap | diff "$BATS_TEST_TMPDIR/before" -'
            assert_success
        done
    done
}

@test "rollback refuses what somebody changed, and refuses another namespace" {
    in_namespace '
        "$tune" apply --profile loadgen --knobs "$picked" --state "$state"
        echo 5000 >/proc/sys/net/core/somaxconn
        status=0
        "$tune" rollback --state "$state" || status=$?
        [[ $status -eq 1 && $(cat /proc/sys/net/core/somaxconn) == 5000 ]]
        "$tune" apply --profile loadgen --knobs "$picked" --state "$state"
        status=0
        unshare --net "$tune" rollback --state "$state" --format json || status=$?
        [[ $status -eq 4 ]]'
    assert_success
    assert_line --partial "net.core.somaxconn: left at 5000"
    assert_line --partial "is of another network namespace"
}

@test "keys of the host are told apart: those that a namespace shows read only, and those it does not show" {
    run unshare --net "$tune" audit --profile throughput --format json
    assert_success
    printf '%s' "$output" >"$BATS_TEST_TMPDIR/json"
    assert_schema audit <"$BATS_TEST_TMPDIR/json"
    run jq -r '.host.network_namespace, (.knobs[] | select(.key == "net.core.netdev_max_backlog") | .why)' "$BATS_TEST_TMPDIR/json"
    assert_line --index 0 own
    assert_line --index 1 "belongs to the host: this network namespace does not show it"
    run jq -r '.knobs[] | select(.key == "net.core.rmem_max") | .access' "$BATS_TEST_TMPDIR/json"
    [[ $output == read-only || $output == missing ]]
}

# without TOOL..: a PATH in which these are missing.
without() {
    local file name
    mkdir "$BATS_TEST_TMPDIR/bin"
    for file in /usr/bin/* /bin/* /usr/sbin/* /sbin/*; do
        name=${file##*/}
        if [[ " $* " != *" $name "* && ! -e $BATS_TEST_TMPDIR/bin/$name ]]; then ln -s "$file" "$BATS_TEST_TMPDIR/bin/$name"; fi
    done
    export bin=$BATS_TEST_TMPDIR/bin
}

@test "services on TCP and UDP are found with ss, and without it" {
    command -v nc >/dev/null || skip "needs nc"
    without ss
    in_namespace '
        nc -l 127.0.0.1 20000 & listeners=$!
        nc -u -l 127.0.0.1 20001 & listeners+=" $!"
        nc -u -l ::1 20003 & listeners+=" $!"
        trap "kill $listeners" EXIT
        for try in {1..100}; do
            [[ $(ss -Htn state listening; ss -Hun state unconnected) == *20000*2000[13]*2000[13]* ]] && break
            read -rt 0.05 <> <(:) || true
        done
        "$tune" plan --profile loadgen --knobs "$picked" | grep reserved
        PATH=$bin "$tune" plan --profile loadgen --knobs "$picked" | grep reserved'
    assert_success
    assert_equal "$(grep -c '^+net.ipv4.ip_local_reserved_ports = 20000-20001,20003$' <<<"$output")" 2
}

@test "the queue of a device is told with tc, and said to be unknown without it" {
    without tc
    in_namespace '
        mount -t sysfs sysfs /sys
        ip link add one type veth peer name two
        tc qdisc replace dev one root bfifo limit 10000
        tc qdisc replace dev two root pfifo limit 10
        "$tune" audit --profile laptop | grep device.
        PATH=$bin "$tune" audit --profile laptop | grep device.'
    assert_success
    assert_line --partial "device.one = 1 receive queues, 0 interrupts, qdisc bfifo"
    assert_line --partial "device.two = 1 receive queues, 0 interrupts, qdisc pfifo"
    assert_line --partial "device.one = 1 receive queues, 0 interrupts, qdisc unknown"
}
