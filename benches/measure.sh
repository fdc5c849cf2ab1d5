#!/usr/bin/env bash
# Measures corelane against the peers: every row of benches/README.md, or the rows named as arguments.
# Interleaved slices, at least 30 rounds, a control of the peer against itself in each run.
#
#   benches/measure.sh [ROW ..]
#
# ROUNDS (30) and SLICE (1s) make a run longer or shorter; results go to benches/results/ROW.json.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-30}
bin=${CARGO_TARGET_DIR:-target}/release
results=benches/results
mkdir -p "$results"

cargo build --release --quiet -p corelane-bench -p corelane-peers
cargo build --release --quiet --example echo --example broadcast

echo_server="$bin/examples/echo --listen 127.0.0.1:0 --idle 0"
one="$echo_server --reactors 1"
epoll="$bin/peer-epoll --addr 127.0.0.1:0 --threads 1"
feed="$bin/examples/broadcast --listen 127.0.0.1:0 --publish 127.0.0.1:0 --idle 0 --reactors 1"
feed_by_hand="$bin/peer-broadcast --addr 127.0.0.1:0 --publish-addr 127.0.0.1:0"
tokio="$bin/peer-tokio --addr 127.0.0.1:0 --threads 1"

# compare ROW LABEL_A CMD_A LABEL_B CMD_B OPTION ..
compare() {
    local row=$1 label_a=$2 a=$3 label_b=$4 b=$5
    shift 5
    printf '\n## %s\n\n' "$row"
    "$bin/corelane-bench" compare --a "$a" --b "$b" --label-a "$label_a" --label-b "$label_b" \
        --pairs "$rounds" --slice "${SLICE:-1s}" --json "$results/$row.json" "$@" 2>/dev/null |
        tee "$results/$row.txt" || [[ ${PIPESTATUS[0]} -eq 6 ]] # a schedule was not kept: it is told
}

against_epoll() {
    local row=$1
    shift
    compare "$row" corelane "$one" epoll "$epoll" "$@"
}

broadcast() {
    local row=$1
    shift
    compare "$row" corelane "$feed" epoll "$feed_by_hand" --mode broadcast --connections 1000 --size 100 "$@"
}

row() {
    case $1 in
    small) against_epoll small --connections 64 --size 64 ;;
    pipelined) against_epoll pipelined --connections 64 --size 64 --depth 16 ;;
    thousand) against_epoll thousand --connections 1000 --size 64 ;;
    large) against_epoll large --connections 64 --size 16384 ;;
    churn) against_epoll churn --mode churn --concurrency 64 ;;
    ten-thousand) against_epoll ten-thousand --connections 10000 --size 1024 --mode rate --rate 10000 ;;
    fire-hose) against_epoll fire-hose --connections 100 --background-firehose 1 ;;
    tokio) compare tokio corelane "$one" tokio "$tokio" --connections 64 --size 64 ;;
    fire-hose-tokio) compare fire-hose-tokio corelane "$one" tokio "$tokio" --connections 100 --background-firehose 1 ;;
    steering)
        compare steering steered "$echo_server --reactors 2 --pin --balance cpu" \
            hashed "$echo_server --reactors 2 --pin" \
            --connections 64 --size 64 --server-cpus 0,1 --client-cpus 0,1 --client-threads 2
        ;;
    broadcast) broadcast broadcast ;;
    broadcast-deep) broadcast broadcast-deep --depth 16 ;;
    spin) compare spin spinning "$one --spin 1000" blocking "$one" --connections 1 --size 64 --spin ;;
    spin-loaded) compare spin-loaded spinning "$one --spin 1000" blocking "$one" --connections 64 --size 64 ;;
    memory) "$bin/corelane-bench" c10k --memory-slope 2>/dev/null | tee "$results/memory.txt" ;;
    *)
        echo "measure.sh: no row is called $1" >&2
        exit 2
        ;;
    esac
}

if (($# == 0)); then
    set -- small pipelined thousand large churn ten-thousand fire-hose tokio fire-hose-tokio steering \
        spin spin-loaded broadcast broadcast-deep memory
fi
for name in "$@"; do
    row "$name"
done
