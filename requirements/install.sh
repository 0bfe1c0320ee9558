#!/bin/sh
# Usage: requirements/install.sh NAME PIP...
# Installs requirements/NAME.txt with the command PIP, on one line that a terminal sees grow where pip prints hundreds.
# pip's warnings, such as retries without a network, show at once; the rest of what it said shows when it fails.
set -eu

file=requirements/$1.txt
shift
total=$(grep '==' "$file" | grep -vc "sys_platform == 'win32'")
log=$(mktemp)
trap 'rm -f "$log"' EXIT

show() { if [ -t 1 ]; then printf '\r\033[K%s' "$1"; fi; }
end_line() { if [ -t 1 ]; then echo; fi; }

follow() {
    count=0
    while IFS= read -r line; do
        case $line in
            'Collecting '* | 'Requirement already satisfied: '*)
                count=$((count + 1)) package=${line#*: } package=${package#Collecting } package=${package%% *}
                show "Installing $file: $count of $total, $package"
                ;;
            'Installing collected packages: '*) show "Installing $file: unpacking" ;;
            'WARNING: '*) end_line && printf '%s\n' "$line" >&2 && continue ;;
            'pip failed') return 1 ;;
        esac
        printf '%s\n' "$line" >>"$log"
    done
}

if [ -t 1 ]; then show "Installing $file"; else echo "Installing $file"; fi
if { "$@" install --require-hashes --only-binary :all: -r "$file" 2>&1 || echo 'pip failed'; } | follow; then
    show "Installed $file" && end_line
else
    end_line && cat "$log" >&2
    exit 1
fi
