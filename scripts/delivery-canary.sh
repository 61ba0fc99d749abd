#!/usr/bin/env bash
# Plants a defect in a copy of the sources, one at a time, and verifies that the simulation of
# delivery (tests/delivery/simulation.rs) finds it: what is acknowledged before it is written, or
# before it is synced, folders that aren't synced, a position that is noted early, a drop that isn't
# counted.
set -euo pipefail
cd "$(dirname "$0")/.."

# With a folder of its own for the build: in a shared one, cargo takes the copy for the sources.
copy=$PWD/target/delivery-canary

# planted NAME FILE PERL-EXPRESSION: the simulation has to fail in the changed copy, with a seed.
planted() {
    rm -rf "$copy" && mkdir -p "$copy"
    cp -r src proto rules ebpf benches docs tests Cargo.toml Cargo.lock README.md "$copy"
    perl -0pi -e "$3" "$copy/$2"
    if cmp -s "$2" "$copy/$2"; then
        echo "delivery-canary: $2 has changed: $1 can't be planted"
        return 1
    fi
    if TAPIO_SEEDS=1000 cargo test --locked --quiet --manifest-path "$copy/Cargo.toml" \
        --target-dir "$PWD/target/delivery-canary-build" --package tapio --test delivery -- \
        simulation::accepted_events >"$copy/log" 2>&1; then
        echo "delivery-canary: the simulation doesn't find: $1"
        return 1
    fi
    if ! grep -q 'seed [0-9]*:' "$copy/log"; then
        echo "delivery-canary: $1 fails for another reason:"
        tail -n 20 "$copy/log"
        return 1
    fi
    echo "delivery-canary: found: $1 ($(grep -o 'seed [0-9]*' "$copy/log" | head -1))"
}

planted "acknowledged although the disk refused it" src/server/ingest.rs \
    's/storage\.append\(bytes, receipt_ns\)\?;/let _ = storage.append(bytes, receipt_ns);/'
planted "acknowledged before it is synced" src/store/sync.rs \
    's/self\.dirty\.iter\(\)\.try_for_each\(\|file\| file\.sync\(\)\)\?;//'
planted "folders that aren't synced" src/store/sync.rs \
    's/self\.dir\.as_ref\(\)\.map_or\(Ok\(\(\)\), \|dir\| self\.files\.sync_dir\(dir\)\)/Ok(())/'
planted "a position that is noted early" src/bridge/spool.rs \
    's/first\.unwrap_or_else\(\|\| self\.log\.end\(\)\)/first.map_or_else(|| self.log.end(), |_| self.log.end())/'
planted "a drop that isn't counted" src/bridge/outbox.rs \
    's/self\.account\.drop_events\(&dropped, reason\);\n\s*report_drop/report_drop/'
