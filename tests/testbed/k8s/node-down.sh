#!/usr/bin/env bash
# Ends the processes of node-up.sh, each by its pid, and removes its cgroups.
. "$(dirname "$0")/lib.sh"
V=$STATE/node CG=tapio-testbed
set +e
end() { [ ! -e "$V/$1.pid" ] || kill -9 "$(cat "$V/$1.pid")" 2>/dev/null; }
end kubelet; sleep 0.3
find "/sys/fs/cgroup/memory/$CG" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u | while read -r p; do kill -9 "$p" 2>/dev/null; done
end containerd; end ns; end proxy
# The remaining processes of the node's mount namespace: shims, socat.
ns=$(cat "$V/mntns" 2>/dev/null)
[ -z "$ns" ] || [ "$ns" = "$(readlink /proc/self/ns/mnt)" ] || for q in /proc/[0-9]*; do
  [ "$(readlink "$q/ns/mnt" 2>/dev/null)" = "$ns" ] && kill -9 "${q#/proc/}" 2>/dev/null
done
sleep 0.5
for c in memory cpu cpuacct cpuset pids blkio devices freezer systemd unified hugetlb; do
  find "/sys/fs/cgroup/$c/$CG" -depth -type d -exec rmdir {} \; 2>/dev/null
done
rm -rf "$V"
exit 0
