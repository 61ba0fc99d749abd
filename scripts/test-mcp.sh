#!/usr/bin/env bash
# Tests both doors of the Model Context Protocol, `tapio mcp` and `/mcp`, with the client library of
# the protocol's authors, against a real server with recordings. Installs the library below
# target/testbed.
#
# usage: scripts/test-mcp.sh [OPTIONS OF python3 -m unittest...]
set -euo pipefail
cd "$(dirname "$0")/.."
venv=target/testbed/opt/mcp
if ! "$venv/bin/python" -c 'import mcp' 2>/dev/null; then
    rm -rf "$venv.new"
    python3 -m venv "$venv.new"
    "$venv.new/bin/pip" install -q --disable-pip-version-check mcp==2.3.0
    rm -rf "$venv"
    mv "$venv.new" "$venv"
fi
if [ -z "${TAPIO:-}" ]; then
    cargo build --locked --quiet --bin tapio
    TAPIO=${CARGO_TARGET_DIR:-target}/debug/tapio
fi
TAPIO=$(realpath "$TAPIO") exec "$venv/bin/python" -B tests/mcp/test_mcp.py "$@"
