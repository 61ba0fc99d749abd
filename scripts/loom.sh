#!/usr/bin/env bash
# Runs the loom models of tapio-core (tests/core/loom.rs) on the crate itself, then on copies with
# one line sabotaged, in which loom has to find the lost wake-up.
set -euo pipefail
cd "$(dirname "$0")/.."

export RUSTFLAGS="--cfg loom"
target=$PWD/target/loom copy=$PWD/target/loom-sabotage

model() { # MANIFEST [TEST]: runs the models, or one of them
    cargo test --locked --quiet --profile loom --manifest-path "$1" --package tapio-core \
        --test loom --target-dir "$target" -- ${2:+"$2"}
}

# sabotaged TEST FILE PERL-EXPRESSION: the test has to find a deadlock in the changed copy.
sabotaged() {
    rm -rf "$copy" && mkdir -p "$copy"
    cp -r src tests benches docs proto Cargo.toml Cargo.lock "$copy"
    perl -0pi -e "$3" "$copy/$2"
    if cmp -s "$2" "$copy/$2"; then
        echo "loom: $2 has changed: it can't be sabotaged by $3"
        return 1
    fi
    if model "$copy/Cargo.toml" "$1" >"$copy/log" 2>&1; then
        echo "loom: $1 doesn't find the wake-up lost by $3 in $2"
        return 1
    fi
    if ! grep -q deadlock "$copy/log"; then
        echo "loom: $1 fails for another reason:"
        tail -n 20 "$copy/log"
        return 1
    fi
    echo "loom: $1 finds the wake-up lost in a sabotaged $(basename "$2")"
}

# Unchanged sources have unchanged models.
stamp=$(find src/core tests/core/loom.rs scripts/loom.sh Cargo.lock -type f -print0 | sort -z |
    xargs -0 sha256sum | sha256sum)
if [ "$stamp" = "$(cat "$target/passed" 2>/dev/null)" ]; then
    echo "loom: passed before, and nothing has changed since"
    exit 0
fi

model Cargo.toml
# Without the fence between the consumer's announcement and its second check.
sabotaged doorbell_loses_no_wake_up_of_one_producer src/core/ring/wake.rs \
    's/(fn prepare_sleep.*?)fence\(Ordering::SeqCst\);/$1/s'
# Without the fence between the producer's record and its check of the consumer's state.
sabotaged doorbell_loses_no_wake_up_of_one_producer src/core/ring/wake.rs \
    's/(fn ring.*?)fence\(Ordering::SeqCst\);/$1/s'
# The signal is raised after its wakers were taken out.
sabotaged signal_wakes_one_waiter src/core/shutdown/signal.rs \
    's/(self\.raised\.store\(true, Ordering::Release\);)(.*?)(wakers\.into_iter)/$2$1 $3/s'
echo "$stamp" >"$target/passed"
