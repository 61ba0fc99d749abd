#!/usr/bin/env bash
# Counts the instructions of each stage of an event's path (benches/stages.rs) with callgrind, and
# compares them with perf/instructions.json: 10 % more is a failure. Other load on the machine
# doesn't affect the counts, and neither does its speed.
#
# usage: perf/instructions.sh               part of `make test`
#        perf/instructions.sh --renew       makes the counts the baseline
#        perf/instructions.sh --release     a release build, which takes minutes and has no baseline
#        perf/instructions.sh --engine      the cases of benches/engine.rs, which have no baseline
#        perf/instructions.sh --functions N      the functions of the N-th stage of the table, from 1,
#                                           with their instructions per item
#
# Without valgrind nothing is counted; with CI set, that is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

mode=${1:-compare}
if ! command -v valgrind >/dev/null; then
    echo "instructions: NOT COUNTED: valgrind isn't installed (scripts/test-deps.sh installs it)" >&2
    [ -z "${CI:-}" ] || exit 1
    exit 0
fi

# The dev profile, which `cargo test` has built already.
profile=()
[ "$mode" != --release ] || profile=(--release)
# The name of the benchmark's file has a hash of its profile.
binary=$(cargo build --locked --workspace --bench stages "${profile[@]}" \
    --message-format json-render-diagnostics |
    sed -n 's/.*"name":"stages".*"executable":"\([^"]*\)".*/\1/p' | tail -1)
dir=$(mktemp -d "${TMPDIR:-/tmp}/tapio-instructions.XXXXXX")
trap 'rm -rf "$dir"' EXIT

count() { # STAGES: the value of the variable
    if ! STAGES=$1 valgrind --tool=callgrind --callgrind-out-file="$dir/callgrind" \
        --toggle-collect='*meter::measured*' --dump-before='*count::round_ends*' \
        "$binary" >"$dir/log" 2>&1; then
        cat "$dir/log" >&2
        exit 1
    fi
}

case $mode in
compare) count count && STAGES=report STAGES_DIR=$dir "$binary" ;;
--renew) count count && STAGES=report STAGES_DIR=$dir STAGES_RENEW=1 "$binary" ;;
--release) count count && STAGES=report STAGES_DIR=$dir STAGES_BASELINE=none "$binary" ;;
--engine) count engine && STAGES=report-engine STAGES_DIR=$dir STAGES_BASELINE=none "$binary" ;;
--functions)
    count count
    # Of a stage's three rounds the last one has twice its items (benches/stages/count.rs).
    awk -v items="$(STAGES=items "$binary" | sed -n "${2}p")" -f perf/functions.awk \
        "$dir/callgrind.$((3 * $2))" | sort -rn
    ;;
*)
    sed -n '/^# usage/,/^$/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
