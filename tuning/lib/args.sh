# The command line: every option is checked before anything of the host is read, and an option that a command
# would not use is refused.
# shellcheck shell=bash disable=SC2034,SC2154

command=
format=text
profile=
state_option=
knob_folder=
snapshot_name=
device=
force=
forget=
nic_apply=
pid=self
unit=
measured_from=
users=()

# What the caller stated about the load, by the name of the formulas' variable.
declare -A given=()

# The options each command takes beside --root.
readonly sizing="--profile --connections --processes --active --memory --rate --rtt --bandwidth --stall --headroom"
declare -A takes=(
    [audit]="$sizing --knobs --format --pid --unit"
    [plan]="$sizing --knobs --format"
    [apply]="$sizing --knobs --format --state"
    [verify]="$sizing --knobs --format --pid"
    [persist]="$sizing --knobs --format --state --unit --user"
    [size]="$sizing --knobs --format --user-bytes --kernel-bytes --from"
    [rollback]="--format --state --force --forget"
    [unpersist]="--format --force"
    [nic]="--format --state --reactors --apply"
    [help]="" [version]=""
)

usage() {
    cat <<END
$program COMMAND [OPTIONS]

Commands:
  audit                what is set, what this goal wants, what is harmful; reads only, needs no root
  plan                 what apply would change, as a unified diff
  apply                change it, after a snapshot; all of it or none of it
  verify               exit 0 if every key still fits the profile, 1 with the drift, also where it cannot be changed
  rollback [SNAPSHOT]  the values from before an apply; the newest one if none is named
  persist, unpersist   keep the values over a reboot, or stop it
  size                 what the stated load needs: descriptors, ports, memory, queues, buffers
  nic DEVICE           interrupts, queues and steering of a device
  help, version

The goal:
  --profile NAME       idle-c100k, latency, throughput, loadgen or laptop
  --connections N      open at once              --processes P    that share them (1)
  --active A           moving bytes at once      --rate R         new connections a second
  --rtt MS             round trip, as 0.2 or 50  --bandwidth BPS  bits a second, as 10G
  --memory M           for all this, as 16G      --stall MS       how long accepting may pause
  --headroom PERCENT   on top of what is needed (25)

Options:
  --format text|json   --root DIR     a host in a folder: proc, sys and etc are read and written there
  --state DIR          snapshots (var/lib/corelane-tune)   --knobs DIR   other tables than ours
  --pid PID            audit, verify: whose limits
  --unit NAME          audit, persist: a systemd service
  --user NAME          persist: descriptor limits of this user, repeatable
  --force              rollback, unpersist: also what somebody changed since
  --forget             rollback SNAPSHOT: give it up, write nothing to the host
  --apply              nic: make the changes     --reactors N     nic: to serve (the CPUs of this host)
  --user-bytes N, --kernel-bytes N, --from FILE  size: measured cost of a connection, or a JSON result that has it

Exit codes: 0 fine, 1 drift, 2 usage, 3 privilege, 4 unsupported, 5 failed and rolled back
END
}

parse_args() {
    [[ $# -gt 0 ]] || usage_error "no command"
    case $1 in
    -h | --help | help) command=help ;;
    --version | version) command=version ;;
    *) command=$1 ;;
    esac
    [[ $command != *[^a-z]* && ${takes[$command]+set} ]] || usage_error "no command is named '$1'"
    shift
    local option
    while [[ $# -gt 0 ]]; do
        option=$1
        if [[ $option != -* ]]; then
            parse_operand "$option"
            shift
            continue
        fi
        if [[ $option != --root && " ${takes[$command]} " != *" $option "* ]]; then
            usage_error "$command takes no option '$option'"
        fi
        case $option in
        --force) force=yes ;;
        --forget) forget=yes ;;
        --apply) nic_apply=yes ;;
        *)
            [[ $# -ge 2 ]] || usage_error "$option needs a value"
            parse_value "$option" "$2"
            shift
            ;;
        esac
        shift
    done
    check_args
}

parse_operand() {
    case $command in
    rollback)
        [[ ! $snapshot_name ]] || usage_error "one snapshot at a time"
        [[ $1 =~ ^[0-9TZ-]+$ ]] || usage_error "'$1' is no name of a snapshot"
        snapshot_name=$1
        ;;
    nic)
        [[ ! $device ]] || usage_error "one device at a time"
        [[ $1 =~ ^[A-Za-z0-9_.:@-]{1,15}$ && $1 != . && $1 != .. ]] || usage_error "'$1' is no name of a device"
        device=$1
        ;;
    *) usage_error "$command takes no operand '$1'" ;;
    esac
}

