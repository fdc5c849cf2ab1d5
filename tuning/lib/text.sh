# Text for people.
# shellcheck shell=bash disable=SC2034,SC2154

# Sets `shown` to a text of the host with what would move a terminal's cursor made visible, and cut to a length.
show() {
    shown=$1
    if [[ $shown == *[![:print:]]* ]]; then
        shown=${shown//$'\t'/ }
        shown=${shown//$'\n'/ }
        shown=${shown//[![:print:]]/?}
    fi
    local most=${2:-200}
    if [[ ${#shown} -gt $most ]]; then shown="${shown:0:most-2}.."; fi
}

# Sets `shown` to a value for people: the kernel's «no limit» in words, an empty list so that it is seen.
show_value() {
    show "$1" "${2:-200}"
    if [[ $shown =~ ^[1-9][0-9]{17,19}$ ]] && ! less "$shown" 999999999999999999; then shown='no limit'; fi
    if [[ ! $shown ]]; then shown='(empty)'; fi
}

say_goal() {
    local microseconds
    printf -v microseconds '%03d' $((vars[rtt_us] % 1000))
    human_bytes "${vars[memory]}"
    say "profile $profile: $profile_words"
    say "for ${vars[connections]} connections in ${vars[processes]} processes, ${vars[active]} active," \
        "${vars[rate]} new a second, round trip $((vars[rtt_us] / 1000)).$microseconds ms," \
        "${vars[bandwidth]} bit/s, $human of memory, ${vars[headroom]}% headroom"
    say "on Linux $kernel, ${vars[cores]} CPUs$(say_place)"
}

say_place() {
    if [[ $container ]]; then printf ', in a container (%s)' "$container"; fi
    if [[ $netns == own ]]; then printf ', in a network namespace of its own'; fi
}
