#!/usr/bin/env bats
# shellcheck disable=SC2154,SC2034,SC2016,SC1091
# Every command on every kind of host, and what each kind is known by.

setup() {
    load helpers
}

@test "every profile is audited, planned and sized on every host, in text and JSON" {
    for kind in "${host_kinds[@]}"; do
        make_host "$kind"
        before=$(stamps)
        for profile in "${all_profiles[@]}"; do
            json_of audit --profile "$profile" | assert_schema audit
            json_of plan --profile "$profile" | assert_schema plan
            json_of size --profile "$profile" | assert_schema size
        done
        for command in audit plan size; do
            on_host "$command" --profile throughput
            assert_success
        done
        assert_equal "$(stamps)" "$before"
        # Reading leaves no state folder either.
        [[ ! -e $host/var ]]
    done
}

@test "apply, verify, apply again and rollback on every host, for every profile" {
    for kind in "${host_kinds[@]}"; do
        make_host "$kind"
        for profile in "${all_profiles[@]}"; do
            before=$(picture)
            planned=$(json_of plan --profile "$profile" | jq '.changes | length')
            json_of apply --profile "$profile" >"$BATS_TEST_TMPDIR/json"
            assert_schema apply <"$BATS_TEST_TMPDIR/json"
            assert_equal "$(jq '.changes | length' "$BATS_TEST_TMPDIR/json")" "$planned"
            # A container cannot change what its profile wants: that is drift, and said.
            on_host verify --profile "$profile"
            blocked=$(jq '[.blocked[] | select(.key | startswith("RLIMIT") | not)] | length' "$BATS_TEST_TMPDIR/json")
            if [[ $blocked -eq 0 ]]; then assert_success; else assert_failure 1; fi
            on_host apply --profile "$profile"
            assert_success
            assert_line --partial "nothing to change"
            json_of rollback | assert_schema rollback
            assert_equal "$(picture)" "$before"
        done
    done
}

@test "Debian 12: no limit on files is understood and left alone" {
    make_host debian12
    on_host audit --profile idle-c100k
    assert_line --partial "fs.file-max = no limit"
    run jq -r '.knobs[] | select(.key == "fs.file-max") | .current, .status' <(json_of audit --profile idle-c100k)
    assert_line --index 0 9223372036854775807
    assert_line --index 1 ok
    assert_equal "$(json_of audit --profile idle-c100k | jq -r '.observations[] | select(.name == "systemd.DefaultLimitNOFILE").value')" 1024:524288
}

@test "a container: said to be one, its limits are those of the group, nothing can be written" {
    make_host container
    json_of audit --profile idle-c100k >"$BATS_TEST_TMPDIR/json"
    run jq -r '.host.container, .host.network_namespace, .inputs.memory, ([.knobs[] | select(.writable)] | length)' "$BATS_TEST_TMPDIR/json"
    assert_output $'docker\nown\n1073741824\n0'
    run jq -r '.knobs[] | select(.key == "net.ipv4.tcp_mem") | .status, .why' "$BATS_TEST_TMPDIR/json"
    assert_output $'missing\nbelongs to the host: this network namespace does not show it'
    run jq -r '.knobs[] | select(.key == "net.ipv4.tcp_migrate_req") | .status, .why' "$BATS_TEST_TMPDIR/json"
    assert_output $'blocked\n/proc/sys is mounted read only here (container: docker)'
    run jq -r '.observations[] | select(.name == "cgroup pids.max") | .value, .verdict' "$BATS_TEST_TMPDIR/json"
    assert_output $'6\nwarn'
    on_host apply --profile idle-c100k
    assert_success
    assert_line --partial "not done: net.ipv4.tcp_migrate_req is 0, should be 1"
    on_host size --profile idle-c100k
    assert_line --regexp '^  memory: [0-9]+ bytes'
    assert_line --partial "there is: 1073741824"
}

