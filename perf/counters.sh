#!/usr/bin/env bash
# Instructions, cache misses and branch misses of a process, where the machine has hardware
# counters; most virtual machines have none, and this says so. Without them callgrind counts
# instructions (perf/instructions.sh), and can simulate caches and branches:
# `valgrind --tool=cachegrind --cache-sim=yes --branch-sim=yes`.
#
# usage: perf/counters.sh PID
#        perf/counters.sh COMMAND ARGUMENT...                WARM: seconds before (2)
#        DURATION: seconds (10)
#
# Needs perf (linux-perf) and root or perf_event_paranoid below 2.
set -euo pipefail
cd "$(dirname "$0")/.."
. perf/tools.sh
[ $# -ge 1 ] || usage
need perf linux-perf
if perf stat -x, -e instructions true 2>&1 | grep -q 'not supported'; then
    echo "counters: this machine has no hardware counters: $(grep -c '^processor' /proc/cpuinfo) × \
$(sed -n 's/^model name\t*: //p' /proc/cpuinfo | head -1)$(
        grep -q '^flags.* hypervisor' /proc/cpuinfo && echo ', a virtual machine')" >&2
    exit 3
fi
process "$@"
perf stat -d -e task-clock,context-switches,page-faults,cycles,instructions,branches,branch-misses \
    -e cache-references,cache-misses --per-thread -p "$pid" sleep "${DURATION:-10}"
