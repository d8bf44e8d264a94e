#compdef PROGRAM
# Completion of PROGRAM in zsh: source <(PROGRAM completion zsh), or as the file _PROGRAM in a folder of $fpath
_PROGRAM() {
    local line directive word
    local -a found candidates
    found=("${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    directive=${found[-1]#:}
    for line in "${(@)found[1,-2]}"; do
        word=${line%%$'\t'*}
        word=${word//:/\\:}
        [[ $line == *$'\t'* ]] && word+=":${line#*$'\t'}"
        candidates+=("$word")
    done
    [[ ${words[CURRENT]} == -*=* ]] && compset -P '*='
    if ((${#candidates})); then
        if ((directive & 2)); then
            _describe PROGRAM candidates -S ''
        else
            _describe PROGRAM candidates
        fi
    elif ((!(directive & 4))); then
        _files
    fi
}
if [[ ${funcstack[1]} == _PROGRAM ]]; then
    _PROGRAM
else
    compdef _PROGRAM PROGRAM
fi
