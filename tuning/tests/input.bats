#!/usr/bin/env bats
# shellcheck disable=SC2154,SC2034,SC2016,SC1091
# Bad input: a clear line on standard error, its exit code, and nothing written.

bats_require_minimum_version 1.5.0

setup() {
    load helpers
    make_host debian12
    before=$(stamps)
}

teardown() {
    [[ $(stamps) == "$before" ]]
    [[ ! -e $host/var ]]
}

# refused CODE TEXT ARGUMENTS..
refused() {
    local code=$1 text=$2
    shift 2
    run --separate-stderr "$tune" "$@"
    assert_equal "$status" "$code"
    assert_equal "$output" ''
    # shellcheck disable=SC2154
    [[ $stderr == *"$text"* && $stderr != *$'\n'*$'\n'* ]] || fail "said: $stderr"
}

@test "no command, an unknown one, an option of another" {
    refused 2 "no command"
    refused 2 "no command is named 'tune'" tune
    refused 2 "no command is named '../audit'" ../audit
    refused 2 "audit takes no option '--force'" audit --force --root "$host"
    refused 2 "rollback takes no option '--profile'" rollback --profile laptop
    refused 2 "audit takes no operand 'laptop'" audit laptop
    refused 2 "audit takes no option '--frobnicate'" audit --frobnicate
}

@test "unknown profile, profile or value missing" {
    refused 2 "no profile is named 'fast': idle-c100k latency throughput loadgen laptop" audit --root "$host" --profile fast
    refused 2 "no profile is named '*'" audit --root "$host" --profile '*'
    refused 2 "audit needs --profile" audit --root "$host"
    refused 2 "--profile needs a value" apply --root "$host" --profile
}

@test "nonsense numbers" {
    local number
    for number in 0 -1 1.5 abc '' 1e6 0x10 007 99999999999999999999 '$(id)' '1 2' 'a[$(id)]'; do
        refused 2 "--connections '$number' is not a whole number from 1 to 1000000000" \
            apply --root "$host" --profile laptop --connections "$number"
    done
    refused 2 "--memory '12Q' is no amount of memory" size --root "$host" --profile laptop --memory 12Q
    refused 2 "--memory '9999999T' is no amount of memory" size --root "$host" --profile laptop --memory 9999999T
    refused 2 "--bandwidth 'fast' is no number of bits" size --root "$host" --profile laptop --bandwidth fast
    refused 2 "--rtt '-3' is no number of milliseconds" size --root "$host" --profile laptop --rtt -3
    refused 2 "--rtt must be more than 0" size --root "$host" --profile laptop --rtt 0
    refused 2 "--headroom '1001' is not a whole number" size --root "$host" --profile laptop --headroom 1001
    refused 2 "--active 11 is more than --connections 10" size --root "$host" --profile laptop --connections 10 --active 11
    refused 2 "--active 10001 is more than the 10000 connections of the profile" size --root "$host" --profile laptop --active 10001
    refused 2 "--processes 11 is more than --connections 10" size --root "$host" --profile laptop --connections 10 --processes 11
    refused 2 "--format is text or json, not 'xml'" size --root "$host" --profile laptop --format xml
    refused 2 "--root '/nonexistent' is no folder" size --root /nonexistent --profile laptop
}

@test "names that would lead elsewhere" {
    refused 2 "is no name of one user" persist --root "$host" --profile laptop --user '*'
    refused 2 "is no name of one user" persist --root "$host" --profile laptop --user '@staff'
    refused 2 "is no name such as" persist --root "$host" --profile laptop --unit ../../evil.service
    refused 2 "is no name such as" persist --root "$host" --profile laptop --unit sshd
    refused 2 "is no name of a device" nic ../lo --root "$host"
    refused 2 "is no name of a device" nic .. --root "$host"
    refused 2 "nic needs a DEVICE" nic --root "$host"
    refused 2 "is no name of a snapshot" rollback ../../etc --root "$host"
    refused 4 "no device is named eth7: there are none" nic eth7 --root "$host"
}

@test "tables that do not fit" {
    local tables=$BATS_TEST_TMPDIR/tables
    refused 2 "cannot be read" plan --root "$host" --profile laptop --knobs /nonexistent
    mkdir "$tables"
    cp "$tuning"/knobs/* "$tables"
    # broken TEXT ROW: the row alone.
    broken() {
        printf '%s\n' "$2" >"$tables/knobs.tsv"
        refused 4 "$1" plan --root "$host" --profile laptop --knobs "$tables"
    }
    broken "has 3 fields, not 15" $'a\tb\tc'
    row() {
        printf '%s\t' "$1" "$2" namespace - - - "$3" - - - -
        printf '%s\t%s\t%s\t%s' "$4" reason source risk
    }
    broken "is no key" "$(row ../../etc/passwd int set 1)"
    broken "is no key" "$(row /etc/passwd int set 1)"
    broken "no type is named 'float'" "$(row net.core.somaxconn float set 1)"
    broken "cannot be moved by 'widen'" "$(row net.core.somaxconn int widen 1)"
    broken "unknown name 'nonsense'" "$(row net.core.somaxconn int set nonsense)"
    broken "cannot read" "$(row net.core.somaxconn int set '$(touch pwned)')"
    broken "unknown name 'a'" "$(row net.core.somaxconn int set 'a[$(id)]')"
    broken "cannot read" "$(row net.core.somaxconn int set 'connections[$(id)]')"
    broken "division by zero" "$(row net.core.somaxconn int set 1/0)"
}

@test "a tool that is missing is named" {
    local folder=$BATS_TEST_TMPDIR/bin
    mkdir "$folder"
    local tool
    for tool in bash dd flock mkdir mv rm rmdir readlink stat sync id; do ln -s "$(command -v "$tool")" "$folder"; done
    run env PATH="$folder" "$tune" plan --root "$host" --profile laptop
    assert_failure 4
    assert_output "corelane-tune: missing tools: sha256sum (Debian packages coreutils and util-linux)"
}

@test "help and version" {
    run "$tune" help
    assert_success
    assert_output --partial "Exit codes: 0 fine, 1 drift, 2 usage, 3 privilege, 4 unsupported, 5 failed and rolled back"
    run "$tune" --version
    assert_output --regexp '^corelane-tune [0-9.]+$'
    # Every command and every option that is taken is told.
    run "$tune" --help
    local word
    for word in audit plan apply rollback persist unpersist verify size nic --profile --connections --processes --active \
        --memory --rate --rtt --bandwidth --stall --headroom --format --root --state --knobs --pid --unit --user --force \
        --forget --apply --reactors --user-bytes --kernel-bytes --from; do
        assert_output --partial "$word"
    done
}
