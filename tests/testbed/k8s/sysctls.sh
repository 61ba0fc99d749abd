# Sourced in a mount namespace of a node's own. The kubelet sets these sysctls, which are the machine's: it is shown the values it wants
# instead. usage: . sysctls.sh ROOT     the node's root
i=0
for kv in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 \
  kernel/keys/root_maxbytes=25000000; do
  i=$((i + 1)); echo "${kv#*=}" >"$1/run/sysctl.$i"; mount --bind "$1/run/sysctl.$i" "$1/proc/sys/${kv%=*}"
done
