#!/usr/bin/env bash
# Measures the proxy example against Debian's haproxy in TCP mode, each with one thread on CPU 0, before the same
# echo server on CPU 1, where the client is too.
#
#   benches/proxy.sh [ROW ..]      small, large, bulk; the same with -splice; connect
#   benches/proxy.sh transfer      10 GB through the proxy, compared byte by byte, and the proxy's memory
#
# ROUNDS (30), SLICE (1s) and GIGABYTES (10) make it longer or shorter; SKIP_BUILD=1 measures what is built.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${CARGO_TARGET_DIR:-target}/release
results=benches/results
scratch=$(mktemp -d)
started=()

clean_up() {
    local id
    for id in "${started[@]}"; do
        kill "$id" 2>/dev/null || true
    done
    rm -rf "$scratch"
}
trap clean_up EXIT

# start NAME CPU COMMAND ..: runs it until the end of this script; sets `address` to where it listens.
start() {
    local name=$1 cpu=$2 log=$scratch/$1.log
    shift 2
    taskset -c "$cpu" "$@" >"$log" 2>&1 &
    started+=($!)
    for _ in {1..100}; do
        address=$(awk 'sub(/.*listening on /, "") { print; exit }' "$log")
        [[ -n $address ]] && return
        sleep 0.05
    done
    echo "proxy.sh: $name did not start: $(cat "$log")" >&2
    exit 1
}

# Writes a script that runs haproxy as `compare` wants a server: on a free port, which it prints.
haproxy_script() {
    local script=$1 upstream=$2 splice=$3
    cat >"$script" <<EOF
#!/usr/bin/env bash
set -euo pipefail
listens() { (exec 3<>"/dev/tcp/127.0.0.1/\$port") 2>/dev/null; }
port=\$((20000 + RANDOM % 10000))
while listens; do port=\$((20000 + RANDOM % 10000)); done
cat >"$scratch/haproxy.\$\$.cfg" <<CONFIG
global
    nbthread 1
    maxconn 4000
defaults
    mode tcp
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    $splice
frontend front
    bind 127.0.0.1:\$port
    default_backend back
backend back
    server upstream $upstream
CONFIG
# The pid must be haproxy's, whose CPU time is measured.
(
    until listens; do sleep 0.02; done
    echo "listening on 127.0.0.1:\$port"
) &
exec haproxy -db -q -f "$scratch/haproxy.\$\$.cfg"
EOF
    chmod +x "$script"
}

# compare ROW SPLICE OPTION ..
compare() {
    local row=$1 splice=$2 upstream
    shift 2
    start "echo-$row" 1 "$bin/peer-epoll" --addr 127.0.0.1:0 --threads 1
    upstream=$address
    haproxy_script "$scratch/$row" "$upstream" "$splice"
    printf '\n## %s\n\n' "proxy-$row"
    "$bin/corelane-bench" compare --label-a corelane --label-b haproxy \
        --a "$bin/examples/proxy --listen 127.0.0.1:0 --reactors 1 --upstream $upstream" --b "$scratch/$row" \
        --pairs "${ROUNDS:-30}" --slice "${SLICE:-1s}" --json "$results/proxy-$row.json" "$@" 2>"$scratch/compare.log" |
        tee "$results/proxy-$row.txt" || {
        cat "$scratch/compare.log" >&2
        exit 1
    }
}

# Sends a long random stream through the proxy to an echo server and compares what comes back byte by byte.
transfer() {
    local bytes=$((${GIGABYTES:-10} * 1000 * 1000 * 1000)) proxy_id begun=$SECONDS
    start echo 1 "$bin/peer-epoll" --addr 127.0.0.1:0 --threads 1
    start proxy 0 "$bin/examples/proxy" --listen 127.0.0.1:0 --reactors 1 --upstream "$address"
    proxy_id=${started[-1]}
    printf '\n## proxy-transfer\n\n'
    memory "before" "$proxy_id"
    # Some bytes first: the memory of a proxy that works is what must not grow.
    stream 10000000 | nc -N "${address%:*}" "${address##*:}" | cmp - <(stream 10000000)
    memory "after 10 MB each way" "$proxy_id"
    stream "$bytes" | nc -N "${address%:*}" "${address##*:}" | cmp - <(stream "$bytes")
    memory "after $bytes bytes each way" "$proxy_id"
    kill -USR1 "$proxy_id"
    echo "every byte came back, within $((SECONDS - begun)) s"
    sleep 0.5
    grep '^upstream' "$scratch/proxy.log"
}

# stream COUNT: always the same random bytes.
stream() {
    # Not a pipeline: head ends early, and openssl then fails.
    head -c "$1" < <(openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 </dev/zero 2>/dev/null)
}

# memory WHEN PID: resident now, and the most ever.
memory() {
    awk -v when="$1" '/^VmRSS/ {now = $2} /^VmHWM/ {most = $2}
        END {print "proxy, " when ": " now " KiB resident, at most " most " KiB"}' "/proc/$2/status"
}

row() {
    local splice="" options=()
    if [[ $1 == *-splice ]]; then
        splice="option splice-auto"
    fi
    case ${1%-splice} in
    small) options=(--connections 64 --size 64) ;;
    large) options=(--connections 64 --size 16384) ;;
    bulk) options=(--connections 8 --size 1048576 --depth 2) ;;
    connect) options=(--mode churn --concurrency 16) ;;
    *)
        echo "proxy.sh: no row is called $1" >&2
        exit 2
        ;;
    esac
    compare "$1" "$splice" "${options[@]}"
}

mkdir -p "$results"
if [[ -z ${SKIP_BUILD:-} ]]; then
    cargo build --release --quiet -p corelane-bench -p corelane-peers
    cargo build --release --quiet --example proxy
fi
if (($# == 0)); then
    set -- small large bulk small-splice large-splice bulk-splice connect transfer
fi
for name in "$@"; do
    if [[ $name == transfer ]]; then transfer; else row "$name"; fi
done
