# Sourced by the scripts of this folder and of ../machine: paths and the images of pods.
#
# TAPIO_TESTBED is the folder of programs that are fetched and built once (1.5 GB while building,
# 400 MB after). TAPIO_TESTBED_STATE is the folder of a run's state (logs, keys, etcd's data), which
# may be deleted at any time.
set -eu
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TESTBED=${TAPIO_TESTBED:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/tapio-testbed}
STATE=${TAPIO_TESTBED_STATE:-$TESTBED/state}
OPT=$TESTBED/opt
BIN=$TESTBED/bin
mkdir -p "$OPT" "$BIN" "$STATE"

# Builds the images of containers and sandboxes: busybox's sh and a few of its applets.
images() {
  [ ! -e "$TESTBED/app.tar" ] || return 0
  local root a
  root=$(mktemp -d "$TESTBED/image.XXXXXX"); mkdir -p "$root/bin" "$root/tmp"
  cp "$OPT"/busybox/bin/busybox "$root/bin/"
  for a in sh sleep tail true false echo cat; do ln -s busybox "$root/bin/$a"; done
  "$HERE/mkimage.py" "$TESTBED/pause.tar" docker.io/lab/pause:1 "$root" /bin/sleep 1000000
  "$HERE/mkimage.py" "$TESTBED/app.tar" docker.io/lab/app:1 "$root" /bin/sleep 1000000
  rm -rf "$root"
}
