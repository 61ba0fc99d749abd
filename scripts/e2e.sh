#!/usr/bin/env bash
# Runs the tests against real systems: a kube-apiserver with etcd, and a node with kubelet,
# containerd and CNI. First builds Kubernetes 1.20 from Debian's source package (minutes, once) and
# unpacks Debian's packages, both into TAPIO_TESTBED (by default ~/.cache/tapio-testbed). Installs
# only curl, openssl, python3 and dpkg-dev, if they are missing.
#
# usage: scripts/e2e.sh [TEST...]      the arguments of `cargo test --test e2e -- TEST...`
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" -ne 0 ]; then
    echo "e2e: needs root, for namespaces, cgroups and eBPF" >&2
    exit 1
fi
missing=()
for tool in curl openssl python3 dpkg-source; do
    package=$tool
    [ "$tool" != dpkg-source ] || package=dpkg-dev
    command -v "$tool" >/dev/null || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "e2e: missing: ${missing[*]}" >&2
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
fi
apt-get -qq update || echo "e2e: package lists not updated; using the present ones" >&2
tests/testbed/k8s/fetch.sh
tests/testbed/k8s/build.sh
scripts/test-deps.sh
export TAPIO_REQUIRE_TESTBED=1 TAPIO_REQUIRE_KERNEL=1
exec cargo test --locked --test e2e -- --test-threads=1 "$@"
