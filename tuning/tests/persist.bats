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
        code=0
        json_of persist --profile loadgen --connections 50000 --unit gateway.service --user app --user web >"$BATS_TEST_TMPDIR/json" || code=$?
        # The list from a blog is read after our file, and wins at the next boot.
        if [[ $kind == blog ]]; then assert_equal "$code" 1; else assert_equal "$code" 0; fi
        assert_schema persist <"$BATS_TEST_TMPDIR/json"
        if [[ $kind != container ]]; then
            run grep -v '^#' "$sysctl_file"
            assert_line "net.ipv4.tcp_tw_reuse = 1"
        fi
        run cat "$unit_file"
        assert_line "[Service]"
        assert_line "LimitNOFILE=63012:524288"
        run grep -v '^#' "$limits_file"
        assert_output $'app soft nofile 63012\napp hard nofile 524288\nweb soft nofile 63012\nweb hard nofile 524288'
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

# limits_of ARGUMENTS..: persists for the service and the user app; sets `unit_limit` and `user_limits`, soft and hard.
limits_of() {
    on_host persist --unit gateway.service --user app "$@"
    assert_success
    unit_limit=$(sed -n 's/^LimitNOFILE=//p' "$unit_file")
    user_limits=$(sed -n 's/^app .* nofile //p' "$limits_file" | paste -sd :)
    "$tune" unpersist --root "$host" >/dev/null
}

@test "no limit is ever lower than without us: what systemd gives by itself stays" {
    limits_of --profile laptop
    assert_equal "$unit_limit $user_limits" "13012:524288 13012:524288"
    limits_of --profile idle-c100k --connections 500000
    assert_equal "$unit_limit $user_limits" "625512:625512 625512:625512"
    # The default of services is that of sessions as well: a service starts them.
    put etc/systemd/system.conf $'[Manager]\n#DefaultLimitNOFILE=9\nDefaultLimitNOFILE=7000:8000'
    put usr/lib/systemd/system.conf.d/20-limits.conf $'[Manager]\nDefaultLimitNOFILE=2000000'
    put etc/systemd/system.conf.d/10-limits.conf $'[Manager]\nDefaultLimitNOFILE=4000'
    limits_of --profile loadgen
    assert_equal "$unit_limit $user_limits" "2000000:2000000 2000000:2000000"
    put usr/lib/systemd/system.conf.d/20-limits.conf $'[Manager]\nDefaultLimitNOFILE=65536:infinity'
    limits_of --profile laptop
    # pam_limits has no word for it but the largest number there is.
    assert_equal "$unit_limit $user_limits" "65536:infinity 65536:1073741816"
    put etc/systemd/system.conf.d/30-limits.conf $'[Manager]\nDefaultLimitNOFILE=9:8'
    limits_of --profile laptop
    assert_equal "$unit_limit" "65536:infinity"
}

@test "a higher limit of the unit stays, in whichever of its files it is; the one in force counts" {
    put usr/lib/systemd/system/gateway.service $'[Service]\nLimitNOFILE=1024:900000'
    limits_of --profile loadgen
    assert_equal "$unit_limit" "125512:900000"
    run jq -r '.observations[] | select(.name == "gateway.service LimitNOFILE") | "\(.value) \(.verdict)"' \
        <(json_of audit --profile loadgen --unit gateway.service)
    assert_output "1024:900000 ok"
    put etc/systemd/system/gateway.service.d/10-x.conf $'[Service]\nLimitNOFILE=200000\nLimitNOFILE=300000'
    limits_of --profile loadgen
    assert_equal "$unit_limit" "300000:300000"
    put run/systemd/system/service.d/20-all.conf $'[Service]\nLimitNOFILE=infinity'
    limits_of --profile loadgen
    assert_equal "$unit_limit" "infinity:infinity"
    # Hidden by its namesake in an earlier folder.
    put etc/systemd/system/service.d/20-all.conf $'[Service]\nLimitNOFILE=4096'
    limits_of --profile loadgen
    assert_equal "$unit_limit" "125512:125512"
    run jq -r '.observations[] | select(.name == "gateway.service LimitNOFILE") | "\(.value) \(.verdict) \(.meaning)"' \
        <(json_of audit --profile loadgen --unit gateway.service)
    assert_output "4096:4096 warn /etc/systemd/system/service.d/20-all.conf:2: less than 125512: see persist --unit"
}

