#!/bin/sh
# Usage: requirements/install.sh NAME PIP...
# Installs requirements/NAME.txt with the command PIP, on one line that a terminal sees grow where pip prints hundreds.
# pip's warnings, such as retries without a network, show at once; all that it said shows when it fails.
set -eu

file=requirements/$1.txt
shift
total=$(grep '==' "$file" | grep -vc "sys_platform == 'win32'")
log=$(mktemp)
trap 'rm -f "$log"' EXIT

show() {
    if [ -t 1 ]; then printf '\r\033[K%s' "$1"; fi
}

follow() {
    count=0
    while IFS= read -r line; do
        printf '%s\n' "$line" >>"$log"
        case $line in
            'Collecting '* | 'Requirement already satisfied: '*)
                count=$((count + 1)) package=${line#*: } package=${package#Collecting } package=${package%% *}
                show "Installing $file: $count of $total, $package"
                ;;
            'Installing collected packages: '*) show "Installing $file: unpacking" ;;
            'WARNING: '*) printf '\n%s\n' "$line" >&2 ;;
            'pip failed') return 1 ;;
        esac
    done
}

if [ -t 1 ]; then show "Installing $file"; else echo "Installing $file"; fi
if { "$@" install --require-hashes --only-binary :all: -r "$file" 2>&1 || echo 'pip failed'; } | follow; then
    if [ -t 1 ]; then show "Installed $file" && echo; fi
else
    printf '\n' >&2
    sed '$d' "$log" >&2
    exit 1
fi
