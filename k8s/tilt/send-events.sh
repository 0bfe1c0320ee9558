#!/bin/sh
# Sends the sample events as the application `tilt`, to the API that Tilt leads to localhost:8000 or to an address that
# is given.
set -eu

api=${1:-http://localhost:8000}
events=$(dirname "$0")/../sample-events.ndjson

the_eye() {
    kubectl --namespace the-eye exec deployment/the-eye-api -- the-eye "$@"
}

the_eye application list --output json | grep -q '"name": *"tilt"' || the_eye application create tilt
said=$(mktemp)
token=$(the_eye token create --application tilt --scope ingest 2>"$said") || { cat "$said" >&2; exit 1; }
id=$(sed -n 's/^token \([0-9]*\) of .*/\1/p' "$said")
rm "$said"
trap 'the_eye token revoke "$id"' EXIT

sleep 4 # the API reads its tokens every three seconds
curl --silent --show-error --fail-with-body --request POST "$api/events/batch" \
    --header "Authorization: Bearer $token" --header 'Content-Type: application/x-ndjson' --data-binary "@$events"
