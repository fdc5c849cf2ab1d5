#!/usr/bin/env bats
# shellcheck disable=SC2154,SC2034,SC2016
# Interrupts, queues and steering.

setup() {
    load helpers
    make_host bare
    before=$(picture)
}

@test "a plan gives each interrupt and each send queue its CPU, in turn, and changes nothing" {
    json_of nic eth0 --reactors 4 >"$BATS_TEST_TMPDIR/json"
    assert_schema nic <"$BATS_TEST_TMPDIR/json"
    run jq -r '.changes[] | "\(.key) \(.to)"' "$BATS_TEST_TMPDIR/json"
    assert_output "/proc/irq/40/smp_affinity_list 0
/proc/irq/41/smp_affinity_list 1
/proc/irq/42/smp_affinity_list 2
/proc/irq/43/smp_affinity_list 3
/sys/class/net/eth0/queues/tx-0/xps_cpus 1
/sys/class/net/eth0/queues/tx-1/xps_cpus 2
/sys/class/net/eth0/queues/tx-2/xps_cpus 4
/sys/class/net/eth0/queues/tx-3/xps_cpus 8"
    on_host nic eth0 --reactors 4
    assert_success
    assert_line --partial "4 receive and 4 send queues, 4 interrupts, 4 reactors on CPUs 0-7"
    assert_line --partial "rx_missed_errors 12: packets lost at the device"
    assert_line "# corelane-tune nic eth0 --apply makes these changes"
    assert_equal "$(picture)" "$before"
}

@test "fewer queues than reactors: receive and flow steering spread in software" {
    run jq -r '.changes[] | select(.key | test("rps")) | "\(.key) \(.to)"' <(json_of nic eth0)
    assert_line "/sys/class/net/eth0/queues/rx-0/rps_cpus ff"
    assert_line "net.core.rps_sock_flow_entries 32768"
    assert_line "/sys/class/net/eth0/queues/rx-3/rps_flow_cnt 8192"
}

@test "flow tables: powers of two, as the kernel rounds them, and never smaller than they are" {
    local queues queue
    for queues in 1 3 5 6 7; do
        make_host bare
        rm -r "$host"/sys/class/net/eth0/queues/rx-*
        for ((queue = 0; queue < queues; queue++)); do
            put "sys/class/net/eth0/queues/rx-$queue/rps_cpus" 00
            put "sys/class/net/eth0/queues/rx-$queue/rps_flow_cnt" 0
        done
        put sys/class/net/eth0/queues/rx-0/rps_flow_cnt 65536
        run jq -r '.changes[] | select(.key | test("flow_cnt")) | .to' <(json_of nic eth0)
        case $queues in
        1) assert_output '' ;;
        3) assert_output $'16384\n16384' ;;
        *) assert_output "$(for ((queue = 1; queue < queues; queue++)); do echo 8192; done)" ;;
        esac
    done
    put proc/sys/net/core/rps_sock_flow_entries 131072
    run jq -r '.changes[].key' <(json_of nic eth0)
    refute_line net.core.rps_sock_flow_entries
}

# on_veth SCRIPT: runs it in a network namespace of its own with a pair of devices of three queues each, vtest and
# vpeer, and /sys as that namespace sees it.
on_veth() {
    unshare --net true 2>/dev/null || skip "needs the right to make a network namespace"
    export tune host state=$BATS_TEST_TMPDIR/state
    printf 'set -euo pipefail\nmount -t sysfs sysfs /sys\n%s\n%s\n' \
        'ip link add vtest numrxqueues 3 numtxqueues 3 type veth peer name vpeer numrxqueues 3 numtxqueues 3' "$1" >"$BATS_TEST_TMPDIR/script"
    run unshare --net --mount bash "$BATS_TEST_TMPDIR/script"
}

@test "a real device: steering that only costs is taken away, and comes back" {
    on_veth '
        queues=/sys/class/net/vtest/queues
        echo 1 >$queues/rx-1/rps_cpus
        before=$(grep -r . $queues/rx-*/rps_*)
        "$tune" nic vtest --apply --state "$state"
        [[ $(cat $queues/rx-1/rps_cpus) == *0 ]]
        "$tune" nic vtest --apply --state "$state" | grep "nothing to change"
        "$tune" rollback --state "$state"
        [[ $(grep -r . $queues/rx-*/rps_*) == "$before" ]]'
    assert_success
    assert_line "-/sys/class/net/vtest/queues/rx-1/rps_cpus = 1"
}

