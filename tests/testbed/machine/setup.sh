# Sourced in the machine's new root before the pivot (../systemd/inner.sh): installs its software.
#
# Programs are the host's files, mounted at /opt/testbed. Only files that the machine changes are
# copied.
: >etc/resolv.conf # inherited by pods
mkdir -p opt/testbed opt/cni/bin var/www/html var/lib/kubelet var/lib/containerd var/lib/nginx var/log/nginx etc/containerd etc/cni/net.d run/tapio
mount --bind "$TESTBED" opt/testbed
mount -o remount,bind,ro opt/testbed
# cAdvisor needs a disk below these.
mount --bind "$V/kubelet" var/lib/kubelet
mount --bind "$V/containerd" var/lib/containerd
mknod -m 600 dev/kmsg c 1 11 # the kubelet reads OOM kills from it
for program in containerd containerd-shim-runc-v2 ctr runc; do
    ln -sf "/opt/testbed/opt/containerd/usr/bin/$program" "usr/bin/$program"
done
ln -sf /opt/testbed/opt/containerd/usr/sbin/runc usr/sbin/runc
cp "$OPT"/cni/usr/lib/cni/{bridge,host-local,loopback} opt/cni/bin/
cp "$TAPIO_CNI" opt/cni/bin/tapio-cni
# Files of Debian's packages; /lib is a link in this root.
cp "$OPT/containerd/lib/systemd/system/containerd.service" "$OPT/nginx/lib/systemd/system/nginx.service" usr/lib/systemd/system/
cp -r "$OPT/nginx/etc/nginx" etc/
cp "$OPT/nginx/usr/sbin/nginx" usr/sbin/
cp "$OPT/nginx/usr/share/nginx/html/index.html" var/www/html/
ln -sf /etc/nginx/sites-available/default etc/nginx/sites-enabled/default
cat >>etc/systemd/journald.conf.d/lab.conf <<J
ReadKMsg=no
J
. "$HERE/node-config.sh"
{ echo 'version = 2'; cri_config /opt/cni/bin; } >etc/containerd/config.toml
network_config ', {"type":"tapio-cni"}' >etc/cni/net.d/10-lab.conflist
cp "$STATE/kubeconfig" etc/kubeconfig
cp "$STATE/pki/ca.crt" etc/kubeconfig-ca.crt
sed -i "s|$STATE/pki/ca.crt|/etc/kubeconfig-ca.crt|" etc/kubeconfig
kubelet_config 'clusterDNS: [10.96.0.10]
clusterDomain: cluster.local' >etc/kubelet.yaml
cat >usr/lib/systemd/system/kubelet.service <<U
[Unit]
Description=kubelet: The Kubernetes Node Agent
After=containerd.service
[Service]
ExecStart=/opt/testbed/bin/kubelet --config=/etc/kubelet.yaml --kubeconfig=/etc/kubeconfig --container-runtime=remote --container-runtime-endpoint=unix:///run/containerd/containerd.sock --hostname-override=lab-node --register-node=true --node-ip=10.200.0.2 --v=2
Restart=always
RestartSec=10
U
# Always fails, independently of the rest of the node.
cat >usr/lib/systemd/system/unrelated.service <<U
[Unit]
Description=A nightly report
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo "report: error: no such table: sales" >&2; exit 4'
U
. "$HERE/sysctls.sh" .
ip link set lo up
ip link add node0 type bridge
ip addr add 10.200.0.2/24 dev node0
ip link set node0 up
ip route add default via 10.200.0.1 dev node0
sysctl -qw net.ipv4.ip_forward=1
