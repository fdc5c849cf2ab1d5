#!/usr/bin/env bash
# Measures every echo peer, and corelane's examples/echo, against the epoll loop written by hand.
#
#   benches/peers-echo.sh [ROW ..]         # rows: small pipelined thousand large
#   PEERS="peer-mio peer-monoio" benches/peers-echo.sh small
#
# ROUNDS (15) and SLICE (1s) make a run longer or shorter. The peers in Go are left out where there is no Go toolchain
# (see benches/peers/go/build.sh). Ratios with their 95% intervals: below 1 is better, but for the rate.
# shellcheck source=benches/claims/common.sh
source "$(dirname "$0")/claims/common.sh"

peers=${PEERS:-corelane peer-io-uring peer-mio peer-tokio peer-tokio-per-core peer-threads peer-monoio
    peer-monoio-epoll peer-compio peer-glommio peer-may peer-go}

if [[ -z ${SKIP_BUILD:-} ]]; then
    build
    cargo build --release --quiet --locked --manifest-path benches/peers/async/Cargo.toml --target-dir "${bin%/release}"
    benches/peers/go/build.sh "$bin" || true
fi
if [[ ! -x $bin/peer-go ]]; then peers=${peers//peer-go/}; fi

command_of() {
    case $1 in
    corelane) echo "$bin/examples/echo --listen 127.0.0.1:0 --reactors 1 --idle 0" ;;
    *) echo "$bin/$1 --addr 127.0.0.1:0 --threads 1" ;;
    esac
}

options() {
    case $1 in
    small) echo --connections 64 --size 64 ;;
    pipelined) echo --connections 64 --size 64 --depth 16 ;;
    thousand) echo --connections 1000 --size 64 ;;
    large) echo --connections 64 --size 16384 ;;
    *)
        echo "peers-echo.sh: no row is called $1" >&2
        exit 2
        ;;
    esac
}

if (($# == 0)); then set -- small pipelined thousand large; fi
for row in "$@"; do
    read -r -a load < <(options "$row")
    ((${#load[@]} > 0)) || exit 2
    printf '\n## %s: %s; %d rounds of %s\n\n' "$row" "${load[*]}" "$rounds" "$slice"
    printf '%-20s %22s %22s %22s %22s\n' "to peer-epoll" rate "CPU a message" p50 p99
    for peer in $peers; do
        compare "$peer" "$(command_of "$peer")" epoll "$(command_of peer-epoll)" "${load[@]}" >"$scratch/report"
        printf '%-20s' "$peer"
        for metric in rate CPU/message p50 p99; do
            read -r median low high < <(ratio "$metric")
            printf ' %22s' "$(printf '%.3f [%.3f, %.3f]' "$median" "$low" "$high")"
        done
        echo
        grep '^note:' "$scratch/report" || true
    done
done
