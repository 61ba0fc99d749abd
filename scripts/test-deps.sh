#!/usr/bin/env bash
# Installs what tests against real counterparts need: systemd, a D-Bus daemon and what boots them in
# namespaces of their own (tests/testbed/systemd). Does nothing where all is there, nor without root:
# those tests then say why they are skipped.
set -euo pipefail

say() { echo "test-deps: $*" >&2; }

missing=()
[ -x /lib/systemd/systemd ] || missing+=(systemd)
command -v dbus-daemon >/dev/null || missing+=(dbus)
command -v nsenter >/dev/null || missing+=(util-linux)
command -v ip >/dev/null || missing+=(iproute2)
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    say "missing: ${missing[*]}; the tests that need them are skipped"
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
say "installed: ${missing[*]}"
