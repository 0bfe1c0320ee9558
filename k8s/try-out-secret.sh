#!/bin/sh
# Makes the Secret with the passwords of the stores to try out, unless it is there: databases know no other password than
# the first one. Arguments are kubectl's, such as --namespace the-eye.
set -eu

name=the-eye-try-out

password() {
    LC_ALL=C tr -dc a-zA-Z0-9 </dev/urandom | head -c 32
}

if [ -n "$(kubectl "$@" get secret "$name" --ignore-not-found --output name)" ]; then
    echo "secret/$name is there"
    exit
fi
postgres=$(password)
valkey=$(password)
kubectl "$@" create -f - <<END
apiVersion: v1
kind: Secret
metadata:
  name: $name
type: Opaque
stringData:
  postgres-password: $postgres
  database-url: postgresql://the_eye:$postgres@the-eye-postgres:5432/the_eye
  valkey-password: $valkey
  valkey-auth.conf: requirepass $valkey
  redis-url: redis://:$valkey@the-eye-valkey:6379/0
END
