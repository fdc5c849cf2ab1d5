#!/usr/bin/env bash
# Measures the redis example against Debian's redis-server: the same client, one server core each, by turns.
#
#   benches/redis.sh [ROW ..]     plain, deep, spin, half, two; fast-plain, fast-deep
#
# ROUNDS (11) and REQUESTS (200000) make a run longer or shorter; what is printed goes to benches/results too. For each row it prints the median of the
# ratios of neighbouring runs, their quartiles, the median rates, and the server's CPU time per request and the
# median of its ratios.
#
# The rows that begin with fast- are the same load from corelane-bench on io_uring, which asks for less CPU time per
# request than redis-benchmark and so shows rates that redis-benchmark cannot: SET and GET in RESP arrays, 3 bytes,
# 10,000 keys, 50 connections. ROUNDS rounds of SLICE (1s); in place of quartiles they have the 95% interval of the
# median, and behind each rate the shares of a core that server and client took. They end with a row of redis-benchmark's
# own CPU time per request beside that of this client.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-11}
requests=${REQUESTS:-200000}
example=${CARGO_TARGET_DIR:-target}/release/examples/redis
work=$(mktemp -d)
slice=${SLICE:-1s}
bench=${CARGO_TARGET_DIR:-target}/release/corelane-bench
servers=()

