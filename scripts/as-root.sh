#!/usr/bin/env bash
# Runs a command as root if sudo allows it, otherwise as the current user: the agent then reports
# what it can't observe.
set -euo pipefail
if [ "$(id -u)" -ne 0 ] && command -v sudo >/dev/null; then
    echo "tapio: asking sudo for root, to read kernel events (eBPF)" >&2
    if sudo -v; then
        exec sudo -- "$@"
    fi
    echo "tapio: no root: running as $(id -un)" >&2
fi
exec "$@"
