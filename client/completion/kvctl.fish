# Completion of kvctl for fish. What there is to complete, kvctl says itself: see client/kvctl/complete.c.

function __kvctl_complete
    set -l words (commandline -opc)
    set -l program $words[1]
    set -e words[1]
    set -l lines (command $program __complete $words (commandline -ct) 2>/dev/null)
    for line in $lines
        if test "$line" = ":files"
            __fish_complete_path (commandline -ct)
        else
            printf '%s\n' $line
        end
    end
end

complete -c kvctl -f -a '(__kvctl_complete)'
