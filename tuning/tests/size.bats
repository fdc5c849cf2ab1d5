#!/usr/bin/env bats
# shellcheck disable=SC2154,SC2034
# The calculator against numbers reckoned by hand.

setup() {
    load helpers
    make_host debian12
}

# sized NAME ARGUMENTS..: sets `output` to the number and its verdict.
sized() {
    run jq -r --arg name "$1" '.sizes[] | select(.name == $name) | "\(.value) \(.verdict)"' <(json_of size "${@:2}")
}

@test "descriptors and processes" {
    goal=(--profile idle-c100k --connections 100000 --headroom 0)
    sized descriptors_per_process "${goal[@]}"
    assert_output "100512 fits"
    sized descriptors_per_process "${goal[@]}" --processes 3
    assert_output "33846 fits"
    sized descriptors_per_process "${goal[@]}" --connections 1000000
    assert_output "1000512 short"
    put proc/self/limits 'Max open files            1024                 20000               files'
    # 19,488 connections fit beside 512 others.
    sized processes_needed "${goal[@]}"
    assert_output "6 short"
    sized processes_needed "${goal[@]}" --processes 6
    assert_output "6 fits"
}

@test "source addresses follow the range in force and what is reserved in it" {
    sized source_addresses --profile loadgen --connections 100000
    assert_output "4 info"
    put proc/sys/net/ipv4/ip_local_reserved_ports 40000-49999,1
    sized source_addresses --profile loadgen --connections 100000
    assert_output "6 info"
    sized source_addresses_wide --profile loadgen --connections 100000
    assert_output "3 info"
    sized outgoing_rate --profile loadgen
    assert_output "303 info"
    # Only what a reserved range shares with the other counts: 28232 - 7233, 28232 - 233, all but one, none.
    for pair in "10000-40000 20999" "32000-33000 27999" "1-32767,32769-65535 1" "1-32767,61000-65535 28232"; do
        put proc/sys/net/ipv4/ip_local_reserved_ports "${pair% *}"
        run jq -r '.sizes[] | select(.name == "source_addresses") | .formula' <(json_of size --profile loadgen)
        assert_output --partial "connections / ${pair#* } ports in 32768-60999"
    done
    put proc/sys/net/ipv4/ip_local_reserved_ports 10000-40000
    run jq -r '.sizes[] | select(.name == "source_addresses_wide") | .value' <(json_of size --profile loadgen)
    assert_output 4
}

@test "queues: arrivals times the pause, and what TIME_WAIT keeps" {
    sized accept_queue --profile latency --rate 20000 --stall 500 --headroom 50
    assert_output "15000 short"
    sized accept_queue --profile latency --rate 2000 --stall 500 --headroom 50
    assert_output "1500 fits"
    sized time_wait --profile latency --rate 2000
    assert_output "120000 short"
    sized handshakes --profile latency --rate 2000 --rtt 100
    assert_output "201 fits"
}

@test "bandwidth times delay" {
    goal=(--profile throughput --bandwidth 10G --rtt 80 --active 100)
    sized bandwidth_delay_product "${goal[@]}"
    assert_output "100000000 info"
    sized window_of_one_flow "${goal[@]}"
    assert_output "200000000 short"
    sized share_of_each_active "${goal[@]}"
    assert_output "1000000 info"
    # (4 x 100000000 + 100 x 65536) / 4096, and one.
    sized tcp_pages "${goal[@]}"
    assert_output "99257 fits"
    sized bandwidth_delay_product --profile throughput --bandwidth 8k --rtt 0.001
    assert_output "0 info"
}

@test "memory: the measured cost of a connection counts" {
    goal=(--profile idle-c100k --connections 1000000 --active 0 --processes 10 --headroom 0)
    sized memory_user "${goal[@]}"
    assert_output "243886080 info"
    sized memory_user "${goal[@]}" --user-bytes 115
    assert_output "198886080 info"
    sized memory_kernel_sockets "${goal[@]}"
    assert_output "5040000000 info"
    sized memory_kernel_sockets "${goal[@]}" --kernel-bytes 5000
    assert_output "5000000000 info"
    sized memory "${goal[@]}"
    assert_output --partial fits
    sized memory "${goal[@]}" --memory 4G
    assert_output --partial short
}

@test "the kernel's cost comes from the result too: half of what both ends took" {
    result=$BATS_TEST_TMPDIR/result.json
    # cost ARGUMENTS..: of a connection, and where it is from.
    cost() { run jq -c '.per_connection | [.user_bytes, .user_source, .kernel_bytes, .kernel_source]' <(json_of size --profile laptop "$@"); }
    cost
    assert_output '[160,"default",5040,"default"]'
    cost --from "$tuning/../benches/results/c100k.json"
    assert_output '[111,"measured",4885,"measured"]'
    cost --from "$tuning/../benches/results/c100k.json" --kernel-bytes 9000
    assert_output '[111,"measured",9000,"stated"]'
    cost --user-bytes 77
    assert_output '[77,"stated",5040,"default"]'
    printf '{"user_bytes_per_connection":5,"kernel":{"slope":-3.5}}' >"$result"
    cost --from "$result"
    assert_output '[5,"measured",5040,"default"]'
    # A cost that no connection has would overflow what is reckoned from it.
    for text in '{"user_bytes_per_connection":999999999}' '{"user_bytes_per_connection":1000000.5}' \
        '{"user_bytes_per_connection":1,"kernel":{"slope":999999999}}'; do
        printf '%s' "$text" >"$result"
        on_host size --profile laptop --from "$result" --connections 1000000000
        assert_failure 2
        assert_output --partial "more than 1000000 are taken for a mistake"
    done
    printf '{"user_bytes_per_connection":1000000}' >"$result"
    sized memory_user --profile laptop --from "$result" --connections 1000000000 --active 0
    assert_output "1000000008388608 info"
}

@test "the cost can come from a result of corelane-bench, whatever else is in it" {
    result=$BATS_TEST_TMPDIR/result.json
    # cost TEXT: of the connection, by that result.
    cost() {
        printf '%s' "$1" >"$result"
        run jq -r '.per_connection.user_bytes' <(json_of size --profile laptop --from "$result")
    }
    cost '{"targets":[{"memory":[{"state":"idle","points":[{"connections":1,"user_bytes":99999}],
        "user":{"slope":104.25,"intercept":1e6},"kernel":{"slope":3900.0,"intercept":0}},
        {"state":"after","user": {"intercept": 5, "slope": 151.0}}]}]}'
    assert_output 152
    cost '{"server_memory":{"idle_per_connection":115,"after":1}}'
    assert_output 115
    cost '{"user_bytes_per_connection": 88}'
    assert_output 88
    for text in '' '{}' 'not json' '{"user_bytes_per_connection":"many"}' '{"user_bytes_per_connection":-4}' \
        '{"user_bytes_per_connection":99999999999999}'; do
        printf '%s' "$text" >"$result"
        on_host size --profile laptop --from "$result"
        assert_failure 2
        assert_output --partial "holds no memory per connection"
    done
    on_host size --profile laptop --from /nonexistent
    assert_failure 2
    on_host size --profile laptop --from "$result" --user-bytes 5
    assert_failure 2
}
