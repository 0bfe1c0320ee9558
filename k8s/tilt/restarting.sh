# shellcheck shell=sh
# Runs a command on sources that can be changed, and again each time it ends: SOURCES DIRECTORY COMMAND...
# The directory gets a copy of the sources, and in .pid the number of the process to end after they were changed.
set -u

sources=$1
directory=$2
shift 2

# With its time each file goes on with the bytecode that was made of it.
cp -Rp "$sources/." "$directory"

child=
stopping=
trap 'stopping=yes; kill -TERM "$child"' TERM INT
while [ -z "$stopping" ]; do
    "$@" &
    child=$!
    echo "$child" >"$directory/.pid"
    wait "$child"
    # One that fails at once is not started again at once.
    [ -n "$stopping" ] || sleep 1
done
wait "$child"