@test "a higher limit of the user stays: lines for the user, for a group of theirs, for all" {
    put etc/passwd $'app:x:500:600::/:/bin/sh\nother:x:501:601::/:/bin/sh'
    put etc/group $'apps:x:600:\nothers:x:601:\nextra:x:602:x,app'
    put etc/security/limits.conf $'* hard nofile 1048576 # for all\n* soft nofile 200000'
    limits_of --profile loadgen
    assert_equal "$user_limits" "200000:1048576"
    put etc/security/limits.d/10-groups.conf $'@others - nofile 9000000\n@extra hard nofile 800000'
    limits_of --profile loadgen
    assert_equal "$user_limits" "200000:800000"
    put etc/security/limits.d/20-user.conf $'app hard nofile unlimited\n@apps hard nofile 5\nother hard nofile 6'
    limits_of --profile loadgen
    assert_equal "$user_limits" "200000:unlimited"
    for word in -1 infinity; do
        put etc/security/limits.d/20-user.conf "app - nofile $word"
        limits_of --profile loadgen
        assert_equal "$user_limits" "unlimited:unlimited"
    done
    put etc/security/limits.d/20-user.conf $'app hard nofile 700000\napp hard nproc 9999999\n100:700 - nofile 710000'
    limits_of --profile loadgen
    assert_equal "$user_limits" "710000:710000"
}

@test "a limit that the kernel would refuse is not written: pam_limits would refuse the login" {
    put proc/sys/fs/nr_open 100000
    before=$(picture)
    on_host persist --profile loadgen --user app
    assert_failure 4
    assert_output --partial "fs.nr_open is 100000: with 125512 descriptors pam_limits would refuse the logins of app; apply first"
    assert_equal "$(picture)" "$before"
    on_host apply --profile loadgen
    on_host persist --profile loadgen --user app
    assert_success
    run grep '^app' "$limits_file"
    assert_output $'app soft nofile 125512\napp hard nofile 524288'
    assert_equal "$(sed -n 's/^fs.nr_open = //p' "$sysctl_file")" 1048576
}

@test "a host that fits needs no file" {
    on_host persist --profile laptop
    assert_success
    assert_line "nothing to keep: this host fits laptop without us"
    [[ ! -e $sysctl_file ]]
}

