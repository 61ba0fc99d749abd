#!/usr/bin/env bash
# Measures the cost of the rules in instructions per event, counted by callgrind, which other load
# on the machine doesn't affect. Two runs of a case differ only in the number of events; their
# difference excludes the cost of the set-up.
#
# usage: perf/engine.sh [BENCHMARK-BINARY]       by default the last one that cargo bench built
set -euo pipefail
cd "$(dirname "$0")/.."

binary=${1:-$(find target/release/deps -name 'engine-*' -type f -executable -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2)}
few=20000 many=60000

collected() { # CASE: as benches/engine.rs reads it, with the number of events last
    ENGINE=case ENGINE_CASE=$1 nice valgrind --tool=callgrind --callgrind-out-file=/dev/null \
        --toggle-collect='*World::process*' "$binary" 2>&1 | sed -n 's/.*Collected : //p'
}

per_event() { # NAME CASE
    local first second
    first=$(collected "$2,$few")
    second=$(collected "$2,$many")
    printf '%-60s %8.0f instructions per event\n' "$1" "$(((second - first) / (many - few)))"
}

for per_mille in 0 10 500; do
    for rules in 10 100 1000; do
        per_event "$rules rules by value, 1,000 keys, $per_mille of 1,000 match" "0,$rules,1000,$per_mille"
    done
    per_event "100 rules by value, 100,000 keys, $per_mille of 1,000 match" "0,100,100000,$per_mille"
done
per_event "100 rules by value, 1,000 keys, 10 of 1,000 match, observed" "8,100,1000,10"
per_event "10 rules by regex and bound, 1,000 keys, 10 of 1,000 match" "7,10,1000,10"
per_event "100 rules by regex and bound, 1,000 keys, 10 of 1,000 match" "7,100,1000,10"
names=("sequences begun on 1,000 keys" "flood of keys" "one story on each of 1,000 keys" "flood of stories" "events of 1,000 pods" "flood of pods")
for flood in 1 2 3 4 5 6; do
    # The tables have to be full before the measurement begins.
    few=80000 many=120000 per_event "${names[flood - 1]}" "$flood,0,0,0"
done
