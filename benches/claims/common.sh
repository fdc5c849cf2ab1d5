#!/usr/bin/env bash
# What the scripts of the claims and peers-echo.sh share; to be sourced. A claim's script prints a table and then a line
# `CLAIM: reproduced|refuted|undecided: FIGURES`; refuted says whether it is more or less than was claimed.
#
# ROUNDS and SLICE make a run longer or shorter; SKIP_BUILD=1 measures what is built. What is printed goes to
# benches/results too, as claim-SCRIPT.txt or SCRIPT.txt. The server runs on CPU 0 and the
# client on CPU 1 unless the script says otherwise.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

bin=${CARGO_TARGET_DIR:-target}/release
rounds=${ROUNDS:-15}
slice=${SLICE:-1s}
scratch=$(mktemp -d)
servers=()
server_pid=
server_addr=
kept=yes

clean_up() {
    stop
    rm -rf "$scratch"
}
trap clean_up EXIT

# What is printed is kept.
name=$(basename "$0" .sh)
case $0 in
*claims/*) name=claim-$name ;;
esac
mkdir -p benches/results
exec > >(exec tee "benches/results/$name.txt")

build() {
    [[ -z ${SKIP_BUILD:-} ]] || return 0
    cargo build --release --quiet -p corelane-bench -p corelane-peers
    cargo build --release --quiet --example echo
}

# start CPUS COMMAND ..: starts a server; sets server_pid, and server_addr to the last address that it announces.
# `addresses` tells how many it announces.
start() {
    local line output
    exec {output}< <(exec taskset -c "$@")
    server_pid=$!
    servers+=("$server_pid")
    # shellcheck disable=SC2034 # for those who source this
    for ((line = 0; line < ${addresses:-1}; line++)); do
        read -r -u "$output" _ _ server_addr || {
            echo "$0: no address from: ${*:2}" >&2
            return 1
        }
    done
    # What it says later may be lost, but must find a reader.
    cat <&"$output" >/dev/null &
    exec {output}<&-
}

# Ends all that were started.
stop() {
    local pid
    for pid in "${servers[@]}"; do
        kill "$pid" 2>/dev/null || true
        # They are this shell's children, though not ones that every version of bash can wait for.
        while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
    done
    servers=()
}

# compare LABEL_A COMMAND_A LABEL_B COMMAND_B OPTION ..: both by turns; its report, and its figures for `ratio`. Whether
# the schedule was kept, if there was one, is in `kept`: a latency of one that was not decides nothing.
compare() {
    local label_a=$1 a=$2 label_b=$3 b=$4 status=0
    shift 4
    "$bin/corelane-bench" compare --a "$a" --b "$b" --label-a "$label_a" --label-b "$label_b" \
        --pairs "$rounds" --slice "$slice" --json "$scratch/compare.json" "$@" 2>"$scratch/compare.err" || status=$?
    case $status in
    0) kept=yes ;;
    6) kept=no ;;
    *)
        cat "$scratch/compare.err" >&2
        return 1
        ;;
    esac
    echo
}

# ratio METRIC: of the last comparison, A to B: median, low and high end of its 95% interval.
ratio() {
    jq -r --arg metric "$1" '
        ([.. | objects | select(.metric? == $metric and .control? == false)][0].ratio
            // .summary.a_to_b[{"CPU/message": "cpu_per_message", "p99.9": "p99_9"}[$metric] // $metric])
        | "\(.median) \(.low) \(.high)"' "$scratch/compare.json"
}

# spread: of numbers, one on each line: the median and the ends of its 95% interval, by ranks (of fewer than 6 numbers
# the least and the greatest).
spread() {
    sort -g | awk '
        { value[NR] = $1 }
        END {
            rank = NR < 6 ? 1 : int((NR - 1.96 * sqrt(NR)) / 2)
            if (rank < 1) rank = 1
            median = NR % 2 ? value[(NR + 1) / 2] : (value[NR / 2] + value[NR / 2 + 1]) / 2
            print median, value[rank], value[NR + 1 - rank]
        }'
}

# verdict CLAIM LEAST MOST MEDIAN LOW HIGH TEXT: reproduced if the whole interval is within LEAST to MOST, refuted if none
# of it is. Fewer than 6 rounds have no interval of 95%, and decide nothing.
verdict() {
    awk -v rounds="$rounds" -v kept="$kept" -v claim="$1" -v least="$2" -v most="$3" -v median="$4" -v low="$5" -v high="$6" -v text="$7" 'BEGIN {
        outcome = "undecided"
        if (kept == "no") outcome = "undecided (the schedule was not kept)"
        else if (rounds < 6) outcome = "undecided (too few rounds)"
        else if (low >= least && high <= most) outcome = "reproduced"
        else if (high < least || low > most) outcome = "refuted"
        if (outcome == "refuted") outcome = outcome (low > most ? " (more)" : " (less)")
        figure = median < 1000 ? "%.3f" : "%.0f"
        printf "%s: %s: %s " figure " [" figure ", " figure "]\n", claim, outcome, text, median, low, high
    }'
}
