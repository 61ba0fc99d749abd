#!/usr/bin/env bash
# Tests the chart, the Kustomize base and the alerts (tests/chart). Gets promtool where it is
# missing. `tapio check` is run where a binary is built (or TAPIO names one), and the API server of
# the test bed where `make test-e2e` has built it; what is skipped is reported. With --node, as root,
# runs the pods on the node of the test bed instead.
#
# usage: scripts/test-chart.sh [--node] [OPTIONS OF unittest...]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/chart-python.sh
promtool=target/testbed/opt/prometheus
if ! command -v promtool >/dev/null && ! [ -d "$promtool" ] && command -v apt-get >/dev/null; then
    rm -rf "$promtool.new"
    mkdir -p "$promtool.new"
    if (cd "$promtool.new" && apt-get -q -o APT::Sandbox::User=root download prometheus >/dev/null); then
        dpkg -x "$promtool.new"/*.deb "$promtool.new"
        rm "$promtool.new"/*.deb
        mv "$promtool.new" "$promtool"
    fi
fi
test=tests/chart/test_chart.py
[ "${1:-}" != --node ] || { test=tests/chart/test_node.py; shift; }
exec "$python" "$test" "$@"
