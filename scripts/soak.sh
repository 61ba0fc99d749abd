#!/usr/bin/env bash
# A long run of load: no event is lost, and memory doesn't grow with time. Memory is the median of
# samples, one every 10 s: of the minutes 5 to 10, and of the last five. The tables fill to their
# bounds in the first five; a peak would also have what waited while the machine was busy.
#
# usage: scripts/soak.sh          SOAK_SECONDS (1800, at least 900) at SOAK_RATE (50000) events per second
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${SOAK_SECONDS:-1800} rate=${SOAK_RATE:-50000}
dir=$(mktemp -d)
trap 'kill "$bench" 2>/dev/null || true; rm -rf "$dir"' EXIT

target/release/tapio bench pipeline --rate "$rate" --duration "$seconds" --output json >"$dir/report" & bench=$!
began=$SECONDS
while kill -0 "$bench" 2>/dev/null; do
    sleep 10
    agent=$(pgrep -P "$bench" -f 'tapio run' || true)
    rss=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$agent/status" 2>/dev/null || true)
    [ -z "$rss" ] || echo "$((SECONDS - began)) $rss" >>"$dir/samples"
done
wait "$bench"

median() { # FROM TO: of the samples of these seconds, KiB
    awk -v from="$1" -v to="$2" '$1 >= from && $1 < to { print $2 }' "$dir/samples" | sort -n |
        awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] + 0 }'
}
field() { # NAME: a number or a word of the report
    sed -n "s/.*\"$1\":\"\{0,1\}\([^,}\"]*\).*/\1/p" "$dir/report"
}
cat "$dir/report"
if [ "$(field cons1_holds)" != true ] || [ "$(field offered)" != "$(field stored)" ]; then
    echo "soak: events are missing" >&2
    exit 1
fi
before=$(median 300 600) after=$(median $((seconds - 300)) "$seconds")
echo "soak: the agent's memory: $((before >> 10)) MiB in minutes 5 to 10, $((after >> 10)) MiB in the last five"
if [ "$before" -eq 0 ] || [ "$after" -gt $((before + before / 10)) ]; then
    echo "soak: memory grows" >&2
    exit 1
fi
