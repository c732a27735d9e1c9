# Completion of kvctl for bash. What there is to complete, kvctl says itself: see client/kvctl/complete.c.

_kvctl() {
    local left=${COMP_LINE:0:COMP_POINT} program word candidate prefix i
    local -a words=()

    # bash cuts words at = and :, which are within words of kvctl: join those without a blank between them.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ ${#words[@]} -eq 0 || $left == [[:blank:]]* ]]; then
            words+=("")
            left=${left#"${left%%[![:blank:]]*}"}
        fi
        # The word may go on behind the cursor.
        ((i < COMP_CWORD)) || word=$left
        words[-1]+=$word
        left=${left#"$word"}
    done
    COMPREPLY=()
    program=$(type -P -- "${words[0]}") || return 0
    # Readline replaces only what comes after the last = or :.
    word=${words[-1]}
    prefix=${word%"${word##*["$COMP_WORDBREAKS"]}"}
    while IFS= read -r candidate; do
        candidate=${candidate%%$'\t'*}
        if [[ $candidate == :files ]]; then
            if ((${#COMPREPLY[@]} == 0)); then
                compopt -o default 2>/dev/null
                return 0
            fi
            compopt -o filenames 2>/dev/null
            while IFS= read -r candidate; do
                COMPREPLY+=("${candidate#"$prefix"}")
            done < <(compgen -f -- "$word")
            return 0
        fi
        # A KEY= waits for its value.
        [[ $candidate != *= ]] || compopt -o nospace 2>/dev/null
        COMPREPLY+=("${candidate#"$prefix"}")
    done < <("$program" __complete "${words[@]:1}" 2>/dev/null)
}

complete -F _kvctl kvctl