@test "Linux 4.19: keys of later kernels are missing with their version, the old backlog is raised" {
    make_host old
    run jq -r '.knobs[] | select(.key == "net.ipv4.tcp_migrate_req") | .why' <(json_of audit --profile idle-c100k)
    assert_output "comes with Linux 5.14, this is 4.19.0-27-amd64"
    on_host plan --profile idle-c100k
    assert_line -- "-net.core.somaxconn = 128"
    assert_line -- "+net.core.somaxconn = 4096"
    run jq -r .inputs.memory <(json_of audit --profile idle-c100k)
    assert_output 4294967296
}

@test "bare metal: what the kernel counted, the governor, NUMA and a full conntrack table are told" {
    make_host bare
    json_of audit --profile latency >"$BATS_TEST_TMPDIR/json"
    told() { jq -r --arg name "$1" '.observations[] | select(.name == $name) | "\(.value) \(.verdict)"' "$BATS_TEST_TMPDIR/json"; }
    assert_equal "$(told TcpExt.ListenOverflows)" "7 warn"
    assert_equal "$(told TcpExt.ListenDrops)" "9 warn"
    assert_equal "$(told softnet.dropped)" "2 warn"
    assert_equal "$(told conntrack.count)" "250000 warn"
    assert_equal "$(told conntrack.drops)" "13 warn"
    assert_equal "$(told cpu.governor)" "powersave warn"
    assert_equal "$(told numa.nodes)" "2 info"
    assert_equal "$(told clocksource)" "tsc ok"
    on_host plan --profile latency
    assert_line -- "-kernel.numa_balancing = 1"
    assert_line -- "+/sys/kernel/mm/transparent_hugepage/enabled = madvise"
}

@test "verify: what does not fit and cannot be changed, or cannot be read, is drift" {
    make_host container
    put proc/sys/net/core/somaxconn 128
    put proc/sys/net/ipv4/tcp_syncookies 0
    on_host verify --profile laptop
    assert_failure 1
    assert_line "drift from laptop: nothing that can be changed here, and 2 keys that do not fit"
    assert_line --partial "not done: net.core.somaxconn is 128, should be 4096"
    on_host apply --profile laptop
    assert_success
    assert_line "nothing to change that can be changed here: 2 keys do not fit laptop"
    on_host plan --profile laptop
    assert_line "nothing to change for laptop that can be changed here; 2 keys do not fit"
    json_of verify --profile laptop >"$BATS_TEST_TMPDIR/json" || code=$?
    assert_equal "$code $(jq .fits "$BATS_TEST_TMPDIR/json")" "1 false"
    make_host debian12
    on_host verify --profile laptop
    assert_success
    assert_line "this host fits laptop"
    assert_equal "$(json_of verify --profile laptop | jq .fits)" true
    : >"$host/proc/sys/net/core/somaxconn"
    on_host verify --profile laptop
    assert_failure 1
    assert_line "not done: net.core.somaxconn: holds no int"
}

@test "verify: the limits of a process count if it is named" {
    make_host debian12
    mkdir "$host/proc/77"
    put proc/77/limits 'Max open files            4000                 4000               files'
    on_host verify --profile laptop
    assert_success
    on_host verify --profile laptop --pid 77
    assert_failure 1
    assert_line --partial "not done: RLIMIT_NOFILE hard is 4000, should be 13012"
    put proc/77/limits 'Max open files            524288               524288               files'
    on_host verify --profile laptop --pid 77
    assert_success
    on_host verify --profile laptop --pid 78
    assert_failure 4
}

