#!/usr/bin/env bats
# shellcheck disable=SC2154,SC2034,SC2016,SC2030,SC2031
# All of a plan or none of it; back to exactly what was there; and after being killed half way.

setup() {
    load helpers
    make_host debian12
    before=$(picture)
    state=$host/var/lib/corelane-tune
}

only_snapshot() {
    local found=("$state"/snapshots/*)
    assert_equal "${#found[@]}" 1
    name=${found[0]##*/}
}

@test "the snapshot has what was there, before anything is written" {
    on_host apply --profile loadgen
    assert_success
    only_snapshot
    assert_equal "$(<"$state/snapshots/$name/state")" applied
    run cat "$state/snapshots/$name/values"
    assert_line $'net.ipv4.ip_local_port_range\trange\t=32768\\t60999\\n\t=10240 65535'
    run cat "$state/snapshots/$name/meta"
    assert_line "goal loadgen"
    assert_line "boot 00000000-0000-4000-8000-000000000001"
    run stat -c %a "$state"
    assert_output 700
    # Every key of the plan was begun and done, in the order of the table.
    run bash -c "grep -c begin '$state/snapshots/$name/journal'; cut -f 1 '$state/snapshots/$name/values' | wc -l"
    assert_equal "${lines[0]}" "${lines[1]}"
    # The snapshot was read by nothing but rollback.
    on_host rollback "$name"
    assert_success
    assert_equal "$(picture)" "$before"
}

@test "what cannot be written down changes nothing" {
    mkdir -p "$state"
    printf 'in the way' >"$state/snapshots"
    on_host apply --profile loadgen
    assert_failure 5
    assert_output --partial "nothing was changed"
    assert_equal "$(picture)" "$before"
}