@test "real flow tables of three queues: what is written reads back the same, and comes back" {
    # The host in the folder has the real tables, and the hardware and the CPUs that veth and we have not.
    rm -r "$host/sys/class/net/eth0/queues/rx-3"
    for queue in 0 1 2; do
        ln -sf "/sys/class/net/vtest/queues/rx-$queue/rps_flow_cnt" "$host/sys/class/net/eth0/queues/rx-$queue/rps_flow_cnt"
    done
    on_veth '
        queues=/sys/class/net/vtest/queues
        echo 65536 >$queues/rx-2/rps_flow_cnt
        before=$(cat $queues/rx-*/rps_flow_cnt)
        "$tune" nic eth0 --root "$host" --apply
        [[ $(cat $queues/rx-{0,1,2}/rps_flow_cnt) == $(printf "16384\n16384\n65536") ]]
        "$tune" nic eth0 --root "$host" --apply | grep "nothing to change"
        "$tune" rollback --root "$host"
        [[ $(cat $queues/rx-*/rps_flow_cnt) == "$before" ]]'
    assert_success
}

@test "loopback: steering only costs" {
    on_host nic lo
    assert_line -- "-/sys/class/net/lo/queues/rx-0/rps_cpus = f"
    assert_line -- "+/sys/class/net/lo/queues/rx-0/rps_cpus = 0"
}

@test "apply has a flag of its own, is idempotent, and rollback takes it back" {
    json_of nic eth0 --apply >"$BATS_TEST_TMPDIR/json"
    assert_schema nic <"$BATS_TEST_TMPDIR/json"
    assert_equal "$(jq -r .result "$BATS_TEST_TMPDIR/json")" applied
    assert_equal "$(<"$host/proc/irq/41/smp_affinity_list")" 1
    on_host nic eth0 --apply
    assert_success
    assert_line "nothing to change"
    on_host rollback
    assert_success
    assert_equal "$(picture)" "$before"
}

@test "killed half way: apply waits, rollback repairs" {
    writes=$(json_of nic eth0 | jq '.changes | length')
    export KILL_SIGNAL=KILL KILL_AT KILL_WHEN
    for ((KILL_AT = 1; KILL_AT <= writes; KILL_AT += 3)); do
        for KILL_WHEN in before after; do
            BASH_ENV=$tuning/tests/kill_at.bash on_host nic eth0 --apply
            assert_equal "$status" 137
            on_host nic eth0 --apply
            assert_failure 1
            assert_output --partial "an earlier apply ended half way"
            on_host rollback
            assert_success
            assert_equal "$(picture)" "$before"
        done
    done
}

@test "irqbalance would undo it: interrupts are left alone, and that is said" {
    put proc/77/comm irqbalance
    on_host nic eth0 --reactors 4
    assert_line --partial "irqbalance runs (process 77)"
    assert_line --partial "# not done: interrupts: irqbalance would move them again; stop it, or ban these with --banirq: 40 41 42 43"
    refute_line --partial "smp_affinity_list"
    rm -r "$host"/sys/class/net/eth0/queues/tx-*
    earlier=$(picture)
    on_host nic eth0 --reactors 4 --apply
    assert_failure 4
    assert_equal "$(picture)" "$earlier"
}

@test "more than 32 CPUs: masks in groups, as the kernel writes them" {
    put proc/self/status $'Name:\tbash\nCpus_allowed_list:\t0-39'
    before=$(picture)
    run jq -r '.changes[] | select(.key | test("rx-0/rps_cpus")) | .to' <(json_of nic eth0)
    assert_output ffffffffff
    on_host nic eth0 --apply
    assert_success
    on_host rollback
    assert_success
    assert_equal "$(picture)" "$before"
}

@test "a device of a container: what is read only is refused, with the reason" {
    make_host container
    put sys/class/net/eth0/queues/rx-0/rps_cpus 03
    on_host nic eth0
    assert_success
    assert_line "# not done: /sys/class/net/eth0/queues/rx-0/rps_cpus: /sys is mounted read only here (container: docker)"
}

@test "the running system: every device can be looked at" {
    for folder in /sys/class/net/*/; do
        folder=${folder%/}
        run "$tune" nic "${folder##*/}" --format json
        assert_success
        assert_schema nic <<<"$output"
    done
}
