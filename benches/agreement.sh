#!/usr/bin/env bash
# Compares what corelane-bench measures with what other load generators measure of the same server: by turns, the
# server on CPU 0, the generator on CPU 1.
#
#   benches/agreement.sh [ROW ..]     wrk, redis, oha
#
# wrk:   closed loop over 64 connections: of the netapp example and of nginx, and of /alloc, where the server is the limit
#        whoever asks
# redis: redis-benchmark, -t set and get, -c 50, -P 1 and 16, of redis-server
# oha:   -q RATE --latency-correction at half of the maximum: /plaintext, which costs the server less than the client;
#        /alloc, which costs it more; /slow, which takes 1 to 300 ms. oha's timer has whole milliseconds: it sends what
#        is due in one in a burst, and counts latency from when it woke up, not from when that was due. So it is compared
#        with corelane-bench's even times, with the same bursts, and with bursts that come to the microsecond.
#
# ROUNDS (11) and SLICE (2 seconds) make it longer or shorter; SKIP_BUILD=1 measures what is built. A client that is not
# installed is left out, and that is said: wrk, redis-tools (and redis-server, nginx-light, jq) are packages of Debian; oha
# comes by `cargo install oha --locked --root DIR`, and OHA=DIR/bin/oha.
# shellcheck source=benches/common.sh
set -euo pipefail
cd "$(dirname "$0")/.."
source benches/common.sh
if [[ ! $slice =~ ^[1-9][0-9]*$ ]]; then
    echo "agreement.sh: SLICE is '$slice': it must be whole seconds, as oha and redis-benchmark are told by them" >&2
    exit 2
fi

rounds=${ROUNDS:-11}
oha=${OHA:-oha}

redis_benchmark_of() {
    local requests=$(($3 == 1 ? slice * 100000 : slice * 1000000)) rate p50 p99
    timed "$1" redis-benchmark -p "$(address "$1" | sed 's/.*://')" -t "$2" -c 50 -P "$3" -n "$requests" --csv
    read -r rate p50 p99 < <(tail -n 1 "$scratch/output" | awk -F'"' '{ print $4, $10 * 1000, $14 * 1000 }')
    echo "$rate $(per "$requests") $p50 $p99 0 0"
}

# It has no warm-up, and opens each connection with the first request on it.
oha_of() {
    timed "$1" "$oha" --no-tui -z "${slice}s" -c "$3" -q "$4" --latency-correction --wait-ongoing-requests-after-deadline \
        --output-format json "http://$(address "$1")$2"
    local requests figures
    requests=$(jq '[.statusCodeDistribution[]] | add' "$scratch/output")
    figures=$(jq -r '.latencyPercentiles as $p | [$p.p50, $p.p99, $p["p99.9"]] | map(. * 1e6) | @tsv' "$scratch/output")
    jq -rj '.summary.requestsPerSec' "$scratch/output"
    echo " $(per "$requests") $figures $(jq '[.errorDistribution[]] | add // 0' "$scratch/output")"
}

# by_turns TITLE LABEL=COMMAND ..: one line of the table for each, with the ratios of its figures to the last one's.
by_turns() {
    local title=$1 round index label column file last
    shift
    last=$scratch/figures.$#
    rm -f "$scratch"/figures.*
    for ((round = 0; round < rounds; round++)); do
        while read -r index; do
            # shellcheck disable=SC2086 # a command line, in words
            ${!index#*=} >>"$scratch/figures.$index"
        done < <(seq $# | shuf)
    done
    for ((index = 1; index <= $#; index++)); do
        file=$scratch/figures.$index
        label=${!index%%=*}
        printf '| %s | %s | %.0f | %.2f | %.2f |' "$title" "$label" "$(of 1 "$file")" \
            "$(of 2 "$file" | awk '{ print $1 / 1000 }')" "$(of 3 "$file" | awk '{ print $1 / 1000 }')"
        printf ' %.0f | %.0f | %.0f | %s |' "$(of 4 "$file")" "$(of 5 "$file")" "$(of 6 "$file")" \
            "$(awk '{ sum += $7 } END { print sum }' "$file")"
        for column in 1 4 5 6; do
            ((index == $#)) || printf ' %s' "$(ratio "$column" "$file" "$last")"
            printf ' |'
        done
        printf '\n'
    done
}

header() {
    printf '\n## agreement-%s\n\n' "$1"
    printf '| what | client | messages/s | server us each | client us each | p50 us | p99 us | p99.9 us | failed or late |'
    printf ' to the last: rate | p50 | p99 | p99.9 |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n'
}

has() {
    command -v "$1" >/dev/null || {
        echo "agreement.sh: $1 is not installed: left out" >&2
        return 1
    }
}

wrk_row() {
    local load
    for load in "netapp /plaintext 64" "nginx /plaintext 64" "netapp /alloc 64"; do
        by_turns "$load" "corelane-bench=closed $load" "wrk=wrk_of $load"
    done
}

redis() {
    bench_of "redis://$(address "$1")" "$slice" -c 50 --depth "$3" --mix "1:$2:3" --resp true --keys 1
}

redis_row() {
    local command depth
    for depth in 1 16; do
        for command in set get; do
            by_turns "$command, -P $depth" "corelane-bench=redis redis $command $depth" \
                "redis-benchmark=redis_benchmark_of redis $command $depth"
        done
    done
}

# The rate that oha reaches in a closed loop.
oha_closed() {
    timed "$1" "$oha" --no-tui -z "${slice}s" -c "$3" --output-format json "http://$(address "$1")$2"
    jq '.summary.requestsPerSec' "$scratch/output"
}

oha_row() {
    local load rate bursts server path connections
    for load in "netapp /plaintext 64" "netapp /alloc 64" "netapp /slow 1000"; do
        read -r server path connections <<<"$load"
        # Half of what the slower of both clients gets out of it.
        rate=$(
            {
                half "$path" "$connections" "$server"
                # shellcheck disable=SC2086 # three words
                oha_closed $load | awk '{ print $1 / 2 }'
            } | sort -g | awk 'NR == 1 { printf "%d\n", $1 }'
        )
        bursts="--load burst --burst $((rate < 1000 ? 1 : rate / 1000))"
        load="$load $rate"
        by_turns "$load/s" "corelane-bench=paced $load" \
            "corelane-bench, in bursts=paced $load $bursts" \
            "corelane-bench, in bursts, spinning=paced $load $bursts --spin 1ms" "oha=oha_of $load"
    done
}

row() {
    case $1 in
    wrk) has wrk || return 0 ;;
    redis) has redis-benchmark && has redis-server || return 0 ;;
    oha) has "$oha" || return 0 ;;
    *)
        echo "agreement.sh: no row is called $1" >&2
        exit 2
        ;;
    esac
    {
        header "$1"
        "${1}_row"
    } | tee "$results/agreement-$1.txt"
}

mkdir -p "$results"
if [[ -z ${SKIP_BUILD:-} ]]; then
    cargo build --release --quiet --features http1 --example netapp
    cargo build --release --quiet -p corelane-bench -p corelane-peers
fi
ulimit -n "$(ulimit -Hn)"
start netapp "$bin/examples/netapp" --listen 127.0.0.1:0 --reactors 1
start nginx "$bin/peer-nginx" --addr 127.0.0.1:0 --threads 1
start redis "$bin/peer-redis" --addr 127.0.0.1:0 --threads 1
if (($# == 0)); then
    set -- wrk redis oha
fi
for name in "$@"; do
    row "$name"
done