@test "another profile: what was kept for the one before goes, and a file with nothing left in it" {
    on_host persist --profile latency
    run grep -v '^#' "$sysctl_file"
    assert_line "net.ipv4.tcp_notsent_lowat = 131072"
    on_host persist --profile throughput
    assert_success
    run grep -v '^#' "$sysctl_file"
    refute_line --partial tcp_notsent_lowat
    assert_line "net.core.netdev_max_backlog = 4096"
    json_of persist --profile laptop >"$BATS_TEST_TMPDIR/json"
    assert_schema persist <"$BATS_TEST_TMPDIR/json"
    assert_equal "$(jq -c .files "$BATS_TEST_TMPDIR/json")" '[{"path":"/etc/sysctl.d/90-corelane.conf","outcome":"removed"}]'
    assert_equal "$(picture)" "$before"
    # Back where it was, if what comes after it fails.
    on_host persist --profile latency
    earlier=$(picture)
    cat >"$BATS_TEST_TMPDIR/env" <<'END'
mv() { [[ ${!#} != */limits.d/* ]] && command mv "$@"; }
END
    BASH_ENV=$BATS_TEST_TMPDIR/env on_host persist --profile laptop --user app
    assert_failure 5
    assert_equal "$(picture)" "$earlier"
}

@test "users of an earlier call keep their limits" {
    on_host persist --profile loadgen --user app
    on_host persist --profile laptop --user web
    run grep -v '^#' "$limits_file"
    assert_line "app soft nofile 125512"
    assert_line "web soft nofile 13012"
    on_host persist --profile laptop --user app
    run grep -v '^#' "$limits_file"
    assert_output $'web soft nofile 13012\nweb hard nofile 524288\napp soft nofile 13012\napp hard nofile 524288'
}

@test "lines that are read after ours and say less are named, and exit 1" {
    make_host blog
    put etc/sysctl.conf $'net.core.somaxconn=70000\nnet.ipv4.tcp_syncookies=0'
    put proc/sys/net/core/somaxconn 4096
    put etc/sysctl.d/95-more.conf 'net.ipv4.ip_local_port_range = 5000 65535'
    put etc/systemd/system/gateway.service.d/99-x.conf $'[Service]\nLimitNOFILE=1024'
    put etc/systemd/system/gateway.service.d/98-y.conf $'[Service]\nLimitNOFILE=2000000'
    put etc/security/limits.d/95-x.conf $'# nobody\napp hard nofile 4096\napp soft nofile 900000\nother - nofile 5\n* - nofile 7'
    json_of persist --profile loadgen --unit gateway.service --user app >"$BATS_TEST_TMPDIR/json" || code=$?
    assert_equal "$code" 1
    assert_schema persist <"$BATS_TEST_TMPDIR/json"
    run jq -r '.overridden[] | "\(.place) \(.key) \(.value)"' "$BATS_TEST_TMPDIR/json"
    assert_output "/etc/sysctl.d/99-tuning.conf:3 net.ipv4.tcp_max_tw_buckets 5000
/etc/sysctl.d/99-tuning.conf:4 net.ipv4.tcp_syncookies 0
/etc/sysctl.conf:2 net.ipv4.tcp_syncookies 0
/etc/systemd/system/gateway.service.d/99-x.conf:2 gateway.service LimitNOFILE 1024:1024
/etc/security/limits.d/95-x.conf:2 app hard nofile 4096"
    on_host persist --profile loadgen
    assert_failure 1
    assert_line "overridden: /etc/sysctl.d/99-tuning.conf:4 is read later and says net.ipv4.tcp_syncookies = 0"
    rm "$host/etc/sysctl.d/99-tuning.conf" "$host/etc/sysctl.conf"
    on_host persist --profile loadgen
    assert_success
}

@test "a write that fails leaves nothing behind" {
    cat >"$BATS_TEST_TMPDIR/env" <<'END'
mv() { [[ ${!#} != */limits.d/* ]] && command mv "$@"; }
END
    BASH_ENV=$BATS_TEST_TMPDIR/env on_host persist --profile loadgen --unit gateway.service --user app
    assert_failure 5
    assert_output --partial "everything is as it was before"
    assert_equal "$(picture)" "$before"
    [[ ! -e $host/etc/systemd/system/gateway.service.d && ! -e $host/etc/security/limits.d ]] || fail "$(find "$host/etc")"
    # What was there of ours is as it was, too.
    on_host persist --profile loadgen --unit gateway.service --user app
    earlier=$(picture)
    BASH_ENV=$BATS_TEST_TMPDIR/env on_host persist --profile loadgen --connections 9000 --active 10 --unit gateway.service --user app
    assert_failure 5
    assert_equal "$(picture)" "$earlier"
}

@test "a signal while it writes waits for the end; after SIGKILL each file is whole or not there, and persist and unpersist go on" {
    cat >"$BATS_TEST_TMPDIR/env" <<'END'
mv() { if [[ ${!#} == */systemd/* ]]; then kill -s "$KILL_SIGNAL" $$; fi; command mv "$@"; }
END
    export KILL_SIGNAL
    for KILL_SIGNAL in TERM INT HUP; do
        BASH_ENV=$BATS_TEST_TMPDIR/env on_host persist --profile loadgen --unit gateway.service --user app
        assert_success
        [[ -e $sysctl_file && -e $unit_file && -e $limits_file ]]
        on_host unpersist
        assert_equal "$(picture)" "$before"
    done
    KILL_SIGNAL=KILL
    BASH_ENV=$BATS_TEST_TMPDIR/env on_host persist --profile loadgen --unit gateway.service --user app
    assert_equal "$status" 137
    [[ -e $sysctl_file && ! -e $unit_file && ! -e $limits_file ]]
    on_host persist --profile loadgen --unit gateway.service --user app
    assert_success
    assert_line "/etc/sysctl.d/90-corelane.conf is as it should be"
    on_host unpersist
    assert_success
    assert_equal "$(picture)" "$before"
}
