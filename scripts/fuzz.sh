#!/usr/bin/env bash
# Fuzzes the production code with libFuzzer under AddressSanitizer, on the stable compiler: rule
# documents, event lines, wire batches, lines of Kubernetes watches, CNI reports, netlink packets,
# journal files, kernel log records, OTLP requests in protobuf and JSON, segments of the log, streams
# of batches to the server and configuration files. The targets are in tests/fuzz.
#
# usage: scripts/fuzz.sh [TARGET]...             fuzzes the targets
#        scripts/fuzz.sh canary [TARGET]...      verifies that planted bugs are found
#        TARGET: rules, lines, batches, kubernetes, cni, journal, kmsg, otlp, otlp_json,
#                segments, storage, ingest, configuration; by default all
#
# FUZZ_SECONDS: duration of each target (60). The corpus is kept in target/fuzz-corpus, failing
# inputs in target/fuzz-found: `target/fuzz/HOST/debug/TARGET FILE` runs one of them again.
#
# RUSTC_BOOTSTRAP makes the stable compiler accept -Zsanitizer; the coverage flags are stable.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
case $host in
    x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu) ;;
    *) echo "fuzz: skipped, no sanitizer runtime for $host"; exit 0 ;;
esac

seconds=${FUZZ_SECONDS:-60}
targets=(
    rules lines batches kubernetes cni journal kmsg otlp otlp_json segments storage ingest configuration
)
corpus=$PWD/target/fuzz-corpus found=$PWD/target/fuzz-found built=$PWD/target/fuzz

# A process interns names permanently, at most 32,768 of them, and is replaced before they are used
# up. Not sooner, because each one reads the whole corpus again, which takes half a minute.
round_seconds=300

build() {
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address --cfg fuzzing -Cpasses=sancov-module \
        -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
        -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares" \
        cargo build --quiet --locked --manifest-path "$1/tests/fuzz/Cargo.toml" --target "$host" \
        --target-dir "$2"
}

# fuzz BINARIES TARGET SECONDS CORPUS FOUND: fails when an input fails.
fuzz() {
    local left=$3 now
    mkdir -p "$4/$2" "$5/$2"
    while [ "$left" -gt 0 ]; do
        now=$((left < round_seconds ? left : round_seconds))
        left=$((left - now))
        # Fake stacks cost two mappings for each thread of each input, half of the time, and no safe
        # code reads the stack of a function that has returned.
        ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:malloc_context_size=4 \
            "$1/$2" "$4/$2" -artifact_prefix="$5/$2/" -max_total_time="$now" \
            -max_len=16384 -timeout=60 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
            -close_fd_mask=1 || return 1
    done
}

# planted TARGET FILE SED-EXPRESSION: the target has to find the bug in a changed copy of the
# sources.
planted() {
    [[ $wanted == *" $1 "* ]] || return 0
    local copy=$PWD/target/fuzz-canary
    rm -rf "$copy" && mkdir -p "$copy"
    cp -r src proto rules ebpf benches docs tests Cargo.toml Cargo.lock README.md "$copy"
    sed -i "$3" "$copy/$2"
    if cmp -s "$2" "$copy/$2"; then
        echo "fuzz-canary: $2 has changed: the bug can't be planted"
        return 1
    fi
    build "$copy" "$built"
    "$built/$host/debug/seeds" "$copy/corpus"
    if fuzz "$built/$host/debug" "$1" "$seconds" "$copy/corpus" "$copy/found" >"$copy/log" 2>&1; then
        echo "fuzz-canary: $1 did not find the bug planted in $2 within $seconds s"
        return 1
    fi
    if [ -z "$(ls "$copy/found/$1")" ]; then
        echo "fuzz-canary: $1 failed without an input:"
        tail -20 "$copy/log"
        return 1
    fi
    echo "fuzz-canary: $1 found the bug planted in $2"
}

if [ "${1:-}" = canary ]; then
    shift
    wanted=" ${*:-${targets[*]}} "
    # The suggestion for an unknown name computes with a row that is one column short.
    planted rules src/dataflow/rules/suggest.rs 's|(0..=b.len()).collect()|(0..b.len()).collect()|'
    # An event is routed to only one of the shards for which it is relevant.
    planted lines src/dataflow/rules/set.rs 's|for by in &plan.keys {|for by in plan.keys.iter().take(1) {|'
    # A length from the wire isn't checked against the bytes that remain.
    planted batches src/wire/reader.rs 's|filter(.end. \*end <= self.bytes.len())|filter(\|_\| true)|'
    # A key that is evicted at once: the next state of the object yields the fact again.
    planted kubernetes src/collector/k8s/pod_lifecycle.rs 's|const MAX_RECENT: usize = 8|const MAX_RECENT: usize = 1|'
    # A number at a message's end isn't checked against the bytes that remain.
    planted cni src/collector/cni/netlink.rs 's|self.0.get(at..at + 4)?.try_into|self.0[at..at + 4].try_into|'
    # An entry array that points back isn't detected.
    planted journal src/collector/journal/file.rs 's/if next <= self.array {/if next == u64::MAX {/'
    # An escape at the end of a record isn't checked against the bytes that remain.
    planted kmsg src/collector/kmsg.rs 's|let digits = after.strip_prefix(b"x")?.get(..2)?;|let digits = \&after.strip_prefix(b"x")?[..2];|'
    # Dropped records that aren't counted.
    planted otlp src/collector/events/otlp/writer.rs 's|output.refuse(Reason::BadInput, invalid)|output.refuse(Reason::BadInput, 0)|'
    # The length of a message that is longer than a length of one byte can say.
    planted otlp_json src/wire/otlp_json.rs 's|self.varint((end - begin) as u64);|self.varint((end - begin) as u64 \& 0x7f);|'
    # A frame's checksum isn't compared.
    planted segments src/store/scan.rs 's|crc32c::crc32c(payload) == mark.payload_checksum|true|'
    # A footer that is shorter than its counts.
    planted storage src/store/footer.rs 's|bytes.split_at_checked(COUNTS_BYTES)?|bytes.split_at(COUNTS_BYTES)|'
    # A batch of which some items are stored is stored as well.
    planted ingest src/wire/sequence_tracker.rs 's|if overlaps { SequenceCheck::Overlap }|if overlaps \&\& first == 0 { SequenceCheck::Overlap }|'
    # The character after a dollar sign is skipped unseen.
    planted configuration src/runtime/variables.rs 's|rest = \&rest\[dollar + 1..\];|rest = \&rest[dollar + 2..];|'
    exit 0
fi

[ $# -gt 0 ] && targets=("$@")
build . "$built"
"$built/$host/debug/seeds" "$corpus"
for target in "${targets[@]}"; do
    echo "fuzz: $target, $seconds s"
    fuzz "$built/$host/debug" "$target" "$seconds" "$corpus" "$found" || {
        echo "fuzz: $target found a failing input: $(ls "$found/$target" | tail -1), in target/fuzz-found/$target"
        exit 1
    }
done
echo "fuzz: no failing input was found"
