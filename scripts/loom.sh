#!/usr/bin/env bash
# Runs the loom models of tapio-core (tests/core/loom.rs, src/core/ring/elastic.rs) on the crate
# itself, then on copies with one line sabotaged, in which loom has to find the lost wake-up or record.
set -euo pipefail
cd "$(dirname "$0")/.."

export RUSTFLAGS="--cfg loom"
target=$PWD/target/loom copy=$PWD/target/loom-sabotage

model() { # MANIFEST TARGET [TEST]: runs the models of a target, or one of them
    cargo test --locked --quiet --profile loom --manifest-path "$1" --package tapio-core \
        $2 --target-dir "$target" -- ${3:+"$3"}
}

# sabotaged TARGET TEST FILE PERL-EXPRESSION FINDING: the test has to find this in the changed copy.
sabotaged() {
    rm -rf "$copy" && mkdir -p "$copy"
    cp -r src tests benches docs proto Cargo.toml Cargo.lock "$copy"
    perl -0pi -e "$4" "$copy/$3"
    if cmp -s "$3" "$copy/$3"; then
        echo "loom: $3 has changed: it can't be sabotaged by $4"
        return 1
    fi
    if model "$copy/Cargo.toml" "$1" "$2" >"$copy/log" 2>&1; then
        echo "loom: $2 doesn't find the defect made by $4 in $3"
        return 1
    fi
    if ! grep -q "$5" "$copy/log"; then
        echo "loom: $2 fails for another reason:"
        tail -n 20 "$copy/log"
        return 1
    fi
    echo "loom: $2 finds the defect in a sabotaged $(basename "$3"): $5"
}

# Unchanged sources have unchanged models.
stamp=$(find src/core tests/core/loom.rs scripts/loom.sh Cargo.lock -type f -print0 | sort -z |
    xargs -0 sha256sum | sha256sum)
if [ "$stamp" = "$(cat "$target/passed" 2>/dev/null)" ]; then
    echo "loom: passed before, and nothing has changed since"
    exit 0
fi

# Of a run that was interrupted, cargo may take a sabotaged build for this one.
rm -rf "$target"/loom/.fingerprint/tapio-core-*
model Cargo.toml "--test loom"
model Cargo.toml --lib loom_models
# Without the fence between the consumer's announcement and its second check.
sabotaged "--test loom" doorbell_loses_no_wake_up_of_one_producer src/core/ring/wake.rs \
    's/(fn prepare_sleep.*?)fence\(Ordering::SeqCst\);/$1/s' deadlock
# Without the fence between the producer's record and its check of the consumer's state.
sabotaged "--test loom" doorbell_loses_no_wake_up_of_one_producer src/core/ring/wake.rs \
    's/(fn ring.*?)fence\(Ordering::SeqCst\);/$1/s' deadlock
# The signal is raised after its wakers were taken out.
sabotaged "--test loom" signal_wakes_one_waiter src/core/shutdown/signal.rs \
    's/(self\.raised\.store\(true, Ordering::Release\);)(.*?)(wakers\.into_iter)/$2$1 $3/s' deadlock
# The second ring is read before the base is found empty once more.
sabotaged --lib elastic_ring_loses src/core/ring/elastic.rs \
    's/if self\.base\.is_empty\(\) \{(\s+let Some\(second\))/{$1/' "a record is lost"
# The second ring is dropped where it was empty before the writer left it.
sabotaged --lib elastic_ring_loses src/core/ring/elastic.rs \
    's/(let is_abandoned = second\.is_abandoned\(\);)(\s+match second\.slots\(\) \{)/let slots = second.slots(); $1 match slots {/' \
    "a record is lost"
echo "$stamp" >"$target/passed"
