#!/usr/bin/env bash
# Where the threads of a process wait, and who wakes them: a table of threads with their waiting
# time, waits and wakers, and a flame graph (SVG) of the stacks in which they wait, by time. Reads
# the scheduler's tracepoints, so that nothing is sampled and short waits are seen.
#
# usage: perf/offcpu.sh FILE.svg PID
#        perf/offcpu.sh FILE.svg COMMAND ARGUMENT...         WARM: seconds before (2)
#        DURATION: seconds (3)
#
# Needs perf (linux-perf), python3, root and a kernel with tracepoints. Each switch costs a few
# microseconds while it runs; waits of a thread that doesn't run again before the end count to the
# end.
set -euo pipefail
cd "$(dirname "$0")/.."
. perf/tools.sh
[ $# -ge 2 ] || usage
svg=$1
shift
need perf linux-perf
need python3 python3
need_inferno
temporary=$(mktemp -d "${TMPDIR:-/tmp}/tapio-offcpu.XXXXXX")
dir=$temporary
process "$@"
threads=("/proc/$pid/task"/*)
switches= wakeups=
for thread in "${threads[@]##*/}"; do
    switches+="${switches:+ || }prev_pid == $thread || next_pid == $thread"
    wakeups+="${wakeups:+ || }pid == $thread"
done
perf record --quiet -a --call-graph dwarf,4096 -o "$dir/data" \
    -e sched:sched_switch --filter "$switches" -e sched:sched_waking --filter "$wakeups" \
    sleep "${DURATION:-3}" >/dev/null
perf script --no-inline -i "$dir/data" -F comm,tid,time,event,trace,ip,sym >"$dir/text" 2>/dev/null
python3 perf/offcpu.py "$dir/folded" "${threads[@]##*/}" <"$dir/text"
[ -s "$dir/folded" ] || { echo "offcpu.sh: no thread ran meanwhile: nothing to draw" >&2; exit 1; }
inferno-flamegraph --minwidth 0.5 --colors blue --countname us --title "waiting time" \
    "$dir/folded" >"$svg"
echo "$svg"
