#!/usr/bin/env bash
# Gets the real counterparts that the collectors' tests run: CNI plugins, containerd and runc, as Debian packages them.
# They are unpacked below target/testbed and not installed. Where that isn't possible the tests say what they skip.
set -euo pipefail
cd "$(dirname "$0")/.."
root=target/testbed/opt

say() { echo "test-deps: $*" >&2; }

# get FOLDER PACKAGE...: downloads and unpacks, once.
get() {
    local folder=$root/$1
    shift
    [ -d "$folder" ] && return
    rm -rf "$folder.new"
    mkdir -p "$folder.new/debs"
    (cd "$folder.new/debs" && apt-get -q -o APT::Sandbox::User=root download "$@" >/dev/null)
    for deb in "$folder.new"/debs/*.deb; do dpkg -x "$deb" "$folder.new"; done
    rm -rf "$folder.new/debs"
    mv "$folder.new" "$folder"
}

if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    say "no apt-get here: tests against CNI plugins and containerd are skipped"
    exit 0
fi
# A fresh image has no lists of packages yet.
if ! apt-cache show runc >/dev/null 2>&1; then
    if [ "$(id -u)" -eq 0 ]; then apt-get -qq update; else say "no package lists"; fi
fi
get cni containernetworking-plugins || say "no CNI plugins: their tests are skipped"
get busybox busybox-static || say "no busybox for containers to run: their tests are skipped"
get containerd containerd runc || say "no containerd: its tests are skipped"
