# Sourced by node-up.sh and ../machine/setup.sh: the configuration files that all nodes share.

# containerd's CRI. $1: the folder of the CNI plugins.
cri_config() {
  cat <<T
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/lab/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$1"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
T
}

# The network of the pods. $1: further plugins of the chain, as JSON, each with a leading comma.
network_config() {
  cat <<J
{"cniVersion":"0.4.0","name":"labnet","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":false,
  "ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}}$1]}
J
}

# The kubelet's configuration. $1: further lines.
kubelet_config() {
  cat <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
failSwapOn: false
makeIPTablesUtilChains: false
oomScoreAdj: 0
address: 127.0.0.1
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
syncFrequency: 5s
nodeStatusUpdateFrequency: 5s
evictionHard: {memory.available: "50Mi"}
$1
Y
}
