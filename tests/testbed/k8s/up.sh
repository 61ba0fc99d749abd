#!/usr/bin/env bash
# Starts a real etcd and kube-apiserver 1.20 on loopback. Prints the path of a kubeconfig with the
# contexts `admin` and `agent` (a service account, at first without permissions).
# usage: [APISERVER_EXTRA=...] up.sh PORT     etcd uses the two ports after it
. "$(dirname "$0")/lib.sh"
PORT=$1 ETCD_PORT=$((PORT + 1)) PEER_PORT=$((PORT + 2))
V=$STATE
rm -rf "$V/etcd"; mkdir -p "$V/etcd" "$V/pki"; chmod 700 "$V"
if [ ! -e "$V/pki/srv.crt" ]; then
  cd "$V/pki"
  openssl genrsa -out sa.key 2048 2>/dev/null; openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
  openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -keyout ca.key -out ca.crt -subj /CN=testbed-ca 2>/dev/null
  openssl req -newkey rsa:2048 -nodes -keyout srv.key -out srv.csr -subj /CN=kube-apiserver 2>/dev/null
  openssl x509 -req -in srv.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out srv.crt \
    -extfile <(echo "subjectAltName=IP:127.0.0.1,DNS:localhost,IP:10.96.0.1") 2>/dev/null
fi
cat >"$V/tokens.csv" <<T
testbed-admin,admin,admin-uid,system:masters
testbed-agent,system:serviceaccount:kube-system:tapio,agent-uid,"system:serviceaccounts,system:authenticated"
T
cat >"$V/kubeconfig" <<Y
apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "https://127.0.0.1:$PORT", certificate-authority: $V/pki/ca.crt}}]
users: [{name: admin, user: {token: testbed-admin}}, {name: agent, user: {token: testbed-agent}}]
contexts: [{name: admin, context: {cluster: lab, user: admin}}, {name: agent, context: {cluster: lab, user: agent}}]
current-context: admin
Y
setsid "$OPT/etcd/usr/bin/etcd" --name lab --data-dir "$V/etcd" --unsafe-no-fsync --log-level=error \
  --listen-client-urls "http://127.0.0.1:$ETCD_PORT" --advertise-client-urls "http://127.0.0.1:$ETCD_PORT" \
  --listen-peer-urls "http://127.0.0.1:$PEER_PORT" --initial-advertise-peer-urls "http://127.0.0.1:$PEER_PORT" \
  --initial-cluster "lab=http://127.0.0.1:$PEER_PORT" </dev/null >"$V/etcd.log" 2>&1 &
echo $! >"$V/etcd.pid"
"$HERE/apiserver.sh" "$PORT"
echo "$V/kubeconfig"
