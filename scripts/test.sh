#!/usr/bin/env bash
# `make test`: runs every layer in turn, including those after a failure, and ends with a line that
# lists what passed and what failed.
set -uo pipefail
cd "$(dirname "$0")/.."

passed=() failed=()
layer() {
    local name=$1 begin=$SECONDS
    shift
    echo "== $name"
    if "$@"; then
        passed+=("$name ($((SECONDS - begin)) s)")
    else
        failed+=("$name")
    fi
}

join() { local out; printf -v out '%s, ' "$@"; echo "${out%, }"; }

make --no-print-directory deps || { echo "tapio: FAILED: deps"; exit 1; }
scripts/test-deps.sh || { echo "tapio: FAILED: test-deps"; exit 1; }
for name in lint unit instructions loom sanitize; do
    layer "$name" make --no-print-directory "$name"
done

if [ ${#failed[@]} -gt 0 ]; then
    echo "tapio: FAILED: $(join "${failed[@]}"); passed: $(join "${passed[@]:-nothing}")"
    exit 1
fi
echo "tapio: all passed: $(join "${passed[@]}")"
