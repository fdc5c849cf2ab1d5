#!/usr/bin/env bash
# Shows what knobs change, before and after, in network namespaces of its own. Needs root, iproute2, python3 and an
# echo server; writes no key of the host.
#
#     cargo build --release --example echo
#     tuning/experiments/run.sh [somaxconn] [ports] [reuse] [migrate] [idle] [unsent]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tune=$here/../corelane-tune
traffic=$here/traffic.py
echo=${CORELANE_ECHO:-${CARGO_TARGET_DIR:-$here/../../target}/release/examples/echo}
work=$(mktemp -d)
a=corelane-a-$$ b=corelane-b-$$
started=()

clear() {
    local pid
    for pid in "${started[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    started=()
    ip netns delete "$a" 2>/dev/null || true
    ip netns delete "$b" 2>/dev/null || true
}
trap 'clear; rm -rf "$work"' EXIT

# Fresh namespaces, with the kernel's defaults.
fresh() {
    clear
    ip netns add "$a"
    ip netns add "$b"
    ip -n "$a" link set lo up
    ip -n "$b" link set lo up
}

in_a() { ip netns exec "$a" "$@"; }
in_b() { ip netns exec "$b" "$@"; }

# start NAMESPACE COMMAND..: starts a server there and waits for its first line. Sets `pid`, which is the server's:
# `ip netns exec` becomes it.
start() {
    local namespace=$1
    shift
    : >"$work/output"
    ip netns exec "$namespace" "$@" >"$work/output" 2>&1 &
    pid=$!
    started+=("$pid")
    local deadline=$((SECONDS + 10))
    until [[ -s $work/output ]]; do
        if ((SECONDS > deadline)) || ! kill -0 "$pid" 2>/dev/null; then
            echo "did not start: $*" >&2
            return 1
        fi
        read -rt 0.02 <> <(:) || true
    done
}

# tuned NAMESPACE PROFILE KEY..: applies these keys of a profile there.
tuned() {
    local namespace=$1 profile=$2 key
    shift 2
    rm -rf "$work/knobs" "$work/state"
    mkdir "$work/knobs"
    cp "$here"/../knobs/{profiles,harmful}.tsv "$work/knobs"
    for key in "$@"; do grep -P "^\Q$key\E\t" "$here/../knobs/knobs.tsv"; done >"$work/knobs/knobs.tsv"
    ip netns exec "$namespace" "$tune" apply --profile "$profile" --knobs "$work/knobs" --state "$work/state" | grep -v takes.it
}

counters() {
    in_a nstat --zeros --ignore --json 2>/dev/null | grep -oE '"TcpExt(ListenOverflows|ListenDrops)":[0-9]+' | tr -d '"' | tr '\n' ' '
}

# A burst of connects while the server accepts nothing for 300 ms, as behind a long turn or a page fault.
storm() {
    start "$a" "$echo" --listen 127.0.0.1:7000 --reactors 2
    in_a python3 "$traffic" storm 127.0.0.1 7000 3000 "$pid"
    counters
    echo
}

experiment_somaxconn() {
    echo "== net.core.somaxconn: 3,000 connects while the server stands still for 300 ms"
    fresh
    in_a sh -c 'echo 128 >/proc/sys/net/core/somaxconn'
    echo "-- before: 128, the default until Linux 5.4"
    storm
    fresh
    in_a sh -c 'echo 128 >/proc/sys/net/core/somaxconn'
    echo "-- after"
    tuned "$a" idle-c100k net.core.somaxconn
    storm
}

wire() {
    ip link add wire netns "$a" type veth peer name wire netns "$b"
    ip -n "$a" address add 10.99.0.1/24 dev wire
    ip -n "$b" address add 10.99.0.2/24 dev wire
    ip -n "$a" link set wire up
    ip -n "$b" link set wire up
}

experiment_ports() {
    local when
    for when in before after; do
        echo "== net.ipv4.ip_local_port_range: connections held from one address to one address and port: $when"
        fresh
        in_a sh -c 'echo 65535 >/proc/sys/net/core/somaxconn'
        if [[ $when == after ]]; then tuned "$a" loadgen net.ipv4.ip_local_port_range; fi
        in_a python3 "$traffic" hold 127.0.0.1 7000 4
    done
}

experiment_reuse() {
    local when
    for when in before after; do
        echo "== net.ipv4.tcp_tw_reuse: 40,000 times connect and close, from one address to one address and port: $when"
        fresh
        wire
        if [[ $when == after ]]; then tuned "$a" loadgen net.ipv4.tcp_tw_reuse; fi
        start "$b" "$echo" --listen 10.99.0.2:7000 --reactors 1
        in_a python3 "$traffic" churn 10.99.0.2 7000 40000
    done
}

experiment_migrate() {
    local when
    for when in before after; do
        echo "== net.ipv4.tcp_migrate_req: a listener with connections in its queue closes, another of its port stays: $when"
        fresh
        if [[ $when == after ]]; then tuned "$a" idle-c100k net.ipv4.tcp_migrate_req; fi
        in_a python3 "$traffic" migrate 127.0.0.1 7000 1000
    done
}

experiment_idle() {
    local when algorithm
    for algorithm in reno bbr; do
        for when in before after; do
            echo "== net.ipv4.tcp_slow_start_after_idle, 40 ms round trip, $algorithm: $when"
            fresh
            start "$a" python3 "$traffic" path "$a,10.98.0.1" "$b,10.98.0.2" 0.02
            in_b sh -c "echo $algorithm >/proc/sys/net/ipv4/tcp_congestion_control"
            if [[ $when == after ]]; then tuned "$b" latency net.ipv4.tcp_slow_start_after_idle; fi
            start "$b" python3 "$traffic" serve 10.98.0.2 7000 200000
            in_a python3 "$traffic" ask 10.98.0.2 7000 200000 1 10
        done
    done
}

experiment_unsent() {
    local when
    for when in before after; do
        echo "== net.ipv4.tcp_notsent_lowat, a feed of the newest value over 20 Mbit/s: $when"
        fresh
        wire
        ip netns exec "$b" tc qdisc add dev wire root tbf rate 20mbit burst 16kb limit 64kb
        in_b sh -c 'echo reno >/proc/sys/net/ipv4/tcp_congestion_control'
        if [[ $when == after ]]; then tuned "$b" latency net.ipv4.tcp_notsent_lowat; fi
        start "$b" python3 "$traffic" feed 10.99.0.2 7000
        in_a python3 "$traffic" watch 10.99.0.2 7000 9
    done
}

for name in "${@:-somaxconn ports reuse migrate idle unsent}"; do
    for one in $name; do "experiment_$one"; done
done
