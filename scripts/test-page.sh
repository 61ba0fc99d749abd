#!/usr/bin/env bash
# Tests the page (tests/page) in Debian's Chromium, which is installed where it is missing, on a real
# agent with its server: that of TAPIO, or of a debug build. Pictures of the views are in
# target/page-test/pictures; with --pictures, those in docs/images are replaced by them.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "test-page: $*" >&2; }

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    say "node and npm are missing: the page isn't tested"
    exit "${CI:+1}"
fi
chromium=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || true)}
if [ -z "$chromium" ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        say "Chromium is missing, and can't be installed: the page isn't tested"
        exit "${CI:+1}"
    fi
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends chromium fonts-dejavu-core >/dev/null
    chromium=$(command -v chromium)
fi
[ -n "${TAPIO:-}" ] || cargo build --locked --bin tapio
work=target/page-test
mkdir -p "$work"
cp tests/page/* "$work/"
# The tests find the recorded stories from where they are: two folders below the project's.
(cd "$work" && npm ci --silent --no-audit --no-fund)
TAPIO=$(realpath "${TAPIO:-target/debug/tapio}") CHROMIUM=$chromium PICTURES=$PWD/$work/pictures \
    node --test "$work/page.test.mjs"
if [ "${1:-}" = --pictures ]; then
    mkdir -p docs/images
    for name in story-light story-dark stories-light; do
        cp "$work/pictures/$name.png" "docs/images/page-$name.png"
    done
fi
