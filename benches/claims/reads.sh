#!/usr/bin/env bash
# Claim: a read for each small record wastes what one read for all there is does not.
#
#   benches/claims/reads.sh
#
# Records of 64 bytes, 16 in flight on each of 64 connections, read one by one or as they come: peer-claims by hand on
# epoll, otherwise the same. Then one in flight, where there is nothing to gather.
# shellcheck source=benches/claims/common.sh
source "$(dirname "$0")/common.sh"

build
server="$bin/peer-claims --addr 127.0.0.1:0 --size 64"

tried() {
    compare buffered "$server --mode buffered" one-by-one "$server --mode small-reads" --connections 64 --size 64 "$@"
}

tried --depth 16
read -r median low high < <(ratio CPU/message)
deep=$(verdict "a buffered read takes less CPU for small records, 16 in flight" 0 0.999 "$median" "$low" "$high" \
    "CPU a record:")
read -r median low high < <(ratio rate)
rate=$(verdict "and serves more of them" 1.001 inf "$median" "$low" "$high" "rate:")
tried --depth 1
read -r median low high < <(ratio CPU/message)
echo "$deep"
echo "$rate"
verdict "and with one in flight" 0 0.999 "$median" "$low" "$high" "CPU a record:"
