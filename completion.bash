# Completes groups, options and keys of the commands; in a shell:  source completion.bash
#   python -m src.train dataset=<TAB>
_src_complete() {
    local line="${COMP_LINE:0:COMP_POINT}"
    [[ $line =~ -m\ +(src\.[a-z_]+)\ +(.*)$ ]] || return 0
    local word="${line##* }" query="train ${BASH_REMATCH[2]}" choices
    choices=$(COMP_LINE="$query" COMP_POINT=${#query} \
        "${COMP_WORDS[0]}" -m "${BASH_REMATCH[1]}" -sc query=bash 2>/dev/null)
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
    # Bash completes what follows the last "=" alone
    if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%=*}"=}")
    fi
}
complete -o nospace -o default -F _src_complete python python3 .venv/bin/python
