#!/usr/bin/env bash
# Measures the netapp example beside other HTTP servers: one thread each on CPU 0, wrk on CPU 1, by turns.
#
#   benches/http.sh [ROW ..]       plaintext-64, plaintext-512, pipelined, slowloris
#
# ROUNDS (15) and SLICE (2 seconds) make it longer or shorter; SKIP_BUILD=1 measures what is built; PEERS names the
# peers, of which those that are not built (or installed) are left out. In each round every server is measured once,
# in random order. Ratios are ours to theirs, within a round: the median, and the interval that holds it with 95%
# (by the sign test).
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-15}
slice=${SLICE:-2}
bin=${CARGO_TARGET_DIR:-target}/release
results=benches/results
scratch=$(mktemp -d)
read -ra wanted <<<"${PEERS:-peer-epoll-http peer-hyper peer-hyper-per-core peer-actix peer-ntex peer-nginx peer-go-http}"
others=benches/peers/async/Cargo.toml
started=()

clean_up() {
    local id
    for id in "${started[@]}"; do
        kill "$id" 2>/dev/null || true
    done
    rm -rf "$scratch"
}
trap clean_up EXIT

# start NAME CPU COMMAND ..: runs it until the end of this script; its pid and address go to files of that name.
start() {
    local name=$1 cpu=$2 log=$scratch/$1.log address
    shift 2
    : >"$log"
    taskset -c "$cpu" "$@" >"$log" 2>&1 &
    started+=($!)
    echo $! >"$scratch/$name.pid"
    for _ in {1..100}; do
        address=$(sed -n 's/.*listening on //p' "$log" | head -n 1)
        if [[ $address ]]; then
            echo "$address" >"$scratch/$name.address"
            return
        fi
        sleep 0.05
    done
    echo "http.sh: $name did not start: $(cat "$log")" >&2
    return 1
}

# Nanoseconds of CPU that all threads of a server have used.
cpu() {
    cat "/proc/$(<"$scratch/$1.pid")/task/"*/schedstat | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}

# measure SERVER PATH CONNECTIONS DEPTH: one line, "RATE NANOSECONDS-PER-REQUEST P50 P99 P99.9 FAILED".
measure() {
    local server=$1 path=$2 before after requests duration failed p50 p99 p999
    before=$(cpu "$server")
    read -r _ requests duration failed p50 p99 p999 < <(
        taskset -c 1 wrk --threads 1 --connections "$3" --duration "${slice}s" --script benches/http.lua \
            "http://$(<"$scratch/$server.address")$path" -- "$4" | grep '^figures'
    )
    after=$(cpu "$server")
    awk -v requests="$requests" -v us="$duration" -v used=$((after - before)) -v rest="$p50 $p99 $p999 $failed" \
        'BEGIN { printf "%.0f %.1f %s\n", requests / us * 1e6, used / requests, rest }'
}

# interval < NUMBERS: "MEDIAN LOW HIGH", where the median of many such numbers is within with 95%.
interval() {
    sort -n | awk '
        { v[NR] = $1 }
        END {
            # The most numbers that can be left out at each end: P(binomial(n, 1/2) <= k - 1) <= 2.5%.
            p = 0.5 ^ NR; sum = p
            for (k = 0; sum <= 0.025 && k < NR / 2; ) { k++; p *= (NR - k + 1) / k; sum += p }
            if (k < 1) k = 1
            middle = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
            printf "%.3f %.3f %.3f\n", middle, v[k], v[NR - k + 1]
        }'
}

# of COLUMN FILE: the median of a column.
of() {
    awk -v column="$1" '{ print $column }' "$2" | interval | cut -d' ' -f1
}

# ratio COLUMN SERVER: of ours to that server's, as "MEDIAN [LOW, HIGH]".
ratio() {
    local median low high
    read -r median low high < <(paste -d' ' "$scratch/figures.corelane" "$scratch/figures.$2" |
        awk -v a="$1" -v b=$((6 + $1)) '$b > 0 { print $a / $b }' | interval)
    printf '%s [%s, %s]' "$median" "$low" "$high"
}