@test "the state that cannot be written at the end is a failure like any other" {
    cat >"$BATS_TEST_TMPDIR/env" <<'END'
mv() { if [[ ${!#} == */state ]] && grep -q applied "${@: -2:1}"; then return 1; fi; command mv "$@"; }
END
    BASH_ENV=$BATS_TEST_TMPDIR/env on_host apply --profile loadgen
    assert_failure 5
    assert_line --partial "the state of snapshot"
    assert_equal "$(picture)" "$before"
}

@test "one at a time" {
    mkdir -p "$state"
    exec {descriptor}>"$state/lock"
    flock "$descriptor"
    on_host apply --profile loadgen
    assert_failure 5
    assert_output --partial "another corelane-tune is at work"
    assert_equal "$(picture)" "$before"
    on_host rollback
    assert_failure 5
}

@test "a state folder of somebody else is not trusted" {
    [[ $EUID -eq 0 ]] || skip "needs root to give a folder away"
    mkdir -p "$state"
    chown 65534 "$state"
    on_host apply --profile loadgen
    assert_failure 3
    assert_output --partial "belongs to somebody else"
    assert_equal "$(picture)" "$before"
}

@test "a write that fails: everything goes back, exit 5" {
    # A value that reads back otherwise: the write goes nowhere.
    cat >"$BATS_TEST_TMPDIR/env" <<'END'
printf() {
    if [[ ${FUNCNAME[1]-} == write_value && ${path-} == */tcp_max_tw_buckets && $2 == 40* ]]; then return "${REFUSE:-0}"; fi
    builtin printf "$@"
}
END
    BASH_ENV=$BATS_TEST_TMPDIR/env on_host apply --profile loadgen
    assert_failure 5
    assert_line "corelane-tune: net.ipv4.tcp_max_tw_buckets: wrote '400000', read back ''"
    assert_line "failed: everything is as it was before"
    assert_equal "$(picture)" "$before"
    REFUSE=1 BASH_ENV=$BATS_TEST_TMPDIR/env on_host apply --profile loadgen
    assert_failure 5
    assert_line "corelane-tune: net.ipv4.tcp_max_tw_buckets: the kernel refused '400000'"
    assert_equal "$(picture)" "$before"
    # Nothing is left to roll back, and the next apply is not held up.
    on_host rollback
    assert_success
    assert_line "nothing to roll back"
    on_host apply --profile loadgen
    assert_success
}

@test "a value that changes between plan and write is left to whoever changed it" {
    cat >"$BATS_TEST_TMPDIR/env" <<'END'
sync() { builtin printf '7\n' >"$HOST/proc/sys/net/ipv4/tcp_tw_reuse"; }
END
    HOST=$host BASH_ENV=$BATS_TEST_TMPDIR/env on_host apply --profile loadgen
    assert_failure 5
    assert_output --partial "net.ipv4.tcp_tw_reuse was changed by somebody else meanwhile"
    get net.ipv4.tcp_tw_reuse
    assert_equal "$stored" 7
    put proc/sys/net/ipv4/tcp_tw_reuse 2
    assert_equal "$(picture)" "$before"
}

@test "SIGTERM, SIGINT or SIGHUP in the middle: everything goes back, exit 5" {
    for KILL_SIGNAL in TERM INT HUP; do
        export KILL_SIGNAL KILL_AT=3 KILL_WHEN=after
        BASH_ENV=$tuning/tests/kill_at.bash on_host apply --profile loadgen
        assert_failure 5
        assert_line "corelane-tune: stopped by SIG$KILL_SIGNAL"
        assert_equal "$(picture)" "$before"
    done
}

@test "nobody reads what it says any more: a failing apply still puts everything back" {
    cat >"$BATS_TEST_TMPDIR/env" <<'END'
printf() {
    if [[ ${FUNCNAME[1]-} == write_value && ${path-} == */tcp_max_tw_buckets && $2 == 40* ]]; then return 1; fi
    builtin printf "$@"
}
END
    # The reading end is closed before the tool starts.
    export BASH_ENV=$BATS_TEST_TMPDIR/env
    for stream in 1 2; do
        mkfifo "$BATS_TEST_TMPDIR/fifo"
        exec {both}<>"$BATS_TEST_TMPDIR/fifo"
        exec {writer}>"$BATS_TEST_TMPDIR/fifo"
        exec {both}>&-
        rm "$BATS_TEST_TMPDIR/fifo"
        status=0
        if [[ $stream == 1 ]]; then
            "$tune" apply --root "$host" --profile loadgen 1>&"$writer" || status=$?
        else
            "$tune" apply --root "$host" --profile loadgen 2>&"$writer" || status=$?
        fi
        exec {writer}>&-
        assert_equal "$status" 5
        assert_equal "$(picture)" "$before"
    done
    unset BASH_ENV
    on_host rollback
    assert_line "nothing to roll back"
    # One that does not fail is done all the same.
    "$tune" apply --root "$host" --profile loadgen 2>/dev/null | true
    assert_equal "${PIPESTATUS[0]}" 0
    on_host verify --profile loadgen
    assert_success
}

@test "SIGKILL at any write, before or after it: rollback repairs, and apply waits for that" {
    writes=$(json_of plan --profile loadgen | jq '.changes | length')
    [[ $writes -ge 5 ]]
    export KILL_SIGNAL=KILL KILL_AT KILL_WHEN
    for ((KILL_AT = 1; KILL_AT <= writes; KILL_AT++)); do
        for KILL_WHEN in before after; do
            BASH_ENV=$tuning/tests/kill_at.bash on_host apply --profile loadgen
            assert_equal "$status" 137
            on_host apply --profile loadgen
            assert_failure 1
            assert_output --partial "an earlier apply ended half way: run corelane-tune rollback"
            on_host rollback
            assert_success
            assert_equal "$(picture)" "$before"
            rm -r "$state"
        done
    done
}

@test "SIGKILL in a rollback, at any write, before or after it: the next one goes on" {
    on_host apply --profile loadgen
    writes=$(grep -c "^done" "$state"/snapshots/*/journal)
    for ((KILL_AT = 1; KILL_AT <= writes; KILL_AT++)); do
        for KILL_WHEN in before after; do
            export KILL_SIGNAL=KILL KILL_AT KILL_WHEN
            BASH_ENV=$tuning/tests/kill_at.bash on_host rollback
            assert_equal "$status" 137
            on_host rollback
            assert_success
            assert_equal "$(picture)" "$before"
            on_host apply --profile loadgen
            assert_success
        done
    done
    # A signal that can wait does.
    KILL_SIGNAL=TERM KILL_AT=2 KILL_WHEN=after BASH_ENV=$tuning/tests/kill_at.bash on_host rollback
    assert_success
    assert_equal "$(picture)" "$before"
}

@test "a list of more than a page: read whole, written in pieces that end with an entry, repaired from between two" {
    list=$(seq -s, 1501 2 5501)
    put proc/sys/net/ipv4/ip_local_reserved_ports "$list"
    before=$(picture)
    on_host apply --profile loadgen
    assert_success
    get net.ipv4.ip_local_reserved_ports
    assert_equal "$stored" "$list,11111"
    # A rollback that is killed between two pieces of it, wherever, and then run again.
    for at in 2 5 10 11; do
        KILL_SIGNAL=KILL KILL_AT=$at KILL_WHEN=after BASH_ENV=$tuning/tests/kill_at.bash on_host rollback
        assert_equal "$status" 137
        on_host rollback
        assert_success
        assert_equal "$(picture)" "$before"
        on_host apply --profile loadgen
        assert_success
    done
    on_host rollback
    assert_success
    # An apply that is: the list is the second of its keys.
    for at in 2 3 7 11; do
        KILL_SIGNAL=KILL KILL_AT=$at KILL_WHEN=after BASH_ENV=$tuning/tests/kill_at.bash on_host apply --profile loadgen
        assert_equal "$status" 137
        on_host rollback
        assert_success
        assert_equal "$(picture)" "$before"
    done
}

@test "rollback refuses, key by key, what somebody changed since; forced, it does not" {
    on_host apply --profile loadgen
    only_snapshot
    put proc/sys/net/core/somaxconn 30000
    on_host verify --profile loadgen
    assert_success
    on_host rollback
    assert_failure 1
    assert_line "net.core.somaxconn: left at 30000: somebody changed it since apply set 8192 (was 4096); --force overrides"
    assert_line "rolled back $name but for these keys; rollback $name --force overrides what somebody changed"
    get net.core.somaxconn
    assert_equal "$stored" 30000
    get net.ipv4.tcp_tw_reuse
    assert_equal "$stored" 2
    # That is over: it is not picked again, not even to force what somebody changed.
    for option in '' --force; do
        on_host rollback $option
        assert_success
        assert_line "nothing to roll back"
    done
    json_of rollback "$name" >"$BATS_TEST_TMPDIR/json" || status=$?
    assert_schema rollback <"$BATS_TEST_TMPDIR/json"
    assert_equal "$(jq -r '.result' "$BATS_TEST_TMPDIR/json")" rolled-back-partly
    on_host rollback "$name" --force
    assert_success
    assert_equal "$(picture)" "$before"
    on_host rollback
    assert_line "nothing to roll back"
}

@test "rollback of a key that is gone tells so, and goes on to what was applied before" {
    on_host apply --profile latency
    first=$(picture)
    on_host apply --profile loadgen
    rm "$host/proc/sys/net/core/netdev_max_backlog"
    on_host rollback
    assert_failure 1
    assert_line "net.core.netdev_max_backlog: not there any more (was 1000)"
    [[ ! -e $host/proc/sys/net/core/netdev_max_backlog ]]
    assert_equal "$(picture)" "$(grep -v netdev_max_backlog <<<"$first")"
    on_host rollback
    assert_success
    assert_equal "$(picture)" "$(grep -v netdev_max_backlog <<<"$before")"
}

@test "killed half way, and then a written key goes away or is changed by somebody: one rollback, and apply works again" {
    picked=$BATS_TEST_TMPDIR/knobs
    mkdir "$picked"
    cp "$tuning"/knobs/{profiles,harmful}.tsv "$picked"
    grep -E '^net.(core.somaxconn|ipv4.(ip_local_port_range|tcp_tw_reuse|tcp_max_tw_buckets))' "$tuning/knobs/knobs.tsv" >"$picked/knobs.tsv"
    for change in gone changed; do
        make_host debian12
        KILL_SIGNAL=KILL KILL_AT=3 KILL_WHEN=after BASH_ENV=$tuning/tests/kill_at.bash on_host apply --profile loadgen --knobs "$picked"
        assert_equal "$status" 137
        get net.ipv4.tcp_tw_reuse
        assert_equal "$stored" 1
        if [[ $change == gone ]]; then rm "$host/proc/sys/net/ipv4/tcp_tw_reuse"; else put proc/sys/net/ipv4/tcp_tw_reuse 0; fi
        on_host rollback
        assert_failure 1
        get net.core.somaxconn
        assert_equal "$stored" 4096
        if [[ $change == changed ]]; then
            get net.ipv4.tcp_tw_reuse
            assert_equal "$stored" 0
        fi
        on_host apply --profile loadgen --knobs "$picked"
        assert_success
        on_host rollback
        assert_success
    done
}

@test "two applies are taken back one after the other, or by name" {
    on_host apply --profile loadgen
    first=$(picture)
    on_host apply --profile throughput
    on_host rollback
    assert_success
    assert_equal "$(picture)" "$first"
    on_host rollback
    assert_success
    assert_equal "$(picture)" "$before"
    on_host rollback 20000101T000000Z-000000
    assert_failure 2
    assert_output --partial "has no snapshot 20000101T000000Z-000000"
}

@test "drift is listed, and exit 1" {
    on_host apply --profile latency
    put proc/sys/net/ipv4/tcp_slow_start_after_idle 1
    on_host verify --profile latency
    assert_failure 1
    assert_line -- "-net.ipv4.tcp_slow_start_after_idle = 1"
    assert_line -- "+net.ipv4.tcp_slow_start_after_idle = 0"
    run "$tune" verify --root "$host" --profile latency --format json
    assert_failure 1
    assert_schema plan <<<"$output"
}

@test "a damaged snapshot is refused before anything is written" {
    on_host apply --profile loadgen
    applied=$(picture)
    only_snapshot
    printf '../../etc/passwd\tint\t=1\\n\t=2\n' >>"$state/snapshots/$name/values"
    on_host rollback
    assert_failure 5
    assert_output --partial "is damaged: nothing was changed"
    assert_equal "$(picture)" "$applied"
}

# live_in NUMBER: the network namespace that the host in the folder is looked at from.
live_in() {
    mkdir -p "$host/proc/self/ns"
    ln -sfn "net:[$1]" "$host/proc/self/ns/net"
}

@test "a snapshot of another network namespace is refused, unless named and forced" {
    live_in 4026531840
    on_host apply --profile loadgen
    only_snapshot
    applied=$(picture)
    live_in 4026532999
    for option in '' --force; do
        on_host rollback $option
        assert_failure 4
        assert_output --partial "is of another network namespace (net:[4026531840])"
        assert_equal "$(picture)" "$applied"
    done
    on_host rollback "$name" --force
    assert_success
    assert_equal "$(picture)" "$before"
}

@test "what was interrupted in another namespace, or before a reboot, holds nobody up and is picked by nobody" {
    live_in 4026532111
    KILL_SIGNAL=KILL KILL_AT=3 KILL_WHEN=after BASH_ENV=$tuning/tests/kill_at.bash on_host apply --profile loadgen
    assert_equal "$status" 137
    only_snapshot
    live_in 4026532222
    inside=$(picture)
    on_host apply --profile latency
    assert_success
    on_host rollback
    assert_success
    assert_equal "$(picture)" "$inside"
    on_host rollback
    assert_failure 4
    # There, it still waits to be put right; after a reboot its values are gone with the kernel.
    live_in 4026532111
    on_host apply --profile latency
    assert_failure 1
    put proc/sys/kernel/random/boot_id 00000000-0000-4000-8000-000000000002
    on_host apply --profile latency
    assert_success
}

@test "a snapshot can be given up: nothing is written to the host, and no apply is held up" {
    KILL_SIGNAL=KILL KILL_AT=3 KILL_WHEN=after BASH_ENV=$tuning/tests/kill_at.bash on_host apply --profile loadgen
    only_snapshot
    half=$(picture)
    on_host rollback --forget
    assert_failure 2
    on_host rollback "$name" --forget --force
    assert_failure 2
    json_of rollback "$name" --forget >"$BATS_TEST_TMPDIR/json"
    assert_schema rollback <"$BATS_TEST_TMPDIR/json"
    assert_equal "$(jq -r .result "$BATS_TEST_TMPDIR/json")" forgotten
    assert_equal "$(picture)" "$half"
    on_host rollback
    assert_line "nothing to roll back"
    on_host apply --profile loadgen
    assert_success
}
