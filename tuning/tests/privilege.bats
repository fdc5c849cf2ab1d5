#!/usr/bin/env bats
# shellcheck disable=SC2154,SC2034,SC2016,SC1091
# What needs no root works without it; what needs it says so and writes nothing.

setup() {
    load helpers
    [[ $EUID -eq 0 ]] || skip "needs root to become somebody else"
    make_host debian12
    # Another user must be able to read the tool and the host.
    open=$(mktemp -d)
    cp -a "$tuning" "$open/tuning"
    cp -a "$host" "$open/host"
    chmod -R a+rX "$open"
    host=$open/host
    before=$(stamps)
}

teardown() {
    [[ ! ${open-} ]] || rm -rf "$open"
}

as_nobody() {
    run setpriv --reuid=65534 --regid=65534 --clear-groups "$open/tuning/corelane-tune" "$@"
}

@test "audit, plan, verify and size need no root" {
    for command in audit plan size; do
        as_nobody "$command" --root "$host" --profile loadgen
        assert_success
    done
    as_nobody verify --root "$host" --profile loadgen
    assert_failure 1
    as_nobody audit --root "$host" --profile loadgen
    assert_line "change (needs root)"
    # The running system as well.
    as_nobody audit --profile laptop
    assert_success
    assert_equal "$(stamps)" "$before"
}

@test "apply, rollback, persist and unpersist without root: exit 3, nothing written" {
    as_nobody apply --root "$host" --profile loadgen
    assert_failure 3
    assert_output --partial "needs root: nothing was changed"
    as_nobody persist --root "$host" --profile loadgen --user app
    assert_failure 3
    assert_equal "$(stamps)" "$before"

    "$tune" apply --root "$host" --profile loadgen >/dev/null
    "$tune" persist --root "$host" --profile loadgen >/dev/null
    before=$(stamps)
    as_nobody rollback --root "$host"
    assert_failure 3
    as_nobody unpersist --root "$host"
    assert_failure 3
    assert_equal "$(stamps)" "$before"
}
