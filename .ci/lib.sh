# Shared by the scripts in this folder: source it, with the repository's root as the working directory.
# shellcheck shell=bash disable=SC2034

# Artifacts stay apart from a developer's own: other flags would rebuild everything there.
target=${CARGO_TARGET_DIR:-$PWD/target/ci}

say() {
    printf '%s\n' "$*" >&2
}

fail() {
    say "error: $*"
    exit 1
}

# Runs a command, as root if we may.
as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    else
        sudo --non-interactive "$@"
    fi
}

# Fills `run_time_tests` with the cargo arguments that select the library's tests of behaviour. The tests of
# what must not compile compare compilers' messages: they say nothing under other flags or another compiler.
# Those of the examples drive programs that are built only where all is.
select_run_time_tests() {
    local names name
    names=$(cargo metadata --format-version 1 --no-deps --locked |
        jq -r '.packages[] | select(.name == "corelane").targets[] | select(.kind == ["test"]).name')
    run_time_tests=(--lib)
    for name in $names; do
        if [[ $name != compile && $name != example_* ]]; then run_time_tests+=(--test "$name"); fi
    done
}

# From here on cargo calls Debian's compiler, unpacked in the folder `rust`, and may be asked to build the
# standard library, which is an unstable option.
use_debian_rust() {
    rust=$(.ci/debian-rust)
    LD_LIBRARY_PATH=$(printf '%s:' "$rust"/usr/lib/*-linux-gnu "$rust"/lib/*-linux-gnu)${LD_LIBRARY_PATH:-}
    export LD_LIBRARY_PATH RUSTC=$rust/usr/bin/rustc RUSTC_BOOTSTRAP=1
}
