#!/usr/bin/env bash
# Claim: a server with a goroutine for each connection takes 12 to 20 KB of user memory a connection.
#
#   benches/claims/memory.sh
#
# The slope of the proportional set size over the number of connections, idle and after each has echoed 1 KiB: of a Go
# server with a buffer of 4 KiB, of one that reads and writes through package bufio, and of examples/echo.
# ROUNDS (6). It takes a Go toolchain: see benches/peers/go/build.sh.
# shellcheck source=benches/claims/common.sh
source "$(dirname "$0")/common.sh"

rounds=${ROUNDS:-6}
counts=(2000 5000 10000)
contestants=(go-4k go-bufio corelane)

build
benches/peers/go/build.sh "$bin"

start_named() {
    case $1 in
    go-4k) start 0 "$bin/peer-go" -addr 127.0.0.1:0 -threads 1 -buffer 4096 ;;
    go-bufio) start 0 "$bin/peer-go" -addr 127.0.0.1:0 -threads 1 -bufio -buffer 4096 ;;
    corelane) start 0 "$bin/examples/echo" --listen 127.0.0.1:0 --reactors 1 --idle 0 ;;
    esac
}

proportional_set_size() {
    awk '/^Pss:/ { print $2 * 1024 }' "/proc/$server_pid/smaps_rollup"
}

# sample SERVER COUNT: the server's memory with so many connections, idle and then after 1 KiB each.
sample() {
    local said idle echoed client_pid
    start_named "$1"
    coproc client { exec taskset -c 1 "$bin/claims-client" hold "$server_addr" --connections "$2"; }
    # shellcheck disable=SC2154 # coproc sets it, and takes it away when the client ends
    client_pid=$client_PID
    read -r -u "${client[0]}" said
    idle=$(proportional_set_size)
    echo >&"${client[1]}"
    read -r -u "${client[0]}" said
    [[ $said == echoed ]]
    echoed=$(proportional_set_size)
    echo "$2 $idle $echoed"
    echo >&"${client[1]}"
    wait "$client_pid"
    stop
}

# slopes: of lines of a count and memories, bytes a connection for each column of memory.
slopes() {
    awk '{
            n++; x += $1; xx += $1 * $1
            for (i = 2; i <= NF; i++) { y[i] += $i; xy[i] += $1 * $i }
        }
        END { for (i = 2; i <= 3; i++) printf "%.0f ", (n * xy[i] - x * y[i]) / (n * xx - x * x); print "" }'
}

for ((round = 1; round <= rounds; round++)); do
    for server in "${contestants[@]}"; do
        for count in "${counts[@]}"; do
            sample "$server" "$count" >>"$scratch/$server.$round"
        done
        slopes <"$scratch/$server.$round" >>"$scratch/$server"
    done
done

printf 'bytes of user memory a connection, slope over %s; median [95%% interval] of %d\n\n' "${counts[*]}" "$rounds"
printf '%-10s %24s %24s\n' server idle "after 1 KiB"
for server in "${contestants[@]}"; do
    read -r idle_median idle_low idle_high < <(cut -d ' ' -f 1 "$scratch/$server" | spread)
    read -r median low high < <(cut -d ' ' -f 2 "$scratch/$server" | spread)
    printf '%-10s %24s %24s\n' "$server" "$idle_median [$idle_low, $idle_high]" "$median [$low, $high]"
done
echo
for server in go-4k go-bufio; do
    read -r median low high < <(cut -d ' ' -f 2 "$scratch/$server" | spread)
    # The claim is in whole KB, of 1,000 bytes or of 1,024: what rounds to 12 of the one or to 20 of the other is within.
    verdict "12 to 20 KB a goroutine connection ($server)" 11500 20992 "$median" "$low" "$high" "bytes after 1 KiB:"
    read -r median low high < <(paste -d ' ' "$scratch/$server" "$scratch/corelane" | awk '{ print $2 / $4 }' | spread)
    printf '%s to corelane, after 1 KiB: %.1f times [%.1f, %.1f]\n' "$server" "$median" "$low" "$high"
done