@test "a plan is a unified diff with the formulas filled in" {
    make_host debian12
    on_host plan --profile loadgen --connections 200000 --rate 9000
    assert_success
    assert_line --index 0 -- "--- now"
    assert_line --index 1 -- "+++ loadgen"
    assert_line --partial "raise to max(65536,540000+200000)"
    assert_line -- "+net.ipv4.tcp_max_tw_buckets = 740000"
    printf '%s\n' "$output" | grep -v '^# not done' >"$BATS_TEST_TMPDIR/diff"
    sed -n 's/^-\([^-]\)/\1/p' "$BATS_TEST_TMPDIR/diff" >"$BATS_TEST_TMPDIR/file"
    (cd "$BATS_TEST_TMPDIR" && patch --silent file diff)
    run cat "$BATS_TEST_TMPDIR/file"
    assert_line "net.ipv4.tcp_max_tw_buckets = 740000"
    refute_line --partial "65536"
}

@test "an administrator's higher value is left, field by field" {
    make_host debian12
    put proc/sys/net/core/somaxconn 50000
    put proc/sys/net/ipv4/tcp_rmem $'8192\t262144\t1000'
    put proc/sys/net/ipv4/ip_local_port_range $'5000\t60000'
    on_host apply --profile throughput --bandwidth 1G --rtt 100
    assert_success
    get net.core.somaxconn
    assert_equal "$stored" 50000
    get net.ipv4.tcp_rmem
    assert_equal "$stored" "8192 262144 25000000"
    on_host apply --profile loadgen
    assert_success
    get net.ipv4.ip_local_port_range
    assert_equal "$stored" "5000 65535"
}

@test "a field that bash cannot reckon with stays as it is" {
    make_host debian12
    put proc/sys/net/ipv4/tcp_mem $'90000\t120000\t9223372036854775807'
    put proc/sys/net/ipv4/tcp_max_tw_buckets 18446744073709551615
    on_host apply --profile loadgen --connections 200000 --rate 9000
    assert_success
    get net.ipv4.tcp_mem
    assert_equal "$stored" "90000 161221 9223372036854775807"
    get net.ipv4.tcp_max_tw_buckets
    assert_equal "$stored" 18446744073709551615
    on_host verify --profile loadgen --connections 200000 --rate 9000
    assert_success
}

@test "ports in use that a wider range would cover are reserved, beside those that are" {
    make_host debian12
    put proc/sys/net/ipv4/ip_local_reserved_ports 9148,20000-20010
    # 40960 and 61001 listen, on IPv6.
    put proc/net/tcp6 $'  sl  local_address rem_address   st\n   0: 00000000000000000000000000000000:A000 0:0000 0A 0\n   1: 00000000000000000000000000000000:EE49 0:0000 0A 0'
    on_host apply --profile loadgen
    assert_success
    get net.ipv4.ip_local_reserved_ports
    # 11111 listens as well, on IPv4; 8080 is below the range, and 40960 was in it before.
    assert_equal "$stored" "9148,11111,20000-20010,61001"
}

@test "UDP services outside the range in force are reserved too; sockets inside it may be anybody's" {
    make_host debian12
    # 20001 on IPv4, 61002 on IPv6; 40961 is inside; 20009 is connected.
    put proc/net/udp $'  sl  local_address rem_address   st\n   0: 00000000:4E21 00000000:0000 07 0\n   1: 00000000:A001 00000000:0000 07 0\n   2: 0100007F:4E29 0100007F:0035 01 0'
    put proc/net/udp6 $'  sl  local_address rem_address   st\n   0: 00000000000000000000000000000000:EE4A 0:0000 07 0'
    on_host apply --profile loadgen
    assert_success
    get net.ipv4.ip_local_reserved_ports
    assert_equal "$stored" "11111,20001,61002"
    # What gets a port of the wider range afterwards is not drift.
    put proc/net/udp $'  sl  local_address rem_address   st\n   0: 00000000:2B70 00000000:0000 07 0'
    on_host verify --profile loadgen
    assert_success
}

