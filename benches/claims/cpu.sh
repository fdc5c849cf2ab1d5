#!/usr/bin/env bash
# Claim: work for the CPU in a handler of an event loop makes the tail long; it belongs to other threads.
#
#   benches/claims/cpu.sh
#
# Messages over 100 connections at a constant rate, echoed by corelane as they are, with the SHA-256 of each taken in
# the handler, and with that taken by another thread on the same CPU.
# shellcheck source=benches/claims/common.sh
source "$(dirname "$0")/common.sh"

build

# server MODE SIZE
server() {
    echo "$bin/peer-claims --addr 127.0.0.1:0 --mode $1 --size $2"
}

verdicts=()
# Rates at which the hashing server is some 40% busy.
for load in "1024 40000" "16384 15000" "262144 1000"; do
    read -r size rate <<<"$load"
    printf '## %s B, %s messages a second\n\n' "$size" "$rate"
    options=(--mode rate --rate "$rate" --connections 100 --size "$size")
    compare hash "$(server hash "$size")" echo "$(server echo "$size")" "${options[@]}"
    for metric in p50 p99 p99.9; do
        read -r median low high < <(ratio "$metric")
        verdicts+=("$(verdict "SHA-256 of $size B in the handler lengthens the $metric" 1.001 inf "$median" "$low" \
            "$high" "with it to without it:")")
    done
    compare elsewhere "$(server hash-elsewhere "$size")" handler "$(server hash "$size")" "${options[@]}"
    for metric in p50 p99.9; do
        read -r median low high < <(ratio "$metric")
        verdicts+=("$(verdict "another thread for it shortens the $metric ($size B)" 0 0.999 "$median" "$low" "$high" \
            "elsewhere to in the handler:")")
    done
done
printf '%s\n' "${verdicts[@]}"
