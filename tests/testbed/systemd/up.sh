#!/usr/bin/env bash
# Boots a real systemd as PID 1 of its own namespaces. Prints its pid on the host.
#
# usage: up.sh STATE NAME unified|hybrid [UNITS [SETUP]]
#
#   STATE  an empty folder, for console.log, pid and unshare.pid
#   NAME   its host name, and that of its cgroup (tapio-test-NAME)
#   UNITS  a folder of unit files for /etc/systemd/system; may be empty
#   SETUP  a script that is sourced in the new root before the pivot, to install more there
#
# unified: /sys/fs/cgroup is cgroup2. hybrid: also version 1 controllers, where MemoryMax= works.
#
# The root is the host's, or the folder ROOTFS, through an overlay: files that the systemd writes,
# /tmp, /run and /var are its own and are removed with it. (On the host's root systemd-tmpfiles would
# empty /tmp.)
# down.sh ends it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
state=$1 name=$2 mode=$3 units=${4:-} setup=${5:-}
cgroup=tapio-test-$name
v1="systemd memory cpu cpuacct cpuset pids blkio devices freezer"
unified=/sys/fs/cgroup/unified
[ -d $unified ] || unified=/sys/fs/cgroup
[ -e "$unified/cgroup.procs" ] || { echo "no cgroup2 at $unified" >&2; exit 1; }

mkdir -p "$unified/$cgroup"
if [ "$mode" = hybrid ]; then
    for c in $v1; do
        [ -d "/sys/fs/cgroup/$c" ] || { echo "no cgroup v1 controller $c" >&2; exit 1; }
        mkdir -p "/sys/fs/cgroup/$c/$cgroup"
    done
    for f in cpus mems; do
        cat "/sys/fs/cgroup/cpuset/cpuset.$f" >"/sys/fs/cgroup/cpuset/$cgroup/cpuset.$f"
    done
fi
(
    # Enter the cgroups first, so that they are the root of the cgroup namespace.
    echo 0 >"$unified/$cgroup/cgroup.procs"
    if [ "$mode" = hybrid ]; then
        for c in $v1; do echo 0 >"/sys/fs/cgroup/$c/$cgroup/cgroup.procs"; done
    fi
    exec setsid unshare --mount --pid --uts --ipc --net --cgroup --fork --kill-child=KILL \
        bash "$here/inner.sh" "$state" "$name" "$mode" "$units" "$setup" </dev/null >"$state/console.log" 2>&1
) &
outer=$!
for _ in $(seq 500); do
    pid=$(tr -d ' ' 2>/dev/null <"/proc/$outer/task/$outer/children" || true)
    [ -n "$pid" ] && break
    sleep 0.01
done
[ -n "$pid" ] || { cat "$state/console.log" >&2; exit 1; }
# The waiting unshare leaves the cgroup: cgroup2 allows processes in leaves only.
echo $outer >$unified/cgroup.procs
if [ "$mode" = hybrid ]; then
    for c in $v1; do echo $outer >"/sys/fs/cgroup/$c/cgroup.procs"; done
fi
echo "$pid" >"$state/pid"
echo "$outer" >"$state/unshare.pid"
# Ready when the bus's socket exists and the boot transaction is done.
seen=/proc/$pid/root
for _ in $(seq 3000); do
    [ -S "$seen/run/dbus/system_bus_socket" ] && [ -e "$seen/run/lab-ready" ] && {
        echo "$pid"
        exit 0
    }
    [ -d "/proc/$pid" ] || { echo "systemd ended:" >&2; tail -20 "$state/console.log" >&2; exit 1; }
    sleep 0.02
done
echo "systemd isn't ready:" >&2
tail -30 "$state/console.log" >&2
exit 1
