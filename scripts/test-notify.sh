#!/usr/bin/env bash
# Tests notifications against the real Alertmanager and receivers of the test's own (tests/notify),
# and the dashboards and alerts against a real Prometheus that scrapes a real agent. Gets
# Alertmanager and Prometheus, as Debian packages them, where they are missing; they aren't
# installed. What is skipped for lack of them is reported. TAPIO names the program, by default the
# debug build, which is built.
#
# usage: scripts/test-notify.sh [OPTIONS OF unittest...]
set -euo pipefail
cd "$(dirname "$0")/.."
root=target/testbed/opt

# get FOLDER PROGRAM PACKAGE: downloads and unpacks the package where the program is missing.
get() {
    local folder=$root/$1
    { command -v "$2" || [ -x "$folder/usr/bin/$2" ] || ! command -v apt-get; } >/dev/null && return
    rm -rf "$folder.new"
    mkdir -p "$folder.new"
    if (cd "$folder.new" && apt-get -q -o APT::Sandbox::User=root download "$3" >/dev/null); then
        dpkg -x "$folder.new"/*.deb "$folder.new"
        rm "$folder.new"/*.deb
        rm -rf "$folder"
        mv "$folder.new" "$folder"
    fi
}

get prometheus prometheus prometheus || true
get alertmanager prometheus-alertmanager prometheus-alertmanager || true
if [ -z "${TAPIO:-}" ]; then
    "${CARGO:-cargo}" build --locked --quiet --bin tapio
    TAPIO=${CARGO_TARGET_DIR:-target}/debug/tapio
fi
export TAPIO
exec python3 -m unittest discover -s tests/notify -p 'test_*.py' "$@"
