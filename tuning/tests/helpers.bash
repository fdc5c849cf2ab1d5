# Hosts in folders, and what tests ask of them.
# shellcheck shell=bash disable=SC2034

bats_load_library bats-support
bats_load_library bats-assert

tuning=$(cd -- "${BASH_SOURCE[0]%/*}/.." && pwd)
tune=$tuning/corelane-tune

# The keys every kernel has, as a freshly booted one sets them.
readonly plain_keys='
fs/nr_open 1048576
fs/file-max 800000
fs/file-nr 1024 0 800000
fs/epoll/max_user_watches 1700000
kernel/pid_max 32768
kernel/numa_balancing 0
net/core/somaxconn 4096
net/core/rmem_max 212992
net/core/wmem_max 212992
net/core/rmem_default 212992
net/core/wmem_default 212992
net/core/default_qdisc pfifo_fast
net/core/netdev_max_backlog 1000
net/core/netdev_budget 300
net/core/netdev_budget_usecs 8000
net/core/busy_poll 0
net/core/rps_sock_flow_entries 0
net/ipv4/tcp_abort_on_overflow 0
net/ipv4/tcp_syncookies 1
net/ipv4/tcp_max_syn_backlog 512
net/ipv4/tcp_migrate_req 0
net/ipv4/ip_local_port_range 32768|60999
net/ipv4/tcp_tw_reuse 2
net/ipv4/tcp_max_tw_buckets 65536
net/ipv4/tcp_fin_timeout 60
net/ipv4/tcp_max_orphans 32768
net/ipv4/tcp_mem 90000|120000|180000
net/ipv4/tcp_rmem 4096|131072|6291456
net/ipv4/tcp_wmem 4096|16384|4194304
net/ipv4/tcp_slow_start_after_idle 1
net/ipv4/tcp_notsent_lowat 4294967295
net/ipv4/tcp_autocorking 1
net/ipv4/tcp_sack 1
net/ipv4/tcp_timestamps 1
net/ipv4/tcp_window_scaling 1
net/ipv4/tcp_moderate_rcvbuf 1
net/ipv4/tcp_mtu_probing 0
net/ipv4/tcp_keepalive_time 7200
net/ipv4/tcp_retries2 15
net/ipv4/tcp_fastopen 1
net/ipv4/tcp_congestion_control cubic
net/ipv4/neigh/default/gc_thresh3 1024
'

