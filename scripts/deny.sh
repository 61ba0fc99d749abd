#!/usr/bin/env bash
# Checks the dependencies against deny.toml: with cargo-deny if it is installed, otherwise only the
# duplicate versions, which cargo itself can list. Skipped checks are reported in a line of their
# own. In CI and for `make deny`, cargo-deny is first installed below target: minutes, once.
set -euo pipefail
cd "$(dirname "$0")/.."

export PATH="$PWD/target/tools/bin:$PATH"
if ! cargo deny --version >/dev/null 2>&1 && { [ "${CI:-}" = true ] || [ "${1:-}" = install ]; }; then
    timeout 20m cargo install --quiet --locked --version 0.20.2 --root target/tools --target-dir target/tools/build cargo-deny ||
        echo "deny: cargo-deny can't be installed" >&2
    rm -rf target/tools/build
fi

if cargo deny --version >/dev/null 2>&1; then
    # An entry of deny.toml that doesn't occur in the tree is an error, too.
    cargo deny --log-level error check --deny unmatched-skip --deny license-not-encountered \
        licenses bans sources
    # The advisories are a separate database that must be fetched.
    if why=$(cargo deny --log-level error fetch db 2>&1); then
        cargo deny --log-level error check advisories
        echo "deny: licences, duplicates, sources and advisories pass"
    else
        echo "deny: licences, duplicates and sources pass"
        echo "deny: ADVISORIES SKIPPED: their database can't be fetched: $(tail -n 1 <<<"$why")" >&2
    fi
    exit 0
fi

# `cargo tree -d` prints each duplicate as `name vX.Y.Z` at the start of a line. One version of a
# package may be unlisted; the others must be skipped in deny.toml. The targets are those of
# deny.toml.
targets=$(sed -n 's/^targets = \[\(.*\)\]/\1/p' deny.toml | tr -d '",')
duplicates=$(for target in $targets; do
    cargo tree --locked --workspace --duplicates --edges normal,build,dev --depth 0 --prefix none \
        --target "$target"
done | sed -n 's/^\([^ ]*\) v\([^ ]*\).*/\1@\2/p' | sort -u)
skipped=$(sed -n '/^skip = \[/,/^\]/s/^ *"\([^"]*\)".*/\1/p' deny.toml | sort -u)

status=0
for name in $(sed 's/@.*//' <<<"$duplicates" | sort -u); do
    unlisted=$(grep "^$name@" <<<"$duplicates" | grep -vxF "$skipped" || true)
    if [ "$(wc -w <<<"$unlisted")" -gt 1 ]; then
        echo "deny: more than one version of $name:" $unlisted >&2
        status=1
    fi
done
for one in $skipped; do
    if ! grep -qxF "$one" <<<"$duplicates"; then
        echo "deny: deny.toml skips $one, which is no longer a duplicate" >&2
        status=1
    fi
done
[ $status -eq 0 ] && echo "deny: no unlisted duplicate"
echo "deny: LICENCES, SOURCES AND ADVISORIES SKIPPED: cargo-deny isn't installed" >&2
exit $status
