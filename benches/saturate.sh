#!/usr/bin/env bash
# Shows that one core of corelane-bench's client on io_uring saturates one core of each server: CPU 0 is the server's,
# CPU 1 the client's; 64 connections, 64 bytes, a message at a time, every byte of every reply compared.
#
#   benches/saturate.sh [SERVER ..]       # peers by name; corelane, corelane-http, corelane-redis; -16: 16 deep
#   benches/saturate.sh peer-epoll peer-epoll-16 peer-redis
#
# For each server: the rate, what server and client took of their core, and of CPU time per message; medians of ROUNDS
# (5) slices of SLICE (2s). `saturated` is a server that took at least 97% of its core in the median slice. SKIP_BUILD=1
# measures what is built; a server that is not built (or installed) is left out. On a machine with other work a server
# cannot have a whole core: the last column is what others took.
# shellcheck source=benches/claims/common.sh
source "$(dirname "$0")/claims/common.sh"

rounds=${ROUNDS:-5}
slice=${SLICE:-2s}
threshold=97

if [[ -z ${SKIP_BUILD:-} ]]; then
    build
    cargo build --release --quiet --example redis
    cargo build --release --quiet --features http1 --example netapp
    cargo build --release --quiet --locked --manifest-path benches/peers/async/Cargo.toml --target-dir "${bin%/release}"
    benches/peers/go/build.sh "$bin" || true
fi

command_of() {
    case $1 in
    corelane) echo "$bin/examples/echo --listen 127.0.0.1:0 --reactors 1 --idle 0" ;;
    corelane-http) echo "$bin/examples/netapp --listen 127.0.0.1:0 --reactors 1" ;;
    corelane-redis) echo "$bin/examples/redis --listen 127.0.0.1:0 --reactors 1 --idle 0" ;;
    *) echo "$bin/$1 --addr 127.0.0.1:0 --threads 1" ;;
    esac
}

# What is said to it.
load_of() {
    case $1 in
    *-http | peer-nginx | peer-hyper* | peer-actix | peer-ntex) echo --protocol http --path /plaintext ;;
    *redis*) echo --protocol redis --resp --mix 1:set:3 ;;
    *) echo --size 64 ;;
    esac
}

if (($# == 0)); then
    set -- corelane peer-epoll peer-io-uring peer-mio peer-tokio peer-tokio-per-core peer-threads peer-monoio \
        peer-monoio-epoll peer-compio peer-glommio peer-may peer-go \
        corelane-http peer-epoll-http peer-hyper peer-hyper-per-core peer-actix peer-ntex peer-nginx peer-go-http \
        corelane-redis peer-redis corelane-16 peer-epoll-16 corelane-http-16 peer-nginx-16 corelane-redis-16 peer-redis-16
fi
printf '%-22s %11s %8s %8s %11s %11s %8s  %s\n' server messages/s server client server-us client-us others verdict
for name in "$@"; do
    depth=1 server=$name
    if [[ $name == *-16 ]]; then depth=16 server=${name%-16}; fi
    read -ra words < <(command_of "$server")
    if [[ ! -x ${words[0]} ]]; then
        echo "saturate.sh: $server is not built: left out" >&2
        continue
    fi
    read -ra load < <(load_of "$server")
    start 0 "${words[@]}"
    scheme=tcp path=
    case ${load[1]} in
    http) scheme=http path=${load[3]} ;;
    redis) scheme=redis ;;
    esac
    options=()
    if [[ $scheme == tcp ]]; then options=("${load[@]}"); fi
    if [[ $scheme == redis ]]; then options=("${load[@]:2}"); fi
    target=$scheme://$server_addr$path
    # One server by turns with itself: every slice counts.
    if "$bin/corelane-bench" compare --a "$target" --b "$target" --server-pid "A=$server_pid" \
        --server-pid "B=$server_pid" --connections 64 --depth "$depth" --pairs "$rounds" --slice "$slice" \
        --json "$scratch/saturate.json" "${options[@]}" >"$scratch/report" 2>"$scratch/saturate.err"; then
        jq -r --arg name "$name" --argjson threshold "$threshold" '
            def median: sort | .[length / 2 | floor];
            [.targets[].slices[]] as $slices
            | def of(value): [$slices[] | value] | median;
            [$name, of(.messages_per_second), of(.server_utilisation) * 100, of(.client_utilisation) * 100,
                of(.server_cpu_us_per_message), of(.client_utilisation * 1e6 / .messages_per_second),
                of(.foreign_utilisation) * 100,
                if of(.server_utilisation) * 100 >= $threshold then "saturated" else "not saturated" end]
            | @tsv' "$scratch/saturate.json" |
            awk -F'\t' '{ printf "%-22s %11.0f %7.1f%% %7.1f%% %11.3f %11.3f %7.1f%%  %s\n", $1, $2, $3, $4, $5, $6, $7, $8 }'
    else
        echo "saturate.sh: $name: $(tail -n 1 "$scratch/saturate.err")" >&2
    fi
    stop
done
