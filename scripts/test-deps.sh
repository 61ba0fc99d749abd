#!/usr/bin/env bash
# Gets the programs that the tests run, as Debian packages them. CNI plugins, containerd, runc and
# promtool are unpacked below target/testbed and not installed. systemd, a D-Bus daemon and the
# tools that boot them in namespaces of their own (tests/testbed/systemd), nft, tmux, and valgrind
# (perf/instructions.sh) are installed where they are missing. Where that isn't possible, the tests
# report what they skip.
set -euo pipefail
cd "$(dirname "$0")/.."
root=target/testbed/opt

say() { echo "test-deps: $*" >&2; }

if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    say "no apt-get: tests that need systemd, CNI plugins, containerd or promtool are skipped where these are missing"
    exit 0
fi

# Updates the package lists, once and only where something is missing: a fresh image has none.
lists() {
    [ -n "${listed:-}" ] && return
    listed=yes
    if [ "$(id -u)" -eq 0 ]; then apt-get -qq update; else say "not root: package lists not updated"; fi
}

# get FOLDER PACKAGE...: downloads and unpacks the packages, once.
get() {
    local folder=$root/$1
    shift
    [ -d "$folder" ] && return
    lists
    rm -rf "$folder.new"
    mkdir -p "$folder.new/debs"
    (cd "$folder.new/debs" && apt-get -q -o APT::Sandbox::User=root download "$@" >/dev/null)
    for deb in "$folder.new"/debs/*.deb; do dpkg -x "$deb" "$folder.new"; done
    rm -rf "$folder.new/debs"
    mv "$folder.new" "$folder"
}

get cni containernetworking-plugins || say "no CNI plugins: their tests are skipped"
get busybox busybox-static || say "no busybox for containers to run: their tests are skipped"
get containerd containerd runc || say "no containerd: its tests are skipped"
command -v promtool >/dev/null || get prometheus prometheus ||
    say "no promtool: the check of the metrics' format is skipped"

# OpenTelemetry's Python SDK, the packages for a receiver of OTLP (tests/sdk), and a validator of JSON
# Schema (tests/cli).
sdk=$root/sdk
if ! [ -x "$sdk/bin/python" ]; then
    rm -rf "$sdk.new"
    if ! python3 -m ensurepip --version >/dev/null 2>&1 && [ "$(id -u)" -eq 0 ]; then
        lists
        apt-get -qq install --yes --no-install-recommends python3-venv >/dev/null || true
    fi
    if python3 -m venv "$sdk.new" >/dev/null 2>&1 &&
        "$sdk.new/bin/pip" install -q --disable-pip-version-check grpcio opentelemetry-sdk \
            opentelemetry-exporter-otlp jsonschema >/dev/null 2>&1; then
        mv "$sdk.new" "$sdk"
    else
        rm -rf "$sdk.new"
        say "no OpenTelemetry SDK for Python: its tests are skipped"
    fi
fi

missing=()
[ -x /lib/systemd/systemd ] || missing+=(systemd)
command -v dbus-daemon >/dev/null || missing+=(dbus)
command -v nsenter >/dev/null || missing+=(util-linux)
command -v ip >/dev/null || missing+=(iproute2)
command -v nft >/dev/null || missing+=(nftables)
command -v tmux >/dev/null || missing+=(tmux)
command -v valgrind >/dev/null || missing+=(valgrind)
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
    say "missing: ${missing[*]}; the tests that need them are skipped"
    exit 0
fi
lists
export DEBIAN_FRONTEND=noninteractive
apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
say "installed: ${missing[*]}"
