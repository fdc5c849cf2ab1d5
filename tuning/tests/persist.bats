#!/usr/bin/env bats
# shellcheck disable=SC2154,SC2034,SC2030,SC2031
# Files of our own, and only those.

setup() {
    load helpers
    make_host debian12
    before=$(picture)
    sysctl_file=$host/etc/sysctl.d/90-corelane.conf
    unit_file=$host/etc/systemd/system/gateway.service.d/90-corelane.conf
    limits_file=$host/etc/security/limits.d/90-corelane.conf
}

@test "persist writes the plan, the unit and the users; unpersist takes all of it away" {
    for kind in "${host_kinds[@]}"; do
        make_host "$kind"
        before=$(picture)
        json_of persist --profile loadgen --connections 50000 --unit gateway.service --user app --user web >"$BATS_TEST_TMPDIR/json"
        assert_schema persist <"$BATS_TEST_TMPDIR/json"
        if [[ $kind != container ]]; then
            run grep -v '^#' "$sysctl_file"
            assert_line "net.ipv4.tcp_tw_reuse = 1"
        fi
        run cat "$unit_file"
        assert_line "[Service]"
        assert_line "LimitNOFILE=63012"
        run grep -v '^#' "$limits_file"
        assert_output $'app soft nofile 63012\napp hard nofile 63012\nweb soft nofile 63012\nweb hard nofile 63012'
        json_of unpersist | assert_schema persist
        assert_equal "$(picture)" "$before"
        [[ ! -e $host/etc/systemd/system/gateway.service.d && -d $host/etc/sysctl.d ]]
    done
}

@test "who, when and from which plan" {
    on_host persist --profile loadgen --connections 50000 --rtt 0.25
    assert_success
    run head -n 3 "$sysctl_file"
    assert_line --index 0 --regexp "^# corelane-tune [0-9.]+ wrote this file: do not edit it, 'corelane-tune unpersist' takes it away\.$"
    assert_line --index 1 --regexp '^# when [0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z, by [a-z]+$'
    assert_line --index 2 --partial "# plan --profile loadgen --connections 50000 --processes 1 --active 10000 --rate 5000 --rtt 0.250"
}

@test "after apply the same keys are kept as before it, and a second persist changes nothing" {
    on_host persist --profile loadgen
    planned=$(grep -v '^#' "$sysctl_file")
    on_host unpersist
    on_host apply --profile loadgen
    on_host persist --profile loadgen
    assert_equal "$(grep -v '^#' "$sysctl_file")" "$planned"
    # As after a reboot: the values are there, and no snapshot is.
    rm -r "${host:?}/var"
    earlier=$(stamps)
    on_host persist --profile loadgen
    assert_success
    assert_line "/etc/sysctl.d/90-corelane.conf is as it should be"
    assert_equal "$(stamps)" "$earlier"
}

@test "a file of somebody else is not touched: exit 4, nothing written" {
    for file in "$sysctl_file" "$unit_file" "$limits_file"; do
        mkdir -p "${file%/*}"
        printf '# mine\n' >"$file"
        earlier=$(stamps)
        on_host persist --profile loadgen --unit gateway.service --user app
        assert_failure 4
        assert_output --partial "is there and corelane-tune did not make it: nothing was written"
        on_host unpersist
        assert_success
        assert_line "no files of corelane-tune"
        assert_equal "$(stamps)" "$earlier"
        rm "$file"
    done
    ln -s /etc/passwd "$sysctl_file"
    on_host persist --profile loadgen
    assert_failure 4
    [[ -L $sysctl_file ]]
}

@test "our file, edited: not overwritten and not removed, unless forced" {
    on_host persist --profile loadgen --unit gateway.service
    printf 'net.ipv4.tcp_sack = 1\n' >>"$sysctl_file"
    edited=$(stamps)
    on_host persist --profile loadgen
    assert_failure 4
    assert_output --partial "was edited since"
    on_host unpersist
    assert_failure 1
    assert_output --partial "was edited since"
    assert_equal "$(stamps)" "$edited"
    on_host unpersist --force
    assert_success
    assert_equal "$(picture)" "$before"
}

@test "a higher limit that is there stays" {
    put usr/lib/systemd/system/gateway.service $'[Service]\nLimitNOFILE=1024:900000'
    put etc/security/limits.d/50-app.conf 'app hard nofile 800000'
    on_host persist --profile loadgen --unit gateway.service --user app --user web
    assert_success
    run grep LimitNOFILE "$unit_file"
    assert_output "LimitNOFILE=900000"
    run grep -v '^#' "$limits_file"
    assert_line "app hard nofile 800000"
    assert_line "web hard nofile 125512"
    run jq -r '.observations[] | select(.name == "gateway.service LimitNOFILE") | "\(.value) \(.verdict)"' \
        <(json_of audit --profile loadgen --unit gateway.service)
    assert_output "900000 ok"
}

@test "a host that fits needs no file" {
    on_host persist --profile laptop
    assert_success
    assert_line "nothing to keep: this host fits laptop without us"
    [[ ! -e $sysctl_file ]]
}

@test "a write that fails leaves nothing behind" {
    cat >"$BATS_TEST_TMPDIR/env" <<'END'
mv() { [[ ${!#} != */limits.d/* ]] && command mv "$@"; }
END
    BASH_ENV=$BATS_TEST_TMPDIR/env on_host persist --profile loadgen --unit gateway.service --user app
    assert_failure 5
    assert_output --partial "everything is as it was before"
    assert_equal "$(picture)" "$before"
}
