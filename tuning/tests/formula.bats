#!/usr/bin/env bats
# shellcheck disable=SC2154,SC2034,SC2016,SC1090,SC1091
# The calculator, and values by type.

# Here and not in setup: what a function declares is gone after it.
for part in common formula values; do source "$BATS_TEST_DIRNAME/../lib/$part.sh"; done

setup() {
    load helpers
    declare -gA vars=([connections]=1000 [unknown]='')
}

# gives FORMULA RESULT
gives() {
    formula "$1" || fail "$1: $formula_error"
    assert_equal "$result" "$2"
}

@test "formulas: precedence, parentheses, functions, names" {
    gives 1+2*3 7
    gives '(1+2)*3' 9
    gives 7/2 3
    gives 7%4 3
    gives 10-2-3 5
    gives 100/10/5 2
    gives 3-5 0
    gives 'min(65535,max(4096,pow2(connections*5)))' 8192
    gives 'ceil(connections,300)' 4
    gives 'pow2(1)' 1
    gives 'pow2(4097)' 8192
    formula 'min(connections,2)*connections'
    assert_equal "$filled" 'min(1000,2)*1000'
}

@test "formulas: what is wrong is refused and named" {
    # wrong FORMULA WORDS
    wrong() {
        ! formula "$1" || fail "$1 gave $result"
        [[ $formula_error == *"$2"* ]] || fail "$1: $formula_error"
    }
    wrong '' "unknown name ''"
    wrong '1+' "unknown name ''"
    wrong '(1' "expected ')'"
    wrong '1 + 1' "cannot read ' + 1'"
    wrong 'nothing' "unknown name 'nothing'"
    wrong 'unknown' "not known on this host"
    wrong 'sqrt(4)' "unknown function 'sqrt'"
    wrong 'min(1)' "expected ','"
    wrong '1)' "')' is not expected"
    wrong '1%0' "division by zero"
    wrong 'ceil(1,0)' "division by zero"
    wrong '999999999999999999*999999999999999999' "too large"
    wrong '4611686018427387904+1' "unknown name"
    wrong '007' "unknown name '007'"
    wrong '$((1))' "cannot read"
    wrong 'connections[0]' "cannot read"
    wrong "$(printf '(%.0s' {1..100})1" "too deep"
}

# is TYPE TEXT VALUE: how it is written in one form.
is() {
    normalise "$1" "$2" || fail "$1 '$2' was refused"
    assert_equal "$value" "$3"
}

@test "values: one form for each, and what is none is refused" {
    is int $' 5\n' 5
    is int -1 -1
    is int 18446744073709551615 18446744073709551615
    is vector $'1\t9223372036854775807' '1 9223372036854775807'
    is vector $'4096\t131072\t6291456\n' '4096 131072 6291456'
    is range $'32768\t60999' '32768 60999'
    is ports $'\n' ''
    is ports '9148,8080-8085,8086,1-3,2-9' 1-9,8080-8086,9148
    is cpulist 0-3,5 0-3,5
    is mask 00000000,0000000F f
    is mask 0 0
    is choice 'always [madvise] never' madvise
    is choice never never
    is word bbr bbr
    local pair
    for pair in int: int:x int:1.5 int:08 'int:1 2' int:123456789012345678901 int:-12345678901234567890 vector: 'vector:1 a' 'range:1' 'range:1 2 3' ports:70000 ports:5-2 ports:a \
        mask:xyz 'word:a b' 'choice:a b'; do
        ! normalise "${pair%%:*}" "${pair#*:}" || fail "$pair was taken as '$value'"
    done
}

# becomes TYPE DIRECTION CURRENT TARGET RESULT
becomes() {
    merge "$1" "$2" "$3" "$4" || fail "$*"
    assert_equal "$value" "$5"
}

@test "values: each direction goes one way only" {
    becomes int raise 5 3 5
    becomes int raise 3 5 5
    becomes int raise 18446744073709551615 5 18446744073709551615
    becomes int lower 18446744073709551615 131072 131072
    becomes int raise -1 5 5
    becomes int lower -1 5 -1
    becomes int raise -5 -3 -3
    becomes vector raise '90000 120000 9223372036854775807' '. 250000 500000' '90000 250000 9223372036854775807'
    becomes int lower 5 3 3
    becomes int lower 3 5 3
    becomes int set 3 5 5
    becomes vector raise '1 9 3' '. 5 5' '1 9 5'
    becomes vector lower '1 9 3' '. 5 5' '1 5 3'
    becomes vector set '1 9 3' '. 5 .' '1 5 3'
    becomes range widen '2000 60000' '10240 65535' '2000 65535'
    becomes range widen '32768 60999' '10240 65535' '10240 65535'
    becomes ports union '' 11111 11111
    becomes ports union 5,7 6 5-7
    becomes ports union 5 '' 5
    becomes choice set always always=madvise madvise
    becomes choice set never always=madvise never
    becomes word set cubic bbr bbr
    becomes int observe 3 5 3
    run merge vector raise '1 2' '. . 5'
    assert_failure
    run merge range raise '1 2' '1 2'
    assert_failure
}

@test "amounts: units of memory and of rates" {
    parse_scaled 16G 1024
    assert_equal "$number" 17179869184
    parse_scaled 10g 1000
    assert_equal "$number" 10000000000
    for text in 0 -1 G 1.5G 1GB 99999999999999T; do ! parse_scaled "$text" 1024 || fail "$text was taken"; done
    human_bytes 1536
    assert_equal "$human" '1.5 KiB'
    human_bytes 4096
    assert_equal "$human" '4 KiB'
}
