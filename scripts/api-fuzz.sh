#!/usr/bin/env bash
# Fuzzes the server's HTTP API by its own description (/openapi.json) with schemathesis, against a
# real server with the stories of a recording. Installs schemathesis below target/testbed.
#
# usage: scripts/api-fuzz.sh [OPTIONS OF schemathesis run...]
set -euo pipefail
cd "$(dirname "$0")/.."
venv=target/testbed/opt/schemathesis
if ! [ -x "$venv/bin/schemathesis" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check schemathesis
fi
cargo build --locked --quiet --bin tapio
dir=$(mktemp -d)
port=$((20000 + $$ % 10000 * 3))
trap 'kill "$pid" 2>/dev/null && wait "$pid" || true; rm -rf "$dir"' EXIT
cat >"$dir/tapio.yaml" <<YAML
state_dir: $dir/state
node: fuzz
collectors: { only: [jsonl], jsonl: { paths: [$PWD/tests/stories/nginx-cascade.jsonl] } }
server: { grpc_listen: "127.0.0.1:$port", http_listen: "127.0.0.1:$((port + 1))", data_dir: $dir/store }
bridge: { endpoint: "127.0.0.1:$port" }
admin: { listen: "127.0.0.1:$((port + 2))" }
YAML
target/debug/tapio run --standalone --config "$dir/tapio.yaml" >"$dir/log" 2>&1 & pid=$!
api=http://127.0.0.1:$((port + 1))
for _ in $(seq 100); do
    curl -s "$api/api/v1/stories?limit=1" 2>/dev/null | grep -q '"items":\[{' && break
    sleep 0.1
done
"$venv/bin/schemathesis" run "$api/openapi.json" --max-examples "${FUZZ_EXAMPLES:-50}" "$@"
curl -s "$api/readyz"