parse_value() {
    local option=$1 text=$2
    case $option in
    --profile) profile=$text ;;
    # The bounds keep every product of these within 64 bits.
    --connections) parse_count "$option" "$text" 1 1000000000 ;;
    --rate) parse_count "$option" "$text" 1 100000000 ;;
    --processes | --user-bytes | --kernel-bytes) parse_count "$option" "$text" 1 1000000 ;;
    --stall) parse_count "$option" "$text" 1 600000 ;;
    --reactors) parse_count "$option" "$text" 1 4096 ;;
    --active) parse_count "$option" "$text" 0 1000000000 ;;
    --headroom) parse_count "$option" "$text" 0 1000 ;;
    --memory)
        { parse_scaled "$text" 1024 && ((number >= 1048576)); } ||
            usage_error "--memory '$text' is no amount of memory such as 16G"
        given[memory]=$number
        ;;
    --bandwidth)
        { parse_scaled "$text" 1000 && ((number >= 1000 && number <= 10000000000000)); } ||
            usage_error "--bandwidth '$text' is no number of bits a second such as 10G"
        given[bandwidth]=$number
        ;;
    --rtt) parse_rtt "$text" ;;
    --format)
        [[ $text == text || $text == json ]] || usage_error "--format is text or json, not '$text'"
        format=$text
        ;;
    --root)
        [[ -d $text ]] || usage_error "--root '$text' is no folder"
        root=$(cd -- "$text" && pwd -P) || usage_error "--root '$text' cannot be entered"
        root=${root%/}
        ;;
    --state)
        [[ $text == /* && $text != / ]] || usage_error "--state '$text' is no path from the root"
        state_option=${text%/}
        ;;
    --knobs) knob_folder=$text ;;
    --pid)
        [[ $text =~ ^[1-9][0-9]{0,8}$ ]] || usage_error "--pid '$text' is no process"
        pid=$text
        ;;
    --unit)
        [[ $text =~ ^[A-Za-z0-9_@:.-]{1,200}\.service$ && $text != .* ]] ||
            usage_error "--unit '$text' is no name such as gateway.service"
        unit=$text
        ;;
    --user)
        [[ $text =~ ^[a-z_][a-z0-9_-]{0,31}$ ]] ||
            usage_error "--user '$text' is no name of one user: wildcards and groups are not taken"
        users+=("$text")
        ;;
    --from) measured_from=$text ;;
    esac
}

parse_count() {
    local option=$1 text=$2 least=$3 most=$4 name
    { is_number "$text" && ((text >= least && text <= most)); } ||
        usage_error "$option '$text' is not a whole number from $least to $most"
    name=${option#--}
    if [[ $name == stall ]]; then name=stall_ms; fi
    given[${name//-/_}]=$text
}

# Milliseconds with up to three decimals, kept as microseconds.
parse_rtt() {
    [[ $1 =~ ^([0-9]{1,5})(\.([0-9]{1,3}))?$ ]] || usage_error "--rtt '$1' is no number of milliseconds"
    local fraction=${BASH_REMATCH[3]}000
    given[rtt_us]=$((10#${BASH_REMATCH[1]} * 1000 + 10#${fraction:0:3}))
    ((given[rtt_us] > 0)) || usage_error "--rtt must be more than 0"
}

check_args() {
    if [[ $forget && ! $snapshot_name ]]; then usage_error "--forget needs the name of a SNAPSHOT"; fi
    if [[ $forget && $force ]]; then usage_error "--force and --forget exclude each other"; fi
    if [[ $command == nic && ! $device ]]; then usage_error "nic needs a DEVICE"; fi
    if [[ " ${takes[$command]} " == *" --profile "* && ! $profile ]]; then
        usage_error "$command needs --profile"
    fi
    if [[ ${given[active]-} && ${given[connections]-} ]] && ((given[active] > given[connections])); then
        usage_error "--active ${given[active]} is more than --connections ${given[connections]}"
    fi
    if [[ ${given[processes]-} && ${given[connections]-} ]] && ((given[processes] > given[connections])); then
        usage_error "--processes ${given[processes]} is more than --connections ${given[connections]}"
    fi
    if [[ $measured_from && ${given[user_bytes]-} ]]; then
        usage_error "--from and --user-bytes say the same"
    fi
}
