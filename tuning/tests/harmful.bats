#!/usr/bin/env bats
# shellcheck disable=SC2154,SC2034,SC2016
# Settings that should not be there, wherever they stand and whatever the files hold.

setup() {
    load helpers
}

# Sets `output` to the finds as «severity key place», one a line.
finds() {
    run jq -r '.harmful[] | "\(.severity) \(.key) \(.place)"' <(json_of audit --profile laptop)
    assert_success
}

@test "a list from a blog: each bad line is found, with its reason and what to do instead" {
    make_host blog
    finds
    file=/etc/sysctl.d/99-tuning.conf
    assert_line "gone net.ipv4.tcp_tw_recycle $file:2"
    assert_line "harmful net.ipv4.tcp_tw_recycle $file:2"
    assert_line "harmful net.ipv4.tcp_max_tw_buckets $file:3"
    assert_line "harmful net.ipv4.tcp_syncookies $file:4"
    assert_line "harmful net.ipv4.tcp_rmem $file:5"
    assert_line "harmful net.ipv4.tcp_wmem $file:6"
    assert_line "harmful net.ipv4.ip_local_port_range $file:7"
    assert_line "useless net.ipv4.tcp_fin_timeout $file:8"
    assert_line "harmful net.core.netdev_max_backlog $file:10"
    refute_line --partial "net.core.somaxconn"
    # In force as well.
    assert_line "harmful net.ipv4.tcp_syncookies now"
    assert_line "harmful net.ipv4.tcp_wmem now"
    on_host audit --profile laptop
    assert_line --partial "the initial receive buffer is lowered"
    assert_line --partial "instead: leave the field in the middle at 131072"
    # Apply mends what a direction allows, and does not lower what is too high.
    on_host apply --profile laptop
    get net.ipv4.tcp_syncookies
    assert_equal "$stored" 1
    get net.ipv4.tcp_wmem
    assert_equal "$stored" $'4096\t16777216\t16777216'
}

@test "what is only useless is not called harmful; what hurts is told as it is" {
    make_host debian12
    put etc/sysctl.d/a.conf $'net.ipv4.tcp_fin_timeout = 5\nnet.ipv4.tcp_syn_retries = 1\nnet.core.rmem_default = 18446744073709551615'
    finds
    assert_line "useless net.ipv4.tcp_fin_timeout /etc/sysctl.d/a.conf:1"
    refute_line --partial "harmful net.ipv4.tcp_fin_timeout"
    assert_line "harmful net.core.rmem_default /etc/sysctl.d/a.conf:3"
    run jq -r '.harmful[] | select(.key == "net.ipv4.tcp_syn_retries") | .reason' <(json_of audit --profile laptop)
    assert_output "outgoing connections fail once two packets in a row are lost, one second apart"
}

