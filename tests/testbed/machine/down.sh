#!/usr/bin/env bash
# Ends the processes of up.sh, each by its pid.
# usage: down.sh NAME
. "$(dirname "$0")/../k8s/lib.sh"
V=$STATE/machine
for name in proxy proxy-inside; do
  [ ! -e "$V/$name.pid" ] || kill -9 "$(cat "$V/$name.pid")" 2>/dev/null || true
done
"$HERE/../systemd/down.sh" "$V" "$1"
rm -rf "$V"
