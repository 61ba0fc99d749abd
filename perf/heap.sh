#!/usr/bin/env bash
# What a command has on the heap at its peak, and where it allocates: a flame graph (SVG) of each. heaptrack replaces malloc, which tapio allocates with, and
# records each call with its stack; the command is several times slower meanwhile.
#
# usage: perf/heap.sh FILE.svg COMMAND ARGUMENT...
#        DURATION: seconds until the command is ended (20); 0: it ends by itself
#
# Needs heaptrack, and minutes afterwards for the names. FILE-allocations.svg has the number of
# allocations.
set -euo pipefail
cd "$(dirname "$0")/.."
. perf/tools.sh
[ $# -ge 2 ] || usage
svg=$1
shift
need heaptrack heaptrack
need_inferno
temporary=$(mktemp -d "${TMPDIR:-/tmp}/tapio-heap.XXXXXX")
dir=$temporary
if [ "${DURATION:-20}" -gt 0 ]; then
    # SIGTERM goes to the command alone: heaptrack writes the rest when the command has ended.
    heaptrack --output "$dir/record" "$@" >"$dir/log" 2>&1 &
    recorder=$!
    sleep "${DURATION:-20}"
    for child in $(cat "/proc/$recorder/task/$recorder/children"); do
        [ "$(readlink "/proc/$child/exe")" != "$(readlink -f "$(command -v "$1")")" ] || kill "$child"
    done
    wait "$recorder" || true
else
    heaptrack --output "$dir/record" "$@" >"$dir/log" 2>&1
fi
record=$(find "$dir" -name 'record*' | head -1)
[ -n "$record" ] || { cat "$dir/log" >&2; exit 1; }

graph() { # FILE COST TITLE UNIT
    heaptrack_print -f "$record" -F "$dir/folded" --flamegraph-cost-type "$2" -p 0 -a 0 -T 0 -l 0 \
        >/dev/null
    # Generic arguments are most of the file's size.
    sed -E -i ':a; s/<[^<>;]*>//; ta' "$dir/folded"
    inferno-flamegraph --minwidth 1.5 --colors mem --countname "$4" --title "$3" "$dir/folded" >"$1"
    echo "$1"
}
graph "$svg" peak "heap at its peak, by the place of the allocation" bytes
graph "${svg%.svg}-allocations.svg" allocations "number of allocations" calls
heaptrack_print -f "$record" -p 0 -a 0 -T 0 -l 0 | grep -E "^(total runtime|calls to alloc|temporary|peak)"
