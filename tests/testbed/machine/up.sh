#!/usr/bin/env bash
# A node that is a machine of its own, `lab-node`: a real systemd (tests/testbed/systemd, hybrid) whose units are Debian's containerd.service
# and nginx.service and a kubelet.service, joined to the API server of ../k8s/up.sh. None of them is started: that is the test's to do
# with systemctl. Everything the machine writes is its own and goes with it. down.sh ends it. Prints the host's pid of its PID 1.
# usage: up.sh NAME PORT TAPIO_CNI     NAME is its host name; TAPIO_CNI the plugin to put last in the chain
. "$(dirname "$0")/../k8s/lib.sh"
NAME=$1 PORT=$2 V=$STATE/machine
mkdir -p "$V/kubelet" "$V/containerd"
images
export HERE TESTBED STATE OPT PORT TAPIO_CNI=$3 V
pid=$("$HERE/../systemd/up.sh" "$V" "$NAME" hybrid "" "$HERE/../machine/setup.sh") || { tail -30 "$V/console.log" >&2; exit 1; }
# The API server listens on the host's loopback, which the machine doesn't share.
rm -f "$V/api.sock"
export LD_LIBRARY_PATH=$OPT/socat/usr/lib/x86_64-linux-gnu PATH=$OPT/socat/usr/bin:$PATH
setsid socat "UNIX-LISTEN:$V/api.sock,fork" "TCP:127.0.0.1:$PORT" </dev/null >/dev/null 2>&1 & echo $! >"$V/proxy.pid"
setsid nsenter -t "$pid" -n socat "TCP-LISTEN:$PORT,fork,reuseaddr,bind=127.0.0.1" "UNIX-CONNECT:$V/api.sock" </dev/null >/dev/null 2>&1 &
echo $! >"$V/proxy-inside.pid"
echo "$pid"
