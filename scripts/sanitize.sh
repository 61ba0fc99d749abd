#!/usr/bin/env bash
# Runs the tests of tapio-core (events, identities, rings, shutdown) under ThreadSanitizer and
# AddressSanitizer, on the stable compiler.
#
# usage: scripts/sanitize.sh [thread|address]...      both by default
#
# RUSTC_BOOTSTRAP makes the stable compiler accept the -Z flag. std itself isn't instrumented, so
# only accesses in our code, rtrb and rkyv are watched: that is where the unsafe code is. The wake
# protocol synchronises by fences, which ThreadSanitizer doesn't model. It decides only when to
# check the rings, and the data goes through rtrb's Acquire and Release, so it needs no suppression.
# What std and libtest need is in tests/core/thread.supp.
#
# Two sabotaged builds showed that the sanitizers find what they are here for. `place` in
# src/core/ring/elastic.rs wrote a record's header once more after `commit`: "data race in
# Header::read". `as_bytes` gave a slice one block too long: "heap-buffer-overflow".
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(rustc -vV | sed -n 's/^host: //p')
case $target in
    x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu) ;;
    *) echo "sanitize: skipped, no sanitizer runtime for $target"; exit 0 ;;
esac

# Sanitizers slow memory accesses down tenfold.
export TAPIO_RING_RECORDS=${TAPIO_RING_RECORDS:-200000}
export PROPTEST_CASES=${PROPTEST_CASES:-64}
export RUSTC_BOOTSTRAP=1
export TSAN_OPTIONS="halt_on_error=1 suppressions=$PWD/tests/core/thread.supp"

for sanitizer in "${@:-thread address}"; do
    for one in $sanitizer; do
        echo "sanitize: $one"
        flags="-Zsanitizer=$one" skip=()
        if [ "$one" = thread ]; then
            flags="$flags -Cunsafe-allow-abi-mismatch=sanitizer"
            # Safe code over arc-swap: std's Arc synchronises its drop by a fence, which
            # ThreadSanitizer doesn't model.
            skip=(--skip identity::)
        fi
        RUSTFLAGS=$flags cargo test --quiet --locked --profile sanitize --package tapio-core \
            --target "$target" --target-dir "target/sanitize-$one" --lib --test core -- --test-threads=1 "${skip[@]}"
    done
done