@test "CPUs that make no sense are one CPU" {
    make_host debian12
    for list in 0- - 0,,1 1- 3- -2 0-1- 99999999999999999999; do
        put proc/self/status $'Name:\tbash\nCpus_allowed_list:\t'"$list"
        assert_equal "$(json_of audit --profile laptop | jq .host.cores)" 1
        on_host nic lo
        assert_failure 4
    done
}

@test "connection tracking that tracks nothing needs no larger table" {
    make_host bare
    put proc/sys/net/netfilter/nf_conntrack_max 1000
    put proc/sys/net/netfilter/nf_conntrack_count 0
    json_of audit --profile idle-c100k >"$BATS_TEST_TMPDIR/json"
    run jq -r '.knobs[] | select(.key == "net.netfilter.nf_conntrack_max") | .status, .why' "$BATS_TEST_TMPDIR/json"
    assert_output $'unused\nnothing is tracked here: no rule asks for it'
    run jq -r '.sizes[] | select(.name == "tracked")' <(json_of size --profile idle-c100k)
    assert_output ''
    # One that is, or a count that cannot be read.
    for text in 1 garbage; do
        put proc/sys/net/netfilter/nf_conntrack_count "$text"
        run jq -r '.knobs[] | select(.key == "net.netfilter.nf_conntrack_max") | .becomes' <(json_of audit --profile idle-c100k)
        assert_output 285536
    done
}

@test "groups: named is the one that leaves the least; sizing takes the least limit" {
    make_host debian12
    put proc/self/cgroup 0::/slice/app
    put sys/fs/cgroup/slice/memory.max 64000000000
    put sys/fs/cgroup/slice/memory.current 63900000000
    put sys/fs/cgroup/slice/app/memory.max 4000000000
    put sys/fs/cgroup/slice/app/memory.current 1000000000
    put sys/fs/cgroup/slice/pids.max 100
    put sys/fs/cgroup/slice/pids.current 98
    put sys/fs/cgroup/slice/app/pids.max 50
    json_of audit --profile laptop >"$BATS_TEST_TMPDIR/json"
    run jq -r '.inputs.memory, (.observations[] | select(.name | startswith("cgroup")) | "\(.name) \(.value) \(.verdict)")' "$BATS_TEST_TMPDIR/json"
    assert_output $'4000000000\ncgroup pids.max 100 warn\ncgroup memory.max 64000000000 ok'
    run jq -r '.observations[] | select(.name == "cgroup memory.max") | "\(.verdict) \(.meaning)"' <(json_of audit --profile idle-c100k)
    assert_output --partial "warn 95.3 MiB left, "
}

@test "half a /proc: what cannot be read is told and never written" {
    make_host debian12
    rm "$host"/proc/{meminfo,net/netstat,net/sockstat,net/softnet_stat,net/tcp,self/cgroup,self/mountinfo,self/limits}
    rm "$host/proc/sys/net/core/somaxconn" && mkdir "$host/proc/sys/net/core/somaxconn"
    printf 'garbage\n' >"$host/proc/sys/net/ipv4/tcp_mtu_probing"
    : >"$host/proc/sys/net/ipv4/tcp_sack"
    printf '4096 16384\n' >"$host/proc/sys/net/ipv4/tcp_wmem"
    on_host audit --profile throughput
    assert_failure 4
    assert_output --partial "state --memory"
    json_of audit --profile throughput --memory 8G | assert_schema audit
    before=$(picture | grep -E 'somaxconn|mtu_probing|tcp_sack|tcp_wmem')
    on_host apply --profile throughput --memory 8G
    assert_success
    assert_line --partial "not done: net.ipv4.tcp_mtu_probing: holds no int"
    assert_line --partial "not done: net.core.somaxconn: cannot be read"
    assert_equal "$(picture | grep -E 'somaxconn|mtu_probing|tcp_sack|tcp_wmem')" "$before"
    rm "$host/proc/sys/kernel/osrelease"
    on_host audit --profile throughput --memory 8G
    assert_failure 4
    assert_output --partial "is this Linux?"
}
