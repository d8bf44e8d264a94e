# Completion of PROGRAM in bash: source <(PROGRAM completion bash)
__PROGRAM_complete() {
    local line=${COMP_LINE:0:COMP_POINT} found directive start candidate
    local -a words
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    found=$("${words[0]}" __completeNoDesc "${words[@]:1}" 2>/dev/null) || return
    directive=${found##*:}
    found=${found%:*}
    # bash replaces what follows the last of its word breaks.
    start=${words[-1]}
    [[ $start == -*=* ]] && start=${start#*=}
    COMPREPLY=()
    while IFS= read -r candidate; do
        [[ -n $candidate && $candidate == "$start"* ]] && COMPREPLY+=("$candidate")
    done <<<"$found"
    if [[ $start == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${start%:*}:"}")
    fi
    ((directive & 4)) && compopt +o default
    ((directive & 2)) && compopt -o nospace
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[/:] ]] && compopt -o nospace
    return 0
}
complete -o default -F __PROGRAM_complete PROGRAM