stop() {
    if ((${#servers[@]} > 0)); then
        kill "${servers[@]}" 2>/dev/null || true
        wait "${servers[@]}" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap stop EXIT

if [[ -z ${SKIP_BUILD:-} ]]; then
    cargo build --release --quiet --example redis
    cargo build --release --quiet -p corelane-bench
fi

# What is printed is kept, under the names of the rows.
result=benches/results/redis
for row in "$@"; do result+=-$row; done
mkdir -p benches/results
exec > >(exec tee "$result.txt")

# start_example NAME CPUS REACTORS OPTION ..: on a free port; pid and port go to files of that name.
start_example() {
    : >"$work/$1.out"
    taskset -c "$2" "$example" --listen 127.0.0.1:0 --reactors "$3" --idle 0 "${@:4}" >"$work/$1.out" &
    servers+=($!)
    echo $! >"$work/$1.pid"
    for _ in {1..100}; do
        grep -q '^listening on ' "$work/$1.out" && break
        sleep 0.05
    done
    sed -n 's/^listening on .*://p' "$work/$1.out" >"$work/$1.port"
}

# start_redis NAME CPU: redis-server cannot be told to take a free port, so it is given one where nobody is.
start_redis() {
    local port
    while port=$((20000 + RANDOM % 20000)) && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
    taskset -c "$2" redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly no \
        --dir "$work" >"$work/$1.out" &
    servers+=($!)
    echo $! >"$work/$1.pid"
    echo "$port" >"$work/$1.port"
    for _ in {1..100}; do
        [[ $(redis-cli -p "$port" ping 2>/dev/null) == PONG ]] && break
        sleep 0.05
    done
}

# CPU time that a server's threads have used, in nanoseconds: the ticks of /proc/PID/stat are as long as a tenth
# of a run.
cpu() {
    awk '{ used += $1 } END { printf "%.0f\n", used }' "/proc/$(<"$work/$1.pid")/task/"*/schedstat
}

# measure NAME CLIENT_CPUS OPTION ..: one line per command, "COMMAND RATE MICROSECONDS-PER-REQUEST".
measure() {
    local name=$1 cpus=$2 command before after rate
    shift 2
    for command in set get; do
        before=$(cpu "$name")
        rate=$(timeout 120 taskset -c "$cpus" redis-benchmark -p "$(<"$work/$name.port")" -t "$command" -c 50 \
            -n "$requests" -r 10000 --csv "$@" 2>/dev/null | awk -F'"' 'END { print $4 }')
        after=$(cpu "$name")
        awk -v command="$command" -v rate="$rate" -v used=$((after - before)) -v requests="$requests" \
            'BEGIN { printf "%s %.0f %.3f\n", command, rate, used / 1e3 / requests }'
    done
}

# halve CPU, whole: a process that never sleeps takes half of a CPU from whoever else runs there.
halve() {
    taskset -c "$1" sh -c 'while :; do :; done' &
    burner=$!
    servers+=("$burner")
}

whole() {
    kill "$burner"
    wait "$burner" 2>/dev/null || true
}

# Quartiles of the numbers on standard input.
quartiles() {
    sort -n | awk '{ v[NR] = $1 } END { printf "%s %s %s\n", v[int((NR + 3) / 4)], v[int((NR + 1) / 2)], v[int((3 * NR + 3) / 4)] }'
}

# compare LABEL A B CLIENT_CPUS OPTION ..: A and B by turns, and who begins by turns too.
compare() {
    local label=$1 a=$2 b=$3 cpus=$4 round
    shift 4
    : >"$work/a" && : >"$work/b"
    for ((round = 0; round < rounds; round++)); do
        if ((round % 2 == 0)); then
            measure "$a" "$cpus" "$@" >>"$work/a"
            measure "$b" "$cpus" "$@" >>"$work/b"
        else
            measure "$b" "$cpus" "$@" >>"$work/b"
            measure "$a" "$cpus" "$@" >>"$work/a"
        fi
    done
    local command low middle high cpu_a cpu_b cpu_ratio rate_a rate_b
    for command in set get; do
        read -r low middle high < <(paste -d' ' "$work/a" "$work/b" |
            awk -v c="$command" '$1 == c { printf "%.3f\n", $2 / $5 }' | quartiles)
        read -r _ rate_a _ < <(awk -v c="$command" '$1 == c { print $2 }' "$work/a" | quartiles)
        read -r _ rate_b _ < <(awk -v c="$command" '$1 == c { print $2 }' "$work/b" | quartiles)
        read -r _ cpu_a _ < <(awk -v c="$command" '$1 == c { print $3 }' "$work/a" | quartiles)
        read -r _ cpu_b _ < <(awk -v c="$command" '$1 == c { print $3 }' "$work/b" | quartiles)
        read -r _ cpu_ratio _ < <(paste -d' ' "$work/a" "$work/b" |
            awk -v c="$command" '$1 == c { printf "%.3f\n", $3 / $6 }' | quartiles)
        printf '| %s | %s | %s | %s to %s | %s | %s | %s | %s | %s |\n' "$label" "$command" "$middle" \
            "$low" "$high" "$rate_a" "$rate_b" "$cpu_a" "$cpu_b" "$cpu_ratio"
    done
}

# fast LABEL DEPTH: the example and redis-server under corelane-bench's client on io_uring.
fast() {
    local label=$1 depth=$2 command
    for command in set get; do
        "$bench" compare --a "redis://127.0.0.1:$(<"$work/one.port")" --label-a example \
            --b "redis://127.0.0.1:$(<"$work/redis.port")" --label-b redis-server \
            --server-pid "example=$(<"$work/one.pid")" --server-pid "redis-server=$(<"$work/redis.pid")" \
            --mix "1:$command:3" --resp --keys 10000 --connections 50 --depth "$depth" \
            --pairs "$rounds" --slice "$slice" --json "$work/fast.json" >"$work/fast" 2>"$work/fast.err" || {
            cat "$work/fast.err" >&2
            return 1
        }
        jq -r --arg row "$label" --arg command "$command" '
            def share: (. * 100 | round | tostring) + "%";
            def rate: (.messages_per_second | round | tostring)
                + " (\(.server_cost.utilisation | share), \(.client_cost.utilisation | share))";
            def cpu: .server_cost.cpu_us_per_message * 1000 | round / 1000;
            def ends: "\(.low * 1000 | round / 1000) to \(.high * 1000 | round / 1000)";
            ([.comparisons[] | select(.metric == "rate" and .control == false)][0].ratio) as $ratio
            | "| \($row) | \($command) | \($ratio.median * 1000 | round / 1000) | \($ratio | ends) "
                + "| \(.targets[0] | rate) | \(.targets[1] | rate) | \(.targets[0] | cpu) | \(.targets[1] | cpu) |",
            "  client: \(.targets[1].client_cost.cpu_us_per_message * 1000 | round / 1000) us CPU per request"' \
            "$work/fast.json" >"$work/fast.row"
        head -n 1 "$work/fast.row"
        tail -n 1 "$work/fast.row" >>"$work/clients"
        grep '^note:' "$work/fast" || true
    done
}

# own_cpu DEPTH: what redis-benchmark takes per request of redis-server, in microseconds of CPU.
own_cpu() {
    local TIMEFORMAT='%U %S'
    { time taskset -c 1 redis-benchmark -p "$(<"$work/redis.port")" -t set -c 50 -n "$requests" -r 10000 -P "$1" \
        -q >/dev/null 2>&1; } 2>&1 |
        awk -v requests="$requests" '{ printf "  redis-benchmark: %.3f us CPU per SET\n", ($1 + $2) / requests * 1e6 }'
}

# fast_row LABEL DEPTH
fast_row() {
    : >"$work/clients"
    fast "$@"
    printf '\nCPU of the clients (set, get):\n'
    cat "$work/clients"
    own_cpu "$2"
    printf '\n'
}

start_example one 0 1
start_example spinning 0 1 --spin 200
start_example two 0,1 2
start_redis redis 0

row() {
    case $1 in
    plain) compare 'example : redis-server' one redis 1 ;;
    deep)
        compare 'example : redis-server, -P 16' one redis 1 -P 16
        compare 'redis-server : itself, -P 16' redis redis 1 -P 16
        ;;
    # Who sends to a server that sleeps has to wake it, and pays for it: redis-benchmark, which is the limit. The
    # server's CPU time says nothing here: it is all of it.
    spin)
        compare 'spinning example : redis-server' spinning redis 1
        compare 'spinning example : redis-server, -P 16' spinning redis 1 -P 16
        compare 'spinning example : example, -P 16' spinning one 1 -P 16
        ;;
    half)
        # redis-benchmark has no more to give in the rows above; half a core is what it can saturate.
        halve 0
        compare 'example : redis-server, half a core' one redis 1
        compare 'example : redis-server, half a core, -P 16' one redis 1 -P 16
        compare 'redis-server : itself, half a core, -P 16' redis redis 1 -P 16
        whole
        ;;
    fast-plain) fast_row 'example : redis-server' 1 ;;
    fast-deep) fast_row 'example : redis-server, 16 deep' 16 ;;
    # The client shares both cores with the servers here, and has as many threads: compare the CPU time too.
    two) compare 'two reactors : one, -P 16' two one 0,1 -P 16 --threads 2 ;;
    *)
        echo "redis.sh: no row is called $1" >&2
        exit 2
        ;;
    esac
}

printf '| row | command | ratio | quartiles | a/s | b/s | a us CPU | b us CPU | CPU ratio |\n'
printf '|---|---|---|---|---|---|---|---|---|\n'
if (($# == 0)); then
    set -- plain deep spin half two
fi
for name in "$@"; do
    row "$name"
done
