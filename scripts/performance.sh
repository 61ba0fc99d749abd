#!/usr/bin/env bash
# The benchmarks, with their reports printed. Nothing is asserted on time: machines differ by 2.5 x.
#
# usage: scripts/performance.sh      BENCH_SECONDS (10): how long each run of the whole path takes
#
# 1. `tapio bench pipeline`: load generator → agent → server, each a process of its own; flat out,
#    then at 165,000 events a second, the rate of the specification's published result.
# 2. criterion: stages, ring, event, wire, otlp and engine (benches/).
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${BENCH_SECONDS:-10}

for rate in max 165000; do
    echo "== pipeline, rate $rate, $seconds s"
    target/release/tapio bench pipeline --rate "$rate" --duration "$seconds"
done
for bench in stages ring event wire otlp engine; do
    echo "== benches/$bench.rs"
    cargo bench --locked --quiet --bench "$bench"
done
