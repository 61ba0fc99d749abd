#!/usr/bin/env bash
# Ends the processes of up.sh and removes their data.
. "$(dirname "$0")/lib.sh"
for name in apiserver etcd; do
  [ ! -e "$STATE/$name.pid" ] || kill -9 "$(cat "$STATE/$name.pid")" 2>/dev/null || true
  rm -f "$STATE/$name.pid"
done
rm -rf "$STATE/etcd"
