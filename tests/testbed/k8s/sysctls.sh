# Sourced in a node's own mount namespace. The kubelet would set these sysctls of the host; bind
# mounts show it the values that it expects instead.
# usage: . sysctls.sh ROOT     the node's root
i=0
for kv in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 \
  kernel/keys/root_maxbytes=25000000; do
  i=$((i + 1)); echo "${kv#*=}" >"$1/run/sysctl.$i"; mount --bind "$1/run/sysctl.$i" "$1/proc/sys/${kv%=*}"
done
