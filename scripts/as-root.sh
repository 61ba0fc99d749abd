#!/usr/bin/env bash
# Runs a command as root where that takes no more than sudo, else as the user who asks: the agent
# itself then says what it can't see.
set -euo pipefail
if [ "$(id -u)" -ne 0 ] && command -v sudo >/dev/null; then
    echo "tapio: asking sudo for root, to read the kernel's events (eBPF)" >&2
    if sudo -v; then
        exec sudo -- "$@"
    fi
    echo "tapio: no root: going on as $(id -un)" >&2
fi
exec "$@"
