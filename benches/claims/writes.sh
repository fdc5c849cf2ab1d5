#!/usr/bin/env bash
# Claim: gathering small writes makes a server of 10,000 connections 8 times faster.
#
#   benches/claims/writes.sh
#
# A reply of 1 KiB leaves as 16 writes of 64 bytes, or as one: peer-claims by hand on epoll, otherwise the same.
# shellcheck source=benches/claims/common.sh
source "$(dirname "$0")/common.sh"

build
server="$bin/peer-claims --addr 127.0.0.1:0 --size 64"

compare gathered "$server --mode buffered" one-by-one "$server --mode small-writes" --connections 10000 --size 1024
read -r median low high < <(ratio rate)
verdict "gathered writes are 8 times as fast at 10,000 connections" 8 inf "$median" "$low" "$high" "rate:"
read -r median low high < <(ratio CPU/message)
verdict "and take an eighth of the CPU" 0 0.125 "$median" "$low" "$high" "CPU a message:"
