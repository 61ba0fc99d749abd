#!/usr/bin/env bash
# A long run beside a short one: nothing is lost, and memory doesn't grow with time.
#
# usage: scripts/soak.sh          SOAK_SECONDS (1800) at SOAK_RATE (50000) events a second
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${SOAK_SECONDS:-1800} rate=${SOAK_RATE:-50000}

run() { # SECONDS
    target/release/tapio bench pipeline --rate "$rate" --duration "$1" --output json
}
field() { # JSON NAME: a number or a word
    sed -n "s/.*\"$2\":\"\{0,1\}\([^,}\"]*\).*/\1/p" <<<"$1"
}
rss() { # JSON: the agent's peak
    sed -n 's/.*"peak_rss_bytes":{[^}]*"agent":\([0-9]*\).*/\1/p' <<<"$1"
}

# The tables fill to their bounds in the first minute; what comes after must not add to that.
short=$(run 60)
long=$(run "$seconds")
echo "$long"
for report in "$short" "$long"; do
    if [ "$(field "$report" cons1_holds)" != true ] || [ "$(field "$report" offered)" != "$(field "$report" stored)" ]; then
        echo "soak: events are missing: $report" >&2
        exit 1
    fi
done
before=$(rss "$short") after=$(rss "$long")
echo "soak: the agent's peak is $((after >> 20)) MiB after $seconds s, $((before >> 20)) MiB after 60 s"
if [ "$after" -gt $((before + before / 4)) ]; then
    echo "soak: it grows" >&2
    exit 1
fi
