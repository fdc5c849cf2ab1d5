# Given to the tool as BASH_ENV: ends it at the chosen write to the host, by the chosen signal, before or after the
# bytes are handed over. The tool itself has no such switch.
# shellcheck shell=bash disable=SC2059

writes=0

printf() {
    if [[ ${FUNCNAME[1]-} != write_value ]]; then
        builtin printf "$@"
        return
    fi
    writes=$((writes + 1))
    if [[ $writes -eq $KILL_AT && $KILL_WHEN == before ]]; then kill -s "$KILL_SIGNAL" $$; fi
    builtin printf "$@" || return
    if [[ $writes -eq $KILL_AT && $KILL_WHEN == after ]]; then kill -s "$KILL_SIGNAL" $$; fi
}
