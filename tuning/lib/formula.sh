# A calculator for the formulas of the tables: whole numbers, + - * / % ( ), min max ceil pow2, and the names
# in `vars`. What is in a table is never run by the shell.
# shellcheck shell=bash disable=SC2034,SC2154

# Name to value. Filled by host.sh and args.sh.
declare -A vars=()

# Too large for what we reckon with: every result stays below it, so that no product wraps.
readonly formula_limit=4611686018427387904

# Sets `result` to the value of a formula and `filled` to the formula with the numbers in place of the names.
# On failure sets `formula_error`.
formula() {
    formula_text=$1 filled='' formula_error=''
    formula_depth=0
    formula_next || return 1
    formula_sum || return 1
    if [[ $token ]]; then
        formula_fail "'$token' is not expected here"
        return 1
    fi
}

formula_fail() {
    formula_error=${formula_error:-$1}
    return 1
}

# Sets `token` to the next token, empty at the end.
formula_next() {
    if [[ $formula_text =~ ^([0-9]+|[a-z][a-z0-9_]*|[-+*/%(),]) ]]; then
        token=${BASH_REMATCH[1]}
        formula_text=${formula_text:${#token}}
    elif [[ ! $formula_text ]]; then
        token=
    else
        formula_fail "cannot read '${formula_text:0:16}'"
    fi
}

formula_take() {
    filled+=$token
    formula_next
}

formula_expect() {
    [[ $token == "$1" ]] || formula_fail "expected '$1'" || return 1
    formula_take
}

formula_sum() {
    local left operator
    formula_product || return 1
    left=$result
    while [[ $token == [-+] ]]; do
        operator=$token
        formula_take && formula_product || return 1
        formula_reckon "$left" "$operator" "$result" || return 1
        left=$result
    done
}

formula_product() {
    local left operator
    formula_value || return 1
    left=$result
    while [[ $token == [*/%] ]]; do
        operator=$token
        formula_take && formula_value || return 1
        formula_reckon "$left" "$operator" "$result" || return 1
        left=$result
    done
}

# formula_reckon LEFT OPERATOR RIGHT, all of them checked before.
formula_reckon() {
    local left=$1 right=$3
    case $2 in
    +) result=$((left + right)) ;;
    -) result=$((left > right ? left - right : 0)) ;;
    '*')
        if ((right > 0 && left > formula_limit / right)); then
            formula_fail "$left * $right is too large"
            return 1
        fi
        result=$((left * right))
        ;;
    *)
        if ((right == 0)); then
            formula_fail "division by zero"
            return 1
        fi
        if [[ $2 == / ]]; then result=$((left / right)); else result=$((left % right)); fi
        ;;
    esac
    ((result <= formula_limit)) || formula_fail "too large"
}

formula_value() {
    local name=$token
    if ((++formula_depth > 64)); then
        formula_fail "too deep"
        return 1
    fi
    if is_number "$token"; then
        result=$token
        formula_take
    elif [[ $token == '(' ]]; then
        formula_take && formula_sum && formula_expect ')'
    elif [[ $token == [a-z]* && $formula_text == '('* ]]; then
        formula_call "$name"
    elif [[ $token == [a-z]* && ${vars[$name]+set} ]]; then
        if ! is_number "${vars[$name]}"; then
            formula_fail "$name is not known on this host"
            return 1
        fi
        result=${vars[$name]}
        filled+=$result
        formula_next
    else
        formula_fail "unknown name '$token'"
    fi
}

formula_call() {
    local first
    formula_take && formula_take && formula_sum || return 1
    first=$result
    case $1 in
    min | max | ceil)
        formula_expect , && formula_sum || return 1
        case $1 in
        min) result=$((first < result ? first : result)) ;;
        max) result=$((first > result ? first : result)) ;;
        ceil)
            if ((result == 0)); then
                formula_fail "division by zero"
                return 1
            fi
            result=$(((first + result - 1) / result))
            ;;
        esac
        ;;
    pow2)
        local power=1
        while ((power < first)); do power=$((power * 2)); done
        result=$power
        ;;
    *)
        formula_fail "unknown function '$1'"
        return 1
        ;;
    esac
    local kept=$result
    formula_expect ')' || return 1
    result=$kept
}
