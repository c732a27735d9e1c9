# Completion of kvctl for fish. What there is to complete, kvctl says itself: see client/kvctl/complete.c.

function __kvctl_complete
    set -l words (commandline -opc)
    set -l program $words[1]
    set -e words[1]
    set -l lines (command $program __complete $words (commandline -ct) 2>/dev/null)
    if test "$lines[1]" = ":files"
        __fish_complete_path (commandline -ct)
        return
    end
    test (count $lines) -eq 0; or printf '%s\n' $lines
end

complete -c kvctl -f -a '(__kvctl_complete)'
