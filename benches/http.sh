#!/usr/bin/env bash
# Measures the netapp example beside other HTTP servers: one thread each on CPU 0, the client on CPU 1, by turns.
#
#   benches/http.sh [ROW ..]       plaintext-64, plaintext-512, pipelined, fast-64, fast-512, fast-16, keepalive,
#                                  slowloris
#
# The first three are closed loops of wrk. Those that begin with fast- are the same loads from corelane-bench on io_uring,
# which asks for less CPU time per request and so saturates servers that wrk does not; their ratios are theirs to ours.
# keepalive is a constant rate of corelane-bench over 10,000 connections, and slowloris one beside 5,000 connections that
# never end their request. ROUNDS (15) and SLICE (2 seconds) make it longer or shorter; SKIP_BUILD=1 measures what is
# built; PEERS names the peers, of which those that are not built (or installed) are left out. Ratios of the others are
# ours to theirs: see common.sh.
# shellcheck source=benches/common.sh
set -euo pipefail
cd "$(dirname "$0")/.."
source benches/common.sh

rounds=${ROUNDS:-15}
read -ra wanted <<<"${PEERS:-peer-epoll-http peer-hyper peer-hyper-per-core peer-actix peer-ntex peer-nginx peer-go-http}"
others=benches/peers/async/Cargo.toml

# compare ROW CLIENT ..: every server by turns; the client is a command that goes on with the server.
compare() {
    local row=$1 client=$2 round server file
    shift 2
    rm -f "$scratch"/figures.*
    for ((round = 0; round < rounds; round++)); do
        while read -r server; do
            "$client" "$server" "$@" >>"$scratch/figures.$server"
        done < <(printf '%s\n' corelane "${peers[@]}" | shuf)
    done
    {
        printf '\n## http-%s\n\n' "$row"
        printf '| server | requests/s | CPU ns/request | p99.9 us | failed | ours to it: rate | CPU | p99 | p99.9 |\n'
        printf '|---|---|---|---|---|---|---|---|---|\n'
        for server in corelane "${peers[@]}"; do
            file=$scratch/figures.$server
            printf '| %s | %.0f | %.0f | %.0f | %s |' "$server" "$(of 1 "$file")" "$(of 2 "$file")" \
                "$(of 6 "$file")" "$(awk '{ sum += $7 } END { print sum }' "$file")"
            for column in 1 2 5 6; do
                printf ' %s |' "$(ratio "$column" "$scratch/figures.corelane" "$file")"
            done
            printf '\n'
        done
    } | tee "$results/http-$row.txt"
}

# saturated ROW CONNECTIONS DEPTH: corelane-bench on io_uring starts every server, and compares each with ours.
saturated() {
    local peer also=() first=${peers[0]}
    for peer in "${peers[@]:1}"; do
        also+=(--also "$peer=$bin/$peer --addr 127.0.0.1:0 --threads 1")
    done
    {
        printf '\n## http-%s\n\n' "$1"
        "$bin/corelane-bench" compare --a "$bin/$first --addr 127.0.0.1:0 --threads 1" --label-a "$first" \
            --b "${example[*]}" --label-b corelane "${also[@]}" \
            --protocol http --path /plaintext -c "$2" -d "$3" --pairs "$rounds" --slice "${slice}s"
    } | tee "$results/http-$1.txt"
}

# A constant rate over 10,000 connections, the same for all: half of what the slowest reaches.
keepalive() {
    local rate
    rate=$(half /plaintext 10000 corelane "${peers[@]}")
    echo "keepalive: $rate requests a second over 10,000 connections" >&2
    compare keepalive paced /plaintext 10000 "$rate"
}

# attack SERVER: 5,000 connections that send a byte every two seconds and never end their request, until `peace`.
attack() {
    : >"$scratch/trickle"
    taskset -c 1 "$bin/trickle" --to "$(address "$1")" --connections 5000 --every 2000 --duration 600 \
        >"$scratch/trickle" &
    attacker=$!
    started+=("$attacker")
    # The measurement begins when the first of them have been cut off and have come back.
    until grep -q 'closed [1-9]' "$scratch/trickle"; do
        kill -0 "$attacker" || return 1
        sleep 0.1
    done
}

