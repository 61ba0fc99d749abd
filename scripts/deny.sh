#!/usr/bin/env bash
# Holds deny.toml: with cargo-deny where it is installed, else the duplicate versions alone, which
# cargo can list by itself.
set -euo pipefail
cd "$(dirname "$0")/.."

if cargo deny --version >/dev/null 2>&1; then
    exec cargo deny --log-level error check
fi

# `cargo tree -d` begins each duplicate with `name vX.Y.Z` at the line's start. One version of a
# name may stand without being named; the others must be skipped in deny.toml.
duplicates=$(cargo tree --locked --duplicates --edges normal,build,dev --depth 0 --prefix none \
    --target all | sed -n 's/^\([^ ]*\) v\([^ ]*\).*/\1@\2/p' | sort -u)
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
        echo "deny: deny.toml skips $one, which is no duplicate any more" >&2
        status=1
    fi
done
[ $status -eq 0 ] && echo "deny: no unlisted duplicate (cargo-deny isn't installed: licences and advisories weren't looked at)"
exit $status
