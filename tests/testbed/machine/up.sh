#!/usr/bin/env bash
# Boots the node `lab-node` as a machine of its own: a real systemd (tests/testbed/systemd, hybrid)
# with Debian's containerd.service and nginx.service and a kubelet.service as units, joined to the
# API server of ../k8s/up.sh. The units aren't started; the test does so with systemctl. Files that
# the machine writes are its own and are removed with it. Prints the pid of its PID 1 on the host.
# down.sh ends it.
# usage: up.sh NAME PORT TAPIO_CNI     NAME: its host name; TAPIO_CNI: the last plugin of the chain
. "$(dirname "$0")/../k8s/lib.sh"
NAME=$1 PORT=$2 V=$STATE/machine
mkdir -p "$V/kubelet" "$V/containerd"
images
export HERE TESTBED STATE OPT PORT TAPIO_CNI=$3 V
pid=$("$HERE/../systemd/up.sh" "$V" "$NAME" hybrid "" "$HERE/../machine/setup.sh") || { tail -30 "$V/console.log" >&2; exit 1; }
# The API server listens on the host's loopback, which the machine can't reach.
rm -f "$V/api.sock"
export LD_LIBRARY_PATH=$OPT/socat/usr/lib/x86_64-linux-gnu PATH=$OPT/socat/usr/bin:$PATH
setsid socat "UNIX-LISTEN:$V/api.sock,fork" "TCP:127.0.0.1:$PORT" </dev/null >/dev/null 2>&1 & echo $! >"$V/proxy.pid"
setsid nsenter -t "$pid" -n socat "TCP-LISTEN:$PORT,fork,reuseaddr,bind=127.0.0.1" "UNIX-CONNECT:$V/api.sock" </dev/null >/dev/null 2>&1 &
echo $! >"$V/proxy-inside.pid"
echo "$pid"
