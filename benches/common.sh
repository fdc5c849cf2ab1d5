#!/usr/bin/env bash
# What http.sh and agreement.sh share; to be sourced in the project's directory. Servers run on CPU 0, clients on CPU 1.
#
# Ratios are taken within a round, in which each contestant is measured once, in random order. What is told is their
# median, and the interval that holds the median of many such rounds with 95% (by the sign test).

bin=${CARGO_TARGET_DIR:-target}/release
# shellcheck disable=SC2034 # for those who source this
results=benches/results
# Seconds that a client measures at a time.
slice=${SLICE:-2}
scratch=$(mktemp -d)
started=()

clean_up() {
    local id
    for id in "${started[@]}"; do
        kill "$id" 2>/dev/null || true
    done
    rm -rf "$scratch"
}
trap clean_up EXIT

# start NAME COMMAND ..: runs a server until the end of the script; its pid and address go to files of that name.
start() {
    local name=$1 log=$scratch/$1.log address
    shift
    : >"$log"
    taskset -c 0 "$@" >"$log" 2>&1 &
    started+=($!)
    echo $! >"$scratch/$name.pid"
    for _ in {1..100}; do
        address=$(awk 'sub(/.*listening on /, "") { print; exit }' "$log")
        if [[ $address ]]; then
            echo "$address" >"$scratch/$name.address"
            return
        fi
        sleep 0.05
    done
    echo "$0: $name did not start: $(cat "$log")" >&2
    return 1
}

# Where a server listens.
address() {
    cat "$scratch/$1.address"
}

# Nanoseconds of CPU that all threads of a server have used.
cpu() {
    cat "/proc/$(<"$scratch/$1.pid")/task/"*/schedstat | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}

# Clients print "RATE SERVER-NS CLIENT-NS P50 P99 P99.9 FAILED": CPU per request, and latencies in us.

TIMEFORMAT='%3U %3S'

# timed SERVER COMMAND ..: its output to a file, and what CPU it and the server took in nanoseconds.
timed() {
    local server=$1 before after
    shift
    before=$(cpu "$server")
    { time taskset -c 1 "$@" >"$scratch/output" 2>"$scratch/error"; } 2>"$scratch/time" || {
        cat "$scratch/error" >&2
        return 1
    }
    after=$(cpu "$server")
    awk -v server=$((after - before)) '{ printf "%.0f %.0f\n", server, ($1 + $2) * 1e9 }' "$scratch/time" \
        >"$scratch/used"
}

# per REQUESTS: what was used, for each of them.
per() {
    awk -v requests="$1" '{ printf "%.1f %.1f\n", $1 / requests, $2 / requests }' "$scratch/used"
}

# wrk_of SERVER PATH CONNECTIONS [DEPTH]: a closed loop for a slice of time.
wrk_of() {
    local requests duration failed rest
    timed "$1" wrk --threads 1 --connections "$3" --duration "${slice}s" --script benches/http.lua \
        "http://$(address "$1")$2" -- "${4:-1}"
    read -r requests duration failed rest < <(sed -n 's/^figures //p' "$scratch/output")
    echo "$((requests * 1000000 / duration)) $(per "$requests") $rest $failed"
}

# bench_of TARGET SECONDS OPTION ..: corelane-bench.
bench_of() {
    local target=$1 seconds=$2 status=0
    shift 2
    "$bin/corelane-bench" run "$target" --duration "${seconds}s" --warmup 300ms --reactors 1 --client-cpus 1 \
        --json "$scratch/run.json" "$@" >"$scratch/output" 2>"$scratch/error" || status=$?
    # 6: it fell behind its schedule, which is told with the other failures.
    if ((status != 0 && status != 6)); then
        cat "$scratch/error" >&2
        return 1
    fi
    # What is corrected in a closed loop is an estimate; the other clients tell what they measured.
    jq -r '.targets[0] | .phases.reply as $r
        | ((if $r.filled_every_us then $r.raw else $r.corrected end) // $r.raw // {}) as $l
        | [.messages_per_second, .server_cost.cpu_us_per_message * 1000, .client_cost.cpu_us_per_message * 1000,
            $l.p50_us // 0, $l.p99_us // 0, $l.p99_9_us // 0, .counts.late + .counts.never_sent + .counts.connections_lost]
        | @tsv' "$scratch/run.json" | tr '\t' ' '
}

# closed SERVER PATH CONNECTIONS [OPTION ..]: corelane-bench in a closed loop. Some paths have another body each time, so
# that only status and length are looked at; other clients do no more.
closed() {
    bench_of "http://$(address "$1")$2" "$slice" --verify false --connections "$3" "${@:4}"
}

# paced SERVER PATH CONNECTIONS RATE [OPTION ..]: corelane-bench at a constant rate.
paced() {
    closed "$1" "$2" "$3" --rate "$4" "${@:5}"
}

# half PATH CONNECTIONS SERVER ..: half of the rate that the slowest of them reaches in a closed loop.
half() {
    local path=$1 connections=$2 server
    shift 2
    for server in "$@"; do
        for _ in 1 2 3; do closed "$server" "$path" "$connections"; done |
            sort -n | awk 'NR == 2 { printf "%d\n", $1 / 2 }'
    done | sort -n | sed -n 1p
}

# interval < NUMBERS: "MEDIAN LOW HIGH".
interval() {
    sort -g | awk '
        { v[NR] = $1 }
        END {
            if (!NR) { print "- - -"; exit }
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

# ratio COLUMN FILE FILE: of the first file's to the second's, line by line, as "MEDIAN [LOW, HIGH]".
ratio() {
    local median low high
    read -r median low high < <(paste -d' ' "$2" "$3" |
        awk -v a="$1" '{ b = NF / 2 + a } $b > 0 { print $a / $b }' | interval)
    printf '%s [%s, %s]' "$median" "$low" "$high"
}
