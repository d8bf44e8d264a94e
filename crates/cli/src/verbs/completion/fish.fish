# Completion of PROGRAM in fish: PROGRAM completion fish | source
function __PROGRAM_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l found ($words[1] __complete $words[2..] "$current" 2>/dev/null)
    test (count $found) -gt 0; or return
    set -l directive (string sub -s 2 -- $found[-1])
    set -e found[-1]
    # fish replaces the whole word, with the flag that stands before a value.
    set -l start (string match -r -- '^-[^=]*=' "$current")
    if test (count $found) -eq 0; and test "$directive" = 0
        __fish_complete_path "$current"
    end
    for line in $found
        echo -- "$start$line"
    end
end
complete -c PROGRAM -f -a '(__PROGRAM_complete)'
