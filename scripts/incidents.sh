#!/usr/bin/env bash
# Runs the shop (tests/shop) with the release binary: real faults, and how right their stories are.
#
# usage: scripts/incidents.sh [OPTION...]     options: tests/shop/run.py --help
set -euo pipefail
cd "$(dirname "$0")/.."
python=target/testbed/opt/sdk/bin/python

if [ "$(id -u)" -ne 0 ]; then
    echo "incidents: skipped: network namespaces and cgroups need root" >&2
    exit 0
fi
scripts/test-deps.sh
missing=()
for pair in tc:iproute2 openssl:openssl; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    apt-get -qq update
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
fi
if ! [ -x "$python" ]; then
    echo "incidents: skipped: OpenTelemetry's Python SDK isn't installed (scripts/test-deps.sh)" >&2
    exit 0
fi
"$python" -m unittest discover --start-directory tests/shop
exec "$python" tests/shop/run.py --check "$@"
