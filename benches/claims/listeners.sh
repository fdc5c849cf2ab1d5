#!/usr/bin/env bash
# Claim: a listener for each core (SO_REUSEPORT) does better than one listener whose connections are handed out.
#
#   benches/claims/listeners.sh
#
# Two reactors, accepting with one listener in turn or with one each: new connections (connect, one echo, close) and
# 64 lasting ones. Both CPUs are the server's and the client's.
# shellcheck source=benches/claims/common.sh
source "$(dirname "$0")/common.sh"

build
server="$bin/examples/echo --listen 127.0.0.1:0 --idle 0 --reactors 2"
both=(--server-cpus "0,1" --client-cpus "0,1" --client-threads 2)

compare each "$server --balance kernel" one "$server --balance round-robin" --mode churn --concurrency 64 "${both[@]}"
read -r median low high < <(ratio CPU/message)
churn=$(verdict "a listener for each core takes less CPU for a new connection" 0 0.999 "$median" "$low" "$high" \
    "CPU, one each to one in all:")
read -r median low high < <(ratio rate)
rate=$(verdict "a listener for each core accepts more" 1.001 inf "$median" "$low" "$high" "rate, one each to one in all:")
compare each "$server --balance kernel" one "$server --balance round-robin" --connections 64 --size 64 "${both[@]}"
read -r median low high < <(ratio rate)
echo "$churn"
echo "$rate"
# One listener deals evenly; the kernel's hash does not, and on lasting connections that is all there is to see.
verdict "a listener for each core serves lasting connections faster" 1.001 inf "$median" "$low" "$high" \
    "rate, one each to one in all:"