# compare ROW PATH CONNECTIONS DEPTH: every server by turns.
compare() {
    local row=$1 round server
    shift
    rm -f "$scratch"/figures.*
    for ((round = 0; round < rounds; round++)); do
        while read -r server; do
            measure "$server" "$@" >>"$scratch/figures.$server"
        done < <(printf '%s\n' corelane "${peers[@]}" | shuf)
    done
    {
        printf '\n## http-%s\n\n' "$row"
        printf '| server | requests/s | CPU ns/request | p99.9 us | failed | ours to it: rate | CPU | p99 | p99.9 |\n'
        printf '|---|---|---|---|---|---|---|---|---|\n'
        for server in corelane "${peers[@]}"; do
            printf '| %s | %.0f | %.0f | %.0f | %s | %s | %s | %s | %s |\n' "$server" \
                "$(of 1 "$scratch/figures.$server")" "$(of 2 "$scratch/figures.$server")" \
                "$(of 5 "$scratch/figures.$server")" \
                "$(awk '{ sum += $6 } END { print sum }' "$scratch/figures.$server")" \
                "$(ratio 1 "$server")" "$(ratio 2 "$server")" "$(ratio 4 "$server")" "$(ratio 5 "$server")"
        done
    } | tee "$results/http-$row.txt"
}

# Honest clients alone, and beside connections that send a byte every two seconds; by turns.
slowloris() {
    local round slow slow_id
    : >"$scratch/alone" && : >"$scratch/beside"
    for ((round = 0; round < rounds; round++)); do
        measure slowloris /plaintext 64 1 >>"$scratch/alone"
        taskset -c 1 "$bin/trickle" --to "$(<"$scratch/slowloris.address")" --connections 5000 --every 2000 \
            --duration 600 >"$scratch/trickle" &
        slow_id=$!
        started+=("$slow_id")
        until grep -q '^trickling' "$scratch/trickle"; do
            kill -0 "$slow_id" || return 1
            sleep 0.1
        done
        measure slowloris /plaintext 64 1 >>"$scratch/beside"
        # Long enough for the deadline of heads, which ends them.
        sleep "${SLOW_HOLD:-5}"
        slow=$(tail -n 1 "$scratch/trickle")
        kill "$slow_id"
        wait "$slow_id" 2>/dev/null || true
        echo "round $round: $slow" >>"$scratch/slow"
    done
    {
        printf '\n## http-slowloris\n\n'
        printf '| | requests/s | p50 us | p99 us | p99.9 us | failed |\n|---|---|---|---|---|---|\n'
        for when in alone beside; do
            printf '| %s | %.0f | %.0f | %.0f | %.0f | %s |\n' "$when" "$(of 1 "$scratch/$when")" \
                "$(of 3 "$scratch/$when")" "$(of 4 "$scratch/$when")" "$(of 5 "$scratch/$when")" \
                "$(awk '{ sum += $6 } END { print sum }' "$scratch/$when")"
        done
        printf '\np99.9 beside 5,000 slow connections to alone: '
        paste -d' ' "$scratch/beside" "$scratch/alone" | awk '{ print $5 / $11 }' | interval |
            awk '{ printf "%s [%s, %s]\n", $1, $2, $3 }'
        printf '\n'
        cat "$scratch/slow"
    } | tee "$results/http-slowloris.txt"
}

row() {
    case $1 in
    plaintext-64) compare "$1" /plaintext 64 1 ;;
    plaintext-512) compare "$1" /plaintext 512 1 ;;
    pipelined) compare "$1" /plaintext 64 16 ;;
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
    cargo build --release --quiet -p corelane-peers
    cargo build --release --quiet --locked --manifest-path "$others" --target-dir "${CARGO_TARGET_DIR:-target}"
fi
ulimit -n "$(ulimit -Hn)"
example=("$bin/examples/netapp" --listen 127.0.0.1:0 --reactors 1)
start corelane 0 "${example[@]}"
start slowloris 0 "${example[@]}" --head-deadline 3
peers=()
for peer in "${wanted[@]}"; do
    if [[ ! -x $bin/$peer ]]; then
        echo "http.sh: $peer is not built: left out" >&2
    elif start "$peer" 0 "$bin/$peer" --addr 127.0.0.1:0 --threads 1; then
        peers+=("$peer")
    fi
done
if (($# == 0)); then
    set -- plaintext-64 plaintext-512 pipelined slowloris
fi
for name in "$@"; do
    row "$name"
done
