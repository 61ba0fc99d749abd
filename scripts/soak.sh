#!/usr/bin/env bash
# Compares a long run with a short one: no event is lost, and memory doesn't grow with time.
#
# usage: scripts/soak.sh          SOAK_SECONDS (1800) at SOAK_RATE (50000) events per second
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${SOAK_SECONDS:-1800} rate=${SOAK_RATE:-50000}

run() { # SECONDS
    target/release/tapio bench pipeline --rate "$rate" --duration "$1" --output json
}
field() { # JSON NAME: a number or a word
    sed -n "s/.*\"$2\":\"\{0,1\}\([^,}\"]*\).*/\1/p" <<<"$1"
}
rss() { # JSON: the agent's peak memory
    sed -n 's/.*"peak_rss_bytes":{[^}]*"agent":\([0-9]*\).*/\1/p' <<<"$1"
}

# The tables fill to their bounds in the first five minutes; memory must not grow after that.
short=$(run 300)
long=$(run "$seconds")
echo "$long"
for report in "$short" "$long"; do
    if [ "$(field "$report" cons1_holds)" != true ] || [ "$(field "$report" offered)" != "$(field "$report" stored)" ]; then
        echo "soak: events are missing: $report" >&2
        exit 1
    fi
done
before=$(rss "$short") after=$(rss "$long")
echo "soak: peak memory of the agent: $((after >> 20)) MiB after $seconds s, $((before >> 20)) MiB after 300 s"
if [ "$after" -gt $((before + before / 4)) ]; then
    echo "soak: memory grows" >&2
    exit 1
fi
