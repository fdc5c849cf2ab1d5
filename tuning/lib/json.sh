# Writes JSON. Texts of a host may hold anything: what is no UTF-8 becomes the replacement character.
# shellcheck shell=bash disable=SC2034,SC2154

json_comma=

# Sets `quoted` to a JSON string.
json_quote() {
    if [[ $1 != *[!\ -~]* && $1 != *[\"\\]* ]]; then
        quoted="\"$1\""
        return
    fi
    local text=$1 index=0 byte piece
    quoted='"'
    while ((index < ${#text})); do
        piece=${text:index:1}
        printf -v byte '%d' "'$piece"
        byte=$((byte & 255))
        if ((byte < 128)); then
            json_escape "$piece" "$byte"
        else
            utf8_sequence "$text" "$index" "$byte"
            index=$((index + ${#piece} - 1))
            if [[ $sequence_broken ]]; then piece='\ufffd'; fi
        fi
        quoted+=$piece
        index=$((index + 1))
    done
    quoted+='"'
}

json_escape() {
    case $1 in
    '"' | \\) piece="\\$1" ;;
    *) if (($2 < 32 || $2 == 127)); then printf -v piece '\\u%04x' "$2"; fi ;;
    esac
}

# Sets `piece` to the bytes of the character at an index and `sequence_broken` if they are none of UTF-8; then
# `piece` is the first byte alone.
utf8_sequence() {
    local text=$1 index=$2 lead=$3 length point byte step
    sequence_broken=yes
    if ((lead >= 0xc2 && lead < 0xe0)); then
        length=2 point=$((lead & 0x1f))
    elif ((lead >= 0xe0 && lead < 0xf0)); then
        length=3 point=$((lead & 0x0f))
    elif ((lead >= 0xf0 && lead < 0xf5)); then
        length=4 point=$((lead & 0x07))
    else
        return 0
    fi
    ((index + length <= ${#text})) || return 0
    for ((step = 1; step < length; step++)); do
        printf -v byte '%d' "'${text:index+step:1}"
        byte=$((byte & 255))
        (((byte & 0xc0) == 0x80)) || return 0
        point=$((point << 6 | byte & 0x3f))
    done
    # Not written longer than it need be, no half of a UTF-16 pair, nothing past the last character.
    if ((length == 3 && (point < 0x800 || (point >= 0xd800 && point < 0xe000)))); then return 0; fi
    if ((length == 4 && (point < 0x10000 || point > 0x10ffff))); then return 0; fi
    sequence_broken=
    piece=${text:index:length}
}

json_open() {
    printf '%s%s' "$json_comma" "$1"
    json_comma=
}

json_close() {
    printf '%s' "$1"
    json_comma=,
}

# json_key NAME: what follows is its value.
json_key() {
    printf '%s"%s":' "$json_comma" "$1"
    json_comma=
}

# json_text NAME VALUE
json_text() {
    json_quote "$2"
    printf '%s"%s":%s' "$json_comma" "$1" "$quoted"
    json_comma=,
}

# json_item VALUE: a text in a list.
json_item() {
    json_quote "$1"
    printf '%s%s' "$json_comma" "$quoted"
    json_comma=,
}

# A text, or null where there is none.
json_maybe() {
    if [[ $2 && $2 != - ]]; then json_text "$1" "$2"; else json_literal "$1" null; fi
}

# A number, true, false or null.
json_literal() {
    printf '%s"%s":%s' "$json_comma" "$1" "$2"
    json_comma=,
}

json_number_or_null() {
    if is_number "$2"; then json_literal "$1" "$2"; else json_literal "$1" null; fi
}

# What every document begins with.
json_begin() {
    read_clock
    json_comma=
    json_open '{'
    json_text tool "$program"
    json_text version "$version"
    json_text command "$command"
    json_text time "$now"
    if [[ ! $profile ]]; then return; fi
    json_text profile "$profile"
    json_key inputs
    json_open '{'
    local name
    for name in connections processes active rate rtt_us bandwidth stall_ms headroom memory; do
        json_literal "$name" "${vars[$name]}"
    done
    json_close '}'
    json_key host
    json_open '{'
    json_text kernel "$kernel"
    json_literal cores "${vars[cores]}"
    json_maybe container "$container"
    json_text network_namespace "$netns"
    json_close '}'
}

json_end() {
    json_close '}'
    printf '\n'
}
