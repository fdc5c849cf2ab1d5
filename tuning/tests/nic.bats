#!/usr/bin/env bats
# shellcheck disable=SC2154,SC2034
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
