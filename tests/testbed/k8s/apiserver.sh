#!/usr/bin/env bash
# Starts or restarts the kube-apiserver of up.sh, and waits until it is ready.
# usage: [APISERVER_EXTRA=...] apiserver.sh PORT
. "$(dirname "$0")/lib.sh"
PORT=$1 V=$STATE
for _ in $(seq 250); do curl -sf "http://127.0.0.1:$((PORT + 1))/health" >/dev/null 2>&1 && break; sleep 0.02; done
# shellcheck disable=SC2086 # flags are words
setsid "$BIN/kube-apiserver" --etcd-servers="http://127.0.0.1:$((PORT + 1))" --bind-address=127.0.0.1 --secure-port="$PORT" \
  --advertise-address=127.0.0.1 --insecure-port=0 --tls-cert-file="$V/pki/srv.crt" --tls-private-key-file="$V/pki/srv.key" \
  --client-ca-file="$V/pki/ca.crt" --token-auth-file="$V/tokens.csv" --service-account-issuer=https://kubernetes.default.svc \
  --service-account-key-file="$V/pki/sa.pub" --service-account-signing-key-file="$V/pki/sa.key" --api-audiences=kubernetes \
  --authorization-mode=RBAC --service-cluster-ip-range=10.96.0.0/16 --allow-privileged=true \
  --disable-admission-plugins=ServiceAccount,TaintNodesByCondition --event-ttl=1h --cert-dir="$V/pki" \
  --max-requests-inflight=4000 --max-mutating-requests-inflight=2000 \
  ${APISERVER_EXTRA:-} </dev/null >"$V/apiserver.log" 2>&1 &
echo $! >"$V/apiserver.pid"
for _ in $(seq 900); do
  curl -sf --cacert "$V/pki/ca.crt" -H 'Authorization: Bearer testbed-admin' "https://127.0.0.1:$PORT/readyz" >/dev/null 2>&1 && exit 0
  [ -d "/proc/$(cat "$V/apiserver.pid")" ] || { tail -20 "$V/apiserver.log" >&2; exit 1; }
  sleep 0.1
done
echo "the API server isn't ready after 90 s" >&2; exit 1
