#!/usr/bin/env bash
# Measures every HTTP peer against one of them, with wrk, by turns: the server's CPU time for each request, and the rate.
#
#   benches/peers-http.sh [CONNECTIONS [DEPTH]]      # 64 connections, one request in flight on each
#   SERVERS="netapp peer-hyper" YARDSTICK=peer-epoll-http benches/peers-http.sh 512
#
# Each serves on CPU 0; wrk is on CPU 1, and saturates before most of them do, so the CPU time is what counts. ROUNDS (15)
# and SECONDS_EACH (1) make a run longer or shorter. A server is a name of benches/peers, or netapp (examples/netapp).
# shellcheck source=benches/claims/common.sh
source "$(dirname "$0")/claims/common.sh"

connections=${1:-64}
depth=${2:-1}
seconds=${SECONDS_EACH:-1}
names=${SERVERS:-peer-hyper peer-hyper-per-core peer-actix peer-ntex peer-ntex-epoll peer-nginx peer-go-http}
yardstick=${YARDSTICK:-peer-hyper-per-core}

command -v wrk >/dev/null || {
    echo "peers-http.sh: wrk is not installed (Debian: wrk)" >&2
    exit 1
}
build
cargo build --release --quiet --locked --manifest-path benches/peers/async/Cargo.toml --target-dir "${bin%/release}"
if ! benches/peers/go/build.sh "$bin"; then names=${names//peer-go-http/}; fi
# Beyond the yardstick, another instance of it shows the noise.
read -r -a names <<<"$yardstick ${names//$yardstick/} control"

cat >"$scratch/pipeline.lua" <<LUA
function init(args)
    local one = wrk.format("GET", "/plaintext")
    all = string.rep(one, $depth)
end
function request()
    return all
end
LUA

declare -A pid addr
for name in "${names[@]}"; do
    case $name in
    control) start 0 "$bin/$yardstick" --addr 127.0.0.1:0 --threads 1 ;;
    netapp)
        cargo build --release --quiet --example netapp --all-features
        start 0 "$bin/examples/netapp" --listen 127.0.0.1:0 --reactors 1
        ;;
    *) start 0 "$bin/$name" --addr 127.0.0.1:0 --threads 1 ;;
    esac
    pid[$name]=$server_pid addr[$name]=$server_addr
done

# The time that a server's threads have run, in nanoseconds.
cpu() {
    cat "/proc/$1"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}

# measure NAME SECONDS: a line of the CPU time of a request in microseconds, and the requests a second.
measure() {
    local before after
    before=$(cpu "${pid[$1]}")
    taskset -c 1 wrk --threads 1 --connections "$connections" --duration "$2s" --script "$scratch/pipeline.lua" \
        "http://${addr[$1]}/plaintext" >"$scratch/wrk"
    after=$(cpu "${pid[$1]}")
    if grep -E 'Non-2xx|Socket errors' "$scratch/wrk" >&2; then
        echo "peers-http.sh: $1 did not answer as it should" >&2
        return 1
    fi
    awk -v used=$((after - before)) '
        /requests in/ { count = $1 }
        /^Requests\/sec/ { rate = $2 }
        END { if (count == 0) exit 1; print used / count / 1000, rate }' "$scratch/wrk"
}

for name in "${names[@]}"; do measure "$name" 1 >/dev/null; done
for ((round = 1; round <= rounds; round++)); do
    while read -r name; do
        measure "$name" "$seconds" >>"$scratch/$name"
    done < <(printf '%s\n' "${names[@]}" | shuf)
done

printf '%s connections, %s in flight on each; %d rounds of %s s\n\n' "$connections" "$depth" "$rounds" "$seconds"
printf '%-20s %14s %10s %28s %28s\n' server "CPU us/request" requests/s "CPU to $yardstick" "rate to it"
for name in "${names[@]}"; do
    read -r cpu _ < <(cut -d ' ' -f 1 "$scratch/$name" | spread)
    read -r rate _ < <(cut -d ' ' -f 2 "$scratch/$name" | spread)
    printf '%-20s %14.2f %10.0f' "$name" "$cpu" "$rate"
    for column in 1 2; do
        read -r median low high < <(paste -d ' ' "$scratch/$name" "$scratch/$yardstick" |
            awk -v column="$column" '{ print $column / $(column + 2) }' | spread)
        printf ' %28s' "$(printf '%.3f [%.3f, %.3f]' "$median" "$low" "$high")"
    done
    echo
done
