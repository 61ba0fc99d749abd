#!/usr/bin/env bash
# Ends the systemd of up.sh: the kernel kills the processes of a pid namespace with its PID 1.
#
# usage: down.sh STATE NAME
set -u
state=$1 cgroup=tapio-test-$2
pid=$(cat "$state/pid" 2>/dev/null) || exit 0
kill -9 "$pid" 2>/dev/null
for _ in $(seq 500); do
    [ -d "/proc/$pid" ] || break
    sleep 0.02
done
for folder in /sys/fs/cgroup/*/"$cgroup" "/sys/fs/cgroup/$cgroup"; do
    [ -d "$folder" ] && find "$folder" -depth -type d -exec rmdir {} \; 2>/dev/null
done
rm -f "$state/pid"
