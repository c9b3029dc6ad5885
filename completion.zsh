# Completes groups, options and keys of the commands; in a shell, after compinit:  source completion.zsh
#   python -m src.train dataset=<TAB>
_src_complete() {
    local module="${words[3]}" word="${words[CURRENT]}"
    if [[ ${words[2]} != -m || $module != src.* || $CURRENT -le 3 ]]; then
        _default
        return
    fi
    local query="train ${(j: :)words[4,CURRENT]}"
    local -a choices
    choices=(${(f)"$(COMP_LINE=$query COMP_POINT=${#query} ${words[1]} -m $module -sc query=bash 2>/dev/null)"})
    compadd -Q -S '' -- ${(M)choices:#${word}*}
}
compdef _src_complete python python3 .venv/bin/python
