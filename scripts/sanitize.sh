#!/usr/bin/env bash
# Runs the ring's tests (tests/ring.rs) and the unit tests of src/event and src/ring under
# ThreadSanitizer and AddressSanitizer, on the stable compiler.
#
# usage: scripts/sanitize.sh [thread|address]...      both by default
#
# RUSTC_BOOTSTRAP lets the stable compiler take the -Z flag. std itself is not instrumented, so
# only accesses in our code, rtrb and rkyv are watched: which is where the unsafe code is. The wake
# protocol synchronises by fences, which ThreadSanitizer doesn't model; it decides only when to
# look, and the data goes through rtrb's Acquire and Release, so it needs no suppression. What std
# and libtest need is in tests/sanitize/thread.supp.
#
# That the sanitizers see what they are here for was tried with two sabotaged builds. `place` in
# src/ring/record.rs wrote a record's header once more after `commit`: "data race in Header::read".
# `as_bytes` gave a slice one block too long: "heap-buffer-overflow".
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
export TSAN_OPTIONS="halt_on_error=1 suppressions=$PWD/tests/sanitize/thread.supp"

for sanitizer in "${@:-thread address}"; do
    for one in $sanitizer; do
        echo "sanitize: $one"
        flags="-Zsanitizer=$one"
        [ "$one" = thread ] && flags="$flags -Cunsafe-allow-abi-mismatch=sanitizer"
        RUSTFLAGS=$flags cargo test --quiet --manifest-path tests/sanitize/Cargo.toml \
            --target "$target" --target-dir "target/sanitize-$one" --lib --test ring -- --test-threads=1
    done
done
