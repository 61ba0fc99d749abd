#!/usr/bin/env bash
# Where a process spends its CPU time, as a flame graph (SVG), each thread by its name. Samples the
# clock, so that it works without hardware counters, and unwinds by DWARF: release builds have no
# frame pointers.
#
# usage: perf/flamegraph.sh FILE.svg PID
#        perf/flamegraph.sh FILE.svg COMMAND ARGUMENT...     WARM: seconds before (2)
#        DURATION: seconds (10); HZ: samples a second of CPU time (199)
#
# Needs perf (linux-perf) and root or perf_event_paranoid below 2. Keeps FILE.folded beside it: one
# line a stack with its nanoseconds, for inferno-diff-folded.
set -euo pipefail
cd "$(dirname "$0")/.."
. perf/tools.sh
[ $# -ge 2 ] || usage
svg=$1
shift
need perf linux-perf
need_inferno
temporary=$(mktemp -d "${TMPDIR:-/tmp}/tapio-flamegraph.XXXXXX")
data=$temporary/data
process "$@"
folded=${svg%.svg}.folded
perf record --quiet -e cpu-clock -F "${HZ:-199}" --call-graph dwarf,16384 -p "$pid" -o "$data" \
    sleep "${DURATION:-10}" >/dev/null
# Names of inlined functions take minutes to find.
perf script --no-inline -i "$data" 2>/dev/null | inferno-collapse-perf 2>/dev/null |
    sed 's/;\[unknown\]//g' >"$folded"
# cpu-clock's samples have a weight in nanoseconds.
ms=$(awk '{ n += $NF } END { printf "%d", n / 1e6 }' "$folded")
# Frames narrower than half a percent don't show, and keep the file small.
inferno-flamegraph --minwidth 0.5 --countname ns --title "CPU time, $ms ms" "$folded" >"$svg"
echo "$svg: $ms ms of CPU time, by thread:"
awk '{ split($0, f, ";"); n[f[1]] += $NF } END { for (t in n) printf "%6.1f %%  %s\n", n[t] * 100 / (s + 1), t }' \
    s="${ms}e6" "$folded" | sort -rn