peace() {
    tail -n 1 "$scratch/trickle" >>"$scratch/$1.slow"
    kill "$attacker"
    wait "$attacker" 2>/dev/null || true
}

# Honest clients alone, beside slow ones, and beside slow ones of another server on the same CPUs, which tells what of it
# is the CPUs'; by turns. They have a quarter of the greatest rate: their CPU carries the slow ones as well.
slowloris() {
    local round when rate
    rate=$(($(half /plaintext 64 slowloris) / 2))
    rm -f "$scratch"/{alone,beside,elsewhere}*
    for ((round = 0; round < rounds; round++)); do
        while read -r when; do
            case $when in
            alone) paced slowloris /plaintext 64 "$rate" >>"$scratch/$when" ;;
            beside) attack slowloris && paced slowloris /plaintext 64 "$rate" >>"$scratch/$when" && peace "$when" ;;
            elsewhere) attack other && paced slowloris /plaintext 64 "$rate" >>"$scratch/$when" && peace "$when" ;;
            esac
        done < <(printf '%s\n' alone beside elsewhere | shuf)
    done
    {
        printf '\n## http-slowloris: %s requests a second over 64 connections\n\n' "$rate"
        printf '| honest ones | requests/s | CPU ns/request | p50 us | p99 us | p99.9 us | late or failed | to alone: p50 | p99 | p99.9 |\n'
        printf '|---|---|---|---|---|---|---|---|---|---|\n'
        for when in alone beside elsewhere; do
            printf '| %s |' "$when"
            for column in 1 2 4 5 6; do
                printf ' %.0f |' "$(of "$column" "$scratch/$when")"
            done
            printf ' %s |' "$(awk '{ sum += $7 } END { print sum }' "$scratch/$when")"
            for column in 4 5 6; do
                printf ' %s |' "$(ratio "$column" "$scratch/$when" "$scratch/alone")"
            done
            printf '\n'
        done
        printf '\nbeside to elsewhere: p50 %s, p99 %s, p99.9 %s\n' "$(ratio 4 "$scratch"/{beside,elsewhere})" \
            "$(ratio 5 "$scratch"/{beside,elsewhere})" "$(ratio 6 "$scratch"/{beside,elsewhere})"
        printf '\nthe slow ones, by round:\n\n'
        cat "$scratch/beside.slow"
        printf '\nrefused by the server in all:\n\n'
        curl -sS "http://$(address slowloris)/metrics" | grep '^http_refused_total.* [1-9]'
    } | tee "$results/http-slowloris.txt"
}

row() {
    case $1 in
    plaintext-64) compare "$1" wrk_of /plaintext 64 ;;
    plaintext-512) compare "$1" wrk_of /plaintext 512 ;;
    pipelined) compare "$1" wrk_of /plaintext 64 16 ;;
    fast-64) saturated "$1" 64 1 ;;
    fast-512) saturated "$1" 512 1 ;;
    fast-16) saturated "$1" 64 16 ;;
    keepalive) keepalive ;;
    slowloris) slowloris ;;
    *)
        echo "http.sh: no row is called $1" >&2
        exit 2
        ;;
    esac
}

mkdir -p "$results"
if [[ -z ${SKIP_BUILD:-} ]]; then
    cargo build --release --quiet --features http1 --example netapp
    cargo build --release --quiet -p corelane-bench -p corelane-peers
    cargo build --release --quiet --locked --manifest-path "$others" --target-dir "${CARGO_TARGET_DIR:-target}"
fi
ulimit -n "$(ulimit -Hn)"
example=("$bin/examples/netapp" --listen 127.0.0.1:0 --reactors 1)
start corelane "${example[@]}"
start slowloris "${example[@]}" --head-deadline 3
start other "${example[@]}" --head-deadline 3
peers=()
for peer in "${wanted[@]}"; do
    if [[ ! -x $bin/$peer ]]; then
        echo "http.sh: $peer is not built: left out" >&2
    elif start "$peer" "$bin/$peer" --addr 127.0.0.1:0 --threads 1; then
        peers+=("$peer")
    fi
done
if (($# == 0)); then
    set -- plaintext-64 plaintext-512 pipelined fast-64 fast-512 fast-16 keepalive slowloris
fi
for name in "$@"; do
    row "$name"
done
