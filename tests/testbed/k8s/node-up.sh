#!/usr/bin/env bash
# A real node `lab-node`: kubelet 1.20, containerd 1.6 (CRI, runc) and CNI plugins, joined to the
# API server of up.sh. It has its own mount and network namespace, so that bridge, /run,
# /var/lib/cni and sysctls of the host aren't changed, and the host's pid namespace and cgroups,
# below /tapio-testbed.
# usage: node-up.sh PORT
. "$(dirname "$0")/lib.sh"
PORT=$1 V=$STATE/node CG=tapio-testbed
mkdir -p "$V"
export LD_LIBRARY_PATH=$OPT/socat/usr/lib/x86_64-linux-gnu PATH=$OPT/socat/usr/bin:$PATH
kubectl() { "$OPT/kubectl/usr/bin/kubectl" --kubeconfig "$STATE/kubeconfig" "$@"; }

if [ "${2:-}" != inside ]; then
  for c in memory cpu cpuacct cpuset pids blkio devices freezer systemd unified hugetlb; do
    [ ! -d "/sys/fs/cgroup/$c" ] || mkdir -p "/sys/fs/cgroup/$c/$CG"
  done
  for f in cpus mems; do cat "/sys/fs/cgroup/cpuset/cpuset.$f" >"/sys/fs/cgroup/cpuset/$CG/cpuset.$f"; done
  images
  rm -f "$V/api.sock"
  setsid socat "UNIX-LISTEN:$V/api.sock,fork" "TCP:127.0.0.1:$PORT" </dev/null >/dev/null 2>&1 & echo $! >"$V/proxy.pid"
  setsid unshare -m -n --propagation private bash "$0" "$PORT" inside </dev/null >"$V/node.log" 2>&1 & echo $! >"$V/ns.pid"
  for _ in $(seq 600); do
    kubectl get node lab-node 2>/dev/null | grep -q ' Ready' && { echo "node ready"; exit 0; }
    sleep 0.2
  done
  echo "the node isn't ready after 120 s"; tail -5 "$V/node.log" "$V/containerd.log"; grep -E '^[EF]' "$V/kubelet.log" | tail -15
  exit 1
fi

CD=$OPT/containerd; export PATH=$CD/usr/bin:$CD/usr/sbin:$PATH
readlink /proc/self/ns/mnt >"$V/mntns"
ip link set lo up
ip link add node0 type bridge; ip addr add 10.200.0.2/24 dev node0; ip link set node0 up; ip route add default via 10.200.0.1 dev node0
sysctl -qw net.ipv4.ip_forward=1
# The state folder must not be below any of these.
mount -t tmpfs tmpfs /run; mkdir -p /run/lock /run/netns
for d in /var/lib/cni /etc/cni /var/log/pods /var/log/containers; do mkdir -p "$d"; mount -t tmpfs tmpfs "$d"; done
mkdir -p /etc/cni/net.d /run/cni-bin
. "$HERE/sysctls.sh" ""
. "$HERE/node-config.sh"
network_config "" >/etc/cni/net.d/10-lab.conflist
cp "$OPT"/cni/usr/lib/cni/* /run/cni-bin/
socat "TCP-LISTEN:$PORT,fork,reuseaddr,bind=127.0.0.1" "UNIX-CONNECT:$V/api.sock" &
cat >"$V/containerd.toml" <<T
version = 2
root = "$V/containerd-root"
state = "/run/containerd-lab"
[grpc]
  address = "$V/containerd.sock"
$(cri_config /run/cni-bin)
T
containerd --config "$V/containerd.toml" >"$V/containerd.log" 2>&1 & echo $! >"$V/containerd.pid"
for _ in $(seq 400); do ctr -a "$V/containerd.sock" version >/dev/null 2>&1 && break; sleep 0.05; done
for image in pause app; do ctr -a "$V/containerd.sock" -n k8s.io images import --snapshotter native "$TESTBED/$image.tar"; done
kubelet_config "cgroupRoot: /$CG" >"$V/kubelet.yaml"
"$BIN/kubelet" --config="$V/kubelet.yaml" --kubeconfig="$STATE/kubeconfig" --container-runtime=remote \
  --container-runtime-endpoint="unix://$V/containerd.sock" --root-dir="$V/kubelet" --hostname-override=lab-node \
  --cert-dir="$V/kubelet-pki" --register-node=true --node-ip=10.200.0.2 --v=2 >"$V/kubelet.log" 2>&1 & echo $! >"$V/kubelet.pid"
wait
