#!/usr/bin/env bash
# Renders the chart deploy/helm/tapio to standard output; with --kustomize, writes
# deploy/kustomize/base from it. Uses the program helm where it is installed, else Helm's own
# engine in the Python package helm-python-sdk, installed below target/testbed.
#
# usage: scripts/render-chart.sh [--kustomize | [--namespace NAME] [--release NAME] [VALUES.yaml...]]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/chart-python.sh
[ "${1:-}" != --kustomize ] || set -- --kustomize deploy/kustomize/base
exec "$python" scripts/chart.py "$@"