# put FILE TEXT: a file of the host, with the newline that the kernel gives.
put() {
    [[ $1 != */* ]] || mkdir -p "$host/${1%/*}"
    printf '%s\n' "$2" >"$host/$1"
}

# make_host KIND: sets `host`.
make_host() {
    local key text
    host=$BATS_TEST_TMPDIR/host
    rm -rf "$host"
    mkdir -p "$host"/proc/sys/{fs/epoll,kernel/random,net/core,net/ipv4/neigh/default} "$host"/{proc/self,proc/net,etc/sysctl.d}
    while read -r key text; do
        if [[ $key ]]; then printf '%s\n' "${text//|/$'\t'}" >"$host/proc/sys/$key"; fi
    done <<<"$plain_keys"
    printf '\n' >"$host/proc/sys/net/ipv4/ip_local_reserved_ports"
    put proc/sys/kernel/osrelease 6.1.0-13-amd64
    put proc/sys/kernel/random/boot_id 00000000-0000-4000-8000-000000000001
    put proc/meminfo 'MemTotal:        8000000 kB'
    put proc/self/status $'Name:\tbash\nCpus_allowed_list:\t0-3'
    put proc/self/limits 'Max open files            1024                 524288               files'
    put proc/self/cgroup 0::/system.slice/app.service
    put proc/self/mountinfo '22 1 0:21 / /proc rw,relatime - proc proc rw'
    put proc/net/sockstat $'sockets: used 100\nTCP: inuse 5 orphan 0 tw 2 alloc 9 mem 3'
    put proc/net/softnet_stat $'00000010 00000000 00000001\n00000020 00000002 00000000'
    put proc/net/netstat $'TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 0 7 9\nIpExt: InNoRoutes\nIpExt: 0'
    put proc/net/tcp $'  sl  local_address rem_address   st\n   0: 00000000:1F90 00000000:0000 0A 0\n   1: 0100007F:2B67 00000000:0000 0A 0\n   2: 0100007F:9C40 0100007F:1F90 01 0'
    put sys/kernel/mm/transparent_hugepage/enabled '[always] madvise never'
    "host_$1"
}

host_debian12() {
    mkdir -p "$host/run/systemd/system"
    put proc/sys/fs/file-max 9223372036854775807
    put proc/sys/fs/nr_open 1073741816
}

host_bare() {
    local queue
    put proc/sys/kernel/osrelease 6.12.5
    put proc/meminfo 'MemTotal:       65536000 kB'
    put proc/self/status $'Name:\tbash\nCpus_allowed_list:\t0-7'
    put proc/sys/kernel/numa_balancing 1
    put sys/devices/system/cpu/cpu0/cpufreq/scaling_governor powersave
    put sys/devices/system/clocksource/clocksource0/current_clocksource tsc
    mkdir -p "$host"/sys/devices/system/node/node{0,1}
    for queue in 0 1 2 3; do
        put "sys/class/net/eth0/queues/rx-$queue/rps_cpus" 00
        put "sys/class/net/eth0/queues/rx-$queue/rps_flow_cnt" 0
        put "sys/class/net/eth0/queues/tx-$queue/xps_cpus" 00
        put "proc/irq/$((40 + queue))/smp_affinity_list" 0-7
    done
    put sys/class/net/eth0/device/numa_node 0
    put sys/class/net/eth0/speed 25000
    put sys/class/net/eth0/statistics/rx_missed_errors 12
    put sys/class/net/lo/queues/rx-0/rps_cpus 0f
    put proc/interrupts $'           CPU0\n 40:   9  PCI-MSI 1-edge  eth0-TxRx-0\n 41:   9  PCI-MSI 2-edge  eth0-TxRx-1\n 42:   9  PCI-MSI 3-edge  eth0-TxRx-2\n 43:   9  PCI-MSI 4-edge  eth0-TxRx-3\nNMI:   0  Non-maskable interrupts'
    put proc/sys/net/netfilter/nf_conntrack_max 262144
    put proc/sys/net/netfilter/nf_conntrack_count 250000
    put proc/sys/net/netfilter/nf_conntrack_buckets 65536
    put proc/net/stat/nf_conntrack $'entries searched drop insert_failed\n00000001 00000000 0000000a 00000001\n00000001 00000000 00000002 00000000'
}

# A container: a network namespace of its own, nothing may be written, little memory.
host_container() {
    put .dockerenv ''
    put proc/self/mountinfo $'22 1 0:21 / /proc rw - proc proc rw\n23 22 0:21 /sys /proc/sys ro,nosuid - proc proc rw\n24 1 0:22 / /sys ro - sysfs sysfs ro'
    put proc/self/cgroup 0::/
    put sys/fs/cgroup/memory.max 1073741824
    put sys/fs/cgroup/pids.max 6
    rm -f "$host"/proc/sys/net/core/{netdev_*,default_qdisc,busy_poll,rps_sock_flow_entries}
    rm -f "$host"/proc/sys/net/ipv4/{tcp_mem,tcp_max_orphans} "$host"/proc/sys/net/ipv4/neigh/default/gc_thresh3
}

host_old() {
    put proc/sys/kernel/osrelease 4.19.0-27-amd64
    put proc/sys/net/core/somaxconn 128
    put proc/sys/net/ipv4/tcp_rmem $'4096\t87380\t6291456'
    put proc/sys/net/ipv4/tcp_low_latency 0
    put proc/sys/net/ipv4/tcp_fack 0
    rm "$host/proc/sys/net/ipv4/tcp_migrate_req"
    put proc/self/cgroup $'4:memory:/app\n3:pids:/app\n1:name=systemd:/app'
    put sys/fs/cgroup/memory/app/memory.limit_in_bytes 4294967296
}

# The usual list from a blog, in a file and in force.
host_blog() {
    host_debian12
    put etc/sysctl.d/99-tuning.conf '# the ultimate tuning
net.ipv4.tcp_tw_recycle = 1
net.ipv4.tcp_max_tw_buckets=5000
net/ipv4/tcp_syncookies = 0
net.ipv4.tcp_rmem = 4096 8192 16777216
-net.ipv4.tcp_wmem = 4096 16777216 16777216
net.ipv4.ip_local_port_range = 1024 65535
net.ipv4.tcp_fin_timeout = 15
net.core.somaxconn = 65535
net.core.netdev_max_backlog = 500000'
    put proc/sys/net/ipv4/tcp_max_tw_buckets 5000
    put proc/sys/net/ipv4/tcp_syncookies 0
    put proc/sys/net/ipv4/tcp_rmem $'4096\t8192\t16777216'
    put proc/sys/net/ipv4/tcp_wmem $'4096\t16777216\t16777216'
    put proc/sys/net/ipv4/ip_local_port_range $'1024\t65535'
    put proc/sys/net/ipv4/tcp_fin_timeout 15
    put proc/sys/net/core/somaxconn 65535
    put proc/sys/net/core/netdev_max_backlog 500000
}

readonly host_kinds=(debian12 bare container old blog)
readonly all_profiles=(idle-c100k latency throughput loadgen laptop)

# Runs the tool on the host, as `run` does.
on_host() {
    run "$tune" "$1" --root "$host" "${@:2}"
}

# The same, whose output is the JSON alone.
json_of() {
    "$tune" "$1" --root "$host" --format json "${@:2}"
}

# Sets `stored` to what a key of the host holds.
get() {
    stored=$(<"$host/proc/sys/${1//./\/}")
}

# What every file of the host holds, in one text. The state folder is the tool's own.
picture() {
    (cd "$host" && find . -path ./var -prune -o -type f -print0 | sort -z | xargs -0 sha256sum)
}

# What every file of the host is: which ones were written shows even where the same bytes were.
stamps() {
    (cd "$host" && find . -path ./var -prune -o -type f -printf '%p %T@ %C@\n' | sort)
}

# assert_schema COMMAND < JSON
assert_schema() {
    local verdict
    verdict=$(jq -r --arg command "$1" --slurpfile schema "$tuning/schema/corelane-tune.json" \
        -f "$tuning/tests/schema.jq")
    assert_equal "$verdict" ''
}

# Copies the tables, with only the knobs that the awk condition picks: fields $1 key, $2 type, $3 scope, ..
pick_knobs() {
    picked=$BATS_TEST_TMPDIR/knobs
    mkdir -p "$picked"
    cp "$tuning"/knobs/{profiles,harmful}.tsv "$picked"
    awk -F '\t' "/^#/ || ($1)" "$tuning/knobs/knobs.tsv" >"$picked/knobs.tsv"
}
