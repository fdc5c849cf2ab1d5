# What every part uses: exit codes, messages, reading files of the host without starting a process.
# shellcheck shell=bash disable=SC2034,SC2154

program=corelane-tune
version=0.1.0

# The contract with scripts that call us.
readonly exit_drift=1 exit_usage=2 exit_privilege=3 exit_unsupported=4 exit_failed=5

# Prefix of every path that is read or written: empty, or the folder given with --root.
root=

say() {
    printf '%s\n' "$*"
}

warn() {
    printf '%s: %s\n' "$program" "$*" >&2
}

# die CODE MESSAGE..
die() {
    local code=$1
    shift
    warn "$*"
    exit "$code"
}

usage_error() {
    die "$exit_usage" "$* (see $program help)"
}

# The few programs we start. Everything else is bash.
require_tools() {
    local tool lacking=()
    for tool in dd flock id mkdir mv rm rmdir readlink stat sync sha256sum; do
        command -v "$tool" >/dev/null || lacking+=("$tool")
    done
    if [[ ${#lacking[@]} -gt 0 ]]; then
        die "$exit_unsupported" "missing tools: ${lacking[*]} (Debian packages coreutils and util-linux)"
    fi
}

# Sets `raw` to the bytes of a file, its newlines too. Fails if it is no readable file.
read_raw() {
    raw=
    [[ -f $1 && -r $1 ]] || return 1
    # The end of the file before a NUL is no error; a read that the kernel refuses leaves nothing.
    IFS= read -r -d '' raw 2>/dev/null <"$1" || true
    # Bash reads 4096 bytes at a time, and the kernel ends a sysctl with the first read, however much there is.
    if [[ ${#raw} -ge 4096 && $1 == "$root"/proc/sys/* ]]; then
        raw=$(dd if="$1" bs=1M count=1 status=none 2>/dev/null && printf .) || return 1
        raw=${raw%.}
    fi
}

# Sets `line` to the first line of a file, without blanks around it.
read_line() {
    line=
    read_raw "$1" || return 1
    line=${raw%%$'\n'*}
    trim "$line"
    line=$trimmed
}

# Sets `trimmed`.
trim() {
    trimmed=${1#"${1%%[!$' \t\r\n']*}"}
    trimmed=${trimmed%"${trimmed##*[!$' \t\r\n']}"}
}

# True for a whole number that bash can reckon with. No sign, no leading zero (bash would read octal).
is_number() {
    [[ $1 =~ ^(0|[1-9][0-9]{0,17})$ ]]
}

# Names of knobs come from tables and snapshots and become paths: nothing may lead out of /proc/sys or /sys.
is_key() {
    [[ $1 =~ ^/?[A-Za-z0-9_][A-Za-z0-9_.:@/-]*$ && $1 != *..* && $1 != *//* ]] || return 1
    [[ $1 != /* || $1 == /sys/* || $1 == /proc/irq/* ]]
}

# Sets `path` to where a key is: a sysctl by its dotted name, or a file of /sys or /proc/irq.
key_path() {
    case $1 in
    /*) path=$root$1 ;;
    *) path=$root/proc/sys/${1//./\/} ;;
    esac
}

# list_conf FOLDER..: sets `conf_files` to the *.conf files of these folders in the order in which systemd reads them,
# by name; one in an earlier folder hides its namesakes in later ones, which `conf_hidden` maps to what hides them.
list_conf() {
    local folder file name entry sorted=()
    declare -A holder=()
    declare -gA conf_hidden=()
    conf_files=()
    for folder; do
        for file in "$root$folder"/*.conf; do
            name=${file##*/}
            if [[ ! ${holder[$name]+set} ]]; then
                holder[$name]=$folder
                # The folder begins with the one byte that no name has.
                insert_sorted "$name$folder"
            elif [[ -f $file ]]; then
                conf_hidden[$file]=${holder[$name]}/$name
            fi
        done
    done
    for entry in "${sorted[@]}"; do conf_files+=("$root/${entry#*/}/${entry%%/*}"); done
}

# Sets `now` to the time in UTC as RFC 3339 writes it.
read_clock() {
    printf -v now '%(%Y-%m-%dT%H:%M:%SZ)T' -1
}

# Whether this is the running system and not a folder that looks like one.
is_live() {
    [[ ! $root ]]
}
