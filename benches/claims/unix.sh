#!/usr/bin/env bash
# Claim: a Unix socket is 30 to 50% faster than loopback TCP.
#
#   benches/claims/unix.sh
#
# The same server, examples/echo, listens on both; the same client, claims-client, keeps one message in flight on each
# connection and takes turns.
# shellcheck source=benches/claims/common.sh
source "$(dirname "$0")/common.sh"

build
rounds=${ROUNDS:-20}
socket=$scratch/echo.sock
addresses=2 start 0 "$bin/examples/echo" --listen "unix:$socket" --listen 127.0.0.1:0 --reactors 1 --idle 0
milliseconds=$(awk -v time="$slice" 'BEGIN { print int(time * (time ~ /ms$/ ? 1 : 1000)) }')

# tried CONNECTIONS SIZE: lines of the figures over the Unix socket and then over TCP.
tried() {
    local round target
    rm -f "$scratch"/figures.*
    for ((round = 1; round <= rounds; round++)); do
        while read -r target; do
            taskset -c 1 "$bin/claims-client" ping "$target" --server "$server_pid" --connections "$1" --size "$2" \
                --time "$milliseconds" >>"$scratch/figures.${target//\//}"
        done < <(printf '%s\n' "$socket" "$server_addr" | shuf)
    done
    paste -d' ' "$scratch/figures.${socket//\//}" "$scratch/figures.$server_addr" >"$scratch/figures"
}

# of COLUMN: the ratio of a figure (1 rate, 2 CPU a message, 3 p50, 4 p99), the Unix socket's to TCP's.
of() {
    awk -v column="$1" '{ print $column / $(column + 4) }' "$scratch/figures" | spread
}

printf 'Unix socket to loopback TCP, median [95%% interval] of %d rounds of %s\n\n' "$rounds" "$slice"
printf '%-22s %22s %22s %22s %22s\n' load rate "CPU a message" p50 p99
verdicts=()
for load in "1 64" "64 64" "64 1024" "64 16384"; do
    read -r connections size <<<"$load"
    tried "$connections" "$size"
    printf '%-22s' "$connections conns, $size B"
    for column in 1 2 3 4; do
        read -r median low high < <(of "$column")
        printf ' %22s' "$(printf '%.3f [%.3f, %.3f]' "$median" "$low" "$high")"
    done
    echo
    read -r median low high < <(of 1)
    verdicts+=("$(verdict "a Unix socket is 30 to 50% faster ($connections connections, $size B)" 1.3 1.5 \
        "$median" "$low" "$high" "rate, Unix to TCP:")")
done
echo
printf '%s\n' "${verdicts[@]}"
