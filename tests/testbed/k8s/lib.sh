# Sourced by the scripts of this folder: where things lie.
#
# TAPIO_TESTBED is the folder for what is fetched and built once and used again (1.5 GB while building,
# 400 MB after); TAPIO_TESTBED_STATE is what a run leaves behind (logs, keys, etcd's data) and may be deleted at any time.
set -eu
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TESTBED=${TAPIO_TESTBED:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/tapio-testbed}
STATE=${TAPIO_TESTBED_STATE:-$TESTBED/state}
OPT=$TESTBED/opt
BIN=$TESTBED/bin
mkdir -p "$OPT" "$BIN" "$STATE"