@test "what apply and persist write is nothing that the audit calls harmful" {
    for profile in "${all_profiles[@]}"; do
        make_host bare
        # Everything as low as somebody may have put it.
        while IFS=$'\t' read -r key type _; do
            case $type in
            int) [[ $key == RLIMIT* ]] || put "proc/sys/${key//.//}" 1 ;;
            vector) put "proc/sys/${key//.//}" $'4096\t65536\t65536' ;;
            esac
        done < <(grep -v '^#' "$tuning/knobs/knobs.tsv")
        put proc/sys/net/ipv4/tcp_mem $'1\t2\t3'
        "$tune" apply --root "$host" --profile "$profile" --connections 2000 --active 20 --rate 10 >/dev/null
        "$tune" persist --root "$host" --profile "$profile" --connections 2000 --active 20 --rate 10 >/dev/null
        # What a profile wants nothing of stays as it was; what it writes is judged where it stands and in force.
        ours=$(cut -f 1 "$host"/var/lib/corelane-tune/snapshots/*/values)
        run jq -r --arg ours "$ours" '
            .harmful[] | select((.place | startswith("/etc")) or (.key | IN($ours | split("\n")[])))
            | "\(.severity) \(.key) = \(.value) (\(.place))"' <(json_of audit --profile "$profile" --connections 2000 --active 20 --rate 10)
        assert_output ''
    done
}

@test "a plain host has nothing to be found" {
    make_host debian12
    finds
    refute_output --partial harmful
    refute_output --partial gone
}

@test "every place is read, in the order of sysctl.d; what is hidden or overridden is said to be" {
    make_host debian12
    put etc/sysctl.d/50-a.conf 'net.ipv4.tcp_sack=0'
    put usr/lib/sysctl.d/50-a.conf 'net.ipv4.tcp_timestamps=0'
    put run/sysctl.d/60-b.conf 'net.ipv4.tcp_sack=0'
    put usr/local/lib/sysctl.d/10-c.conf 'net.ipv4.tcp_window_scaling = 0'
    put lib/sysctl.d/20-d.conf 'net.ipv4.tcp_moderate_rcvbuf = 0'
    put etc/sysctl.conf 'net.ipv4.tcp_sack=0'
    finds
    assert_line "harmful net.ipv4.tcp_sack /etc/sysctl.d/50-a.conf:1"
    assert_line "harmful net.ipv4.tcp_timestamps /usr/lib/sysctl.d/50-a.conf:1 (hidden by /etc/sysctl.d/50-a.conf)"
    assert_line "harmful net.ipv4.tcp_sack /run/sysctl.d/60-b.conf:1"
    assert_line "harmful net.ipv4.tcp_window_scaling /usr/local/lib/sysctl.d/10-c.conf:1"
    assert_line "harmful net.ipv4.tcp_moderate_rcvbuf /lib/sysctl.d/20-d.conf:1"
    assert_line "harmful net.ipv4.tcp_sack /etc/sysctl.conf:1"
    run jq -r '.harmful[] | select(.effective) | .place' <(json_of audit --profile laptop)
    assert_line "/etc/sysctl.conf:1"
    refute_line "/etc/sysctl.d/50-a.conf:1"
    # A merged /usr has one folder under two names.
    rm -r "${host:?}/lib"
    ln -s usr/lib "$host/lib"
    finds
    assert_equal "$(grep -c tcp_timestamps <<<"$output")" 1
    # systemd reads sysctl.conf by a link.
    ln -s ../sysctl.conf "$host/etc/sysctl.d/99-sysctl.conf"
    finds
    assert_equal "$(grep -c 'tcp_sack /etc' <<<"$output")" 2
}

@test "old and new kernels: a key is gone only from where it went, and a missing one sets nothing" {
    make_host old
    put etc/sysctl.d/a.conf $'net.ipv4.tcp_tw_recycle=1\nnet.ipv4.tcp_low_latency=1\nnet.ipv4.tcp_adv_win_scale=2\nnet.core.nonesuch=1'
    finds
    assert_line "gone net.ipv4.tcp_tw_recycle /etc/sysctl.d/a.conf:1"
    assert_line "useless net.ipv4.tcp_low_latency /etc/sysctl.d/a.conf:2"
    refute_line --partial "useless net.ipv4.tcp_adv_win_scale"
    assert_line "gone net.core.nonesuch /etc/sysctl.d/a.conf:4"
    put proc/sys/kernel/osrelease 4.11.0
    finds
    refute_output --partial "gone net.ipv4.tcp_tw_recycle"
    assert_line "harmful net.ipv4.tcp_tw_recycle /etc/sysctl.d/a.conf:1"
    # A namespace shows fewer keys: nothing follows from one that is missing there.
    make_host container
    put etc/sysctl.d/a.conf 'net.core.nonesuch=1'
    finds
    refute_output --partial nonesuch
}

@test "hostile files: the JSON stays valid, the terminal is not moved, nothing runs" {
    make_host debian12
    {
        printf 'net.ipv4.tcp_tw_recycle = "\\ \001\033[2J\177 $(touch %s/pwned) `id`\n' "$BATS_TEST_TMPDIR"
        printf 'net.ipv4.tcp_fack = \377\376 \303\251 \360\237\230\200 \355\240\200 \300\257 \342\202\n'
        printf 'net.ipv4.tcp_low_latency = nul\000in the middle\n'
        printf '%s\n' '= no key' 'no value' '===' '-' ';comment' '[section]' "net.ipv4.tcp_sack[\$(touch $BATS_TEST_TMPDIR/pwned)] = 0" "a[\$(touch $BATS_TEST_TMPDIR/pwned)].b/c = 0"
        printf '%s\n' '../../../etc/passwd = 1' 'net.core.../x = 1' 'net.core.*.y = 1' 'net.core.a b = 1'
        head -c 100000 /dev/zero | tr '\0' x
        printf '\nnet.ipv4.tcp_sack=0'
    } >"$host/etc/sysctl.d/10-evil.conf"
    printf 'net.ipv4.tcp_sack = 0\n' >"$host/etc/sysctl.d/11-"$'\033\n"\377.conf'
    mkdir "$host/etc/sysctl.d/12-folder.conf"
    ln -s /nonexistent "$host/etc/sysctl.d/13-dangling.conf"
    ln -s /dev/null "$host/etc/sysctl.d/14-masked.conf"
    json_of audit --profile laptop >"$BATS_TEST_TMPDIR/json"
    assert_schema audit <"$BATS_TEST_TMPDIR/json"
    # Nothing but UTF-8, and the parts that were it are kept.
    iconv -f UTF-8 -t UTF-8 "$BATS_TEST_TMPDIR/json" >/dev/null
    run jq -r '.harmful[] | select(.key == "net.ipv4.tcp_fack") | .value' "$BATS_TEST_TMPDIR/json"
    assert_output --partial "é 😀"
    run jq -r '[.harmful[] | select(.key == "net.ipv4.tcp_sack") | .place] | length' "$BATS_TEST_TMPDIR/json"
    assert_output 2
    run jq -j '.harmful[] | select(.key == "net.ipv4.tcp_tw_recycle" and .severity == "gone") | .value' "$BATS_TEST_TMPDIR/json"
    assert_output --partial $'"\\ \001\033[2J\177 $(touch'
    on_host audit --profile laptop
    assert_success
    [[ $output != *$'\033'* && $output != *$'\001'* ]]
    [[ ! -e $BATS_TEST_TMPDIR/pwned ]]
}

@test "services inside the range of outgoing ports are told" {
    make_host debian12
    put proc/sys/net/ipv4/ip_local_port_range $'10000\t65535'
    on_host audit --profile laptop
    assert_line --partial "services listen on 11111, inside the range"
    put proc/sys/net/ipv4/ip_local_reserved_ports 11000-12000
    on_host audit --profile laptop
    refute_output --partial "services listen on 11111"
}
