#!/usr/bin/env bash
# Tests the packages of `make package` in a bare Debian (debootstrap, minbase): installs the deb,
# upgrades it while a changed conffile is kept, removes and purges it; then again under a real
# systemd of that Debian, where the units run and report the failure of another unit; the rpm, the
# archive, and the image of `make image` in a containerd (scripts/test-deps.sh). Each system is an
# overlay in namespaces of its own: nothing remains.
#
# The bare systems are built once, below TAPIO_TESTBED (by default ~/.cache/tapio-testbed).
# TAPIO_PACKAGE_DIR: the folder of the packages. SUITE: the Debian, by default bookworm.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "package-test: $*"; }
fail() { say "FAILED: $*"; exit 1; }

packages=$(cd "${TAPIO_PACKAGE_DIR:-target/package}" && pwd)
deb=$(ls "$packages"/tapio_*.deb)
rpm=$(ls "$packages"/tapio-*.rpm)
archive=$(ls "$packages"/tapio-*-linux.tar.gz)
version=$(dpkg-deb -f "$deb" Version)
suite=${SUITE:-bookworm}
cache=${TAPIO_TESTBED:-~/.cache/tapio-testbed}/package-$suite
tests=$PWD/tests/testbed/systemd
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive

# What a system contains: type, mode, owner and name of each file. Not the records of dpkg and what
# programs other than tapio write while they run.
listing() {
    find "$1" -xdev \( -path "$1/var/lib/dpkg" -o -path "$1/var/log" -o -path "$1/var/cache" -o -path "$1/var/lib/systemd" \
        -o -path "$1/proc" -o -path "$1/tmp" -o -path "$1/run" -o -path "$1/sys" -o -path "$1/dev" \) -prune \
        -o -printf '%y %m %U:%G %P\n' | sort
}

# has MODE OWNER PATH...: the files exist with these rights.
has() {
    local mode=$1 owner=$2 path
    shift 2
    for path in "$@"; do
        [ "$(stat -c '%a %U:%G' "$root/$path" 2>&1)" = "$mode $owner" ] || fail "$path: $(stat -c '%a %U:%G' "$root/$path" 2>&1), not $mode $owner"
    done
}

# Where the packages are the same in all formats.
has_files() {
    has 755 root:root usr/bin/tapio usr/libexec/tapio/tapio-cni usr/share/tapio/rules usr/share/doc/tapio
    has 644 root:root usr/lib/systemd/system/tapio.service usr/lib/systemd/system/tapio-server.service \
        etc/tapio/server.yaml usr/share/doc/tapio/{copyright,THIRD-PARTY-LICENSES,README.md,changelog.gz} \
        usr/share/tapio/rules/oom-kill.yaml usr/share/bash-completion/completions/tapio \
        usr/share/zsh/{vendor-completions,site-functions}/_tapio usr/share/fish/vendor_completions.d/tapio.fish \
        usr/share/man/man1/{tapio,tapio-run,tapio-rules-check}.1.gz
    [ "$(readlink "$root/usr/bin/kubectl-tapio")" = tapio ] || fail "usr/bin/kubectl-tapio isn't a link to tapio"
    has 600 root:root etc/tapio/tapio.yaml
}

in_root() { chroot "$root" env -i PATH="$PATH" DEBIAN_FRONTEND=noninteractive "$@"; }

# A rebuilt deb of a higher version, whose conffile differs too.
next_deb() {
    dpkg-deb -R "$deb" "$work/next"
    sed -i "s/^Version: .*/Version: $version+next/" "$work/next/DEBIAN/control"
    echo "# A line that the next version adds." >>"$work/next/etc/tapio/tapio.yaml"
    dpkg-deb --root-owner-group -Zgzip -z1 -b "$work/next" "$work/next.deb" >/dev/null
}

# The bare Debian, without systemd. Runs in a mount namespace of its own.
bare() {
    mkdir "$work/bare" && mount -t tmpfs -o size=1g tmpfs "$work/bare"
    mkdir "$work"/bare/{up,work,root}
    root=$work/bare/root
    mount -t overlay overlay -o "lowerdir=$cache/bare,upperdir=$work/bare/up,workdir=$work/bare/work" "$root"
    mount -t proc proc "$root/proc"
    cp "$deb" "$root/tmp/tapio.deb" && cp "$work/next.deb" "$root/tmp/"
    listing "$root" >"$work/before"

    in_root dpkg -i /tmp/tapio.deb >"$work/dpkg.log" 2>&1 || { cat "$work/dpkg.log"; fail "dpkg -i"; }
    has_files
    # No link in multi-user.target.wants, and no process.
    [ -z "$(find "$root/etc/systemd" -name 'tapio*' 2>/dev/null)" ] || fail "a unit is enabled"
    for exe in /proc/[0-9]*/exe; do
        case $(readlink "$exe" 2>/dev/null) in */usr/bin/tapio) fail "tapio runs: $exe" ;; esac
    done
    [ "$(in_root tapio --version)" = "tapio $version" ] || fail "tapio --version: $(in_root tapio --version)"
    [ -z "$(dpkg-deb -f "$deb" Depends)" ] || fail "the deb depends on $(dpkg-deb -f "$deb" Depends)"
    in_root tapio check --config /etc/tapio/tapio.yaml
    in_root tapio check --config /etc/tapio/server.yaml
    in_root kubectl-tapio --help | grep -q -- --namespace || fail "kubectl-tapio isn't the plugin"
    in_root bash -n /usr/share/bash-completion/completions/tapio || fail "the completion for bash"
    in_root tapio rules check /usr/share/tapio/rules | tail -n 1
    in_root dpkg --verify tapio | grep . && fail "dpkg --verify: files differ from the package"
    say "install: files and rights are right, nothing is enabled or started"

    echo "cluster: kept" >>"$root/etc/tapio/tapio.yaml"
    in_root dpkg --force-confold -i /tmp/next.deb >"$work/dpkg.log" 2>&1 || { cat "$work/dpkg.log"; fail "upgrade"; }
    [ "$(in_root dpkg-query -Wf '${Version}' tapio)" = "$version+next" ] || fail "the upgrade has no effect"
    grep -q "cluster: kept" "$root/etc/tapio/tapio.yaml" || fail "the upgrade lost the changed conffile"
    has 600 root:root etc/tapio/tapio.yaml
    in_root tapio check --config /etc/tapio/tapio.yaml
    say "upgrade: the changed conffile is kept"

    in_root dpkg -r tapio >/dev/null
    [ ! -e "$root/usr/bin/tapio" ] || fail "removed, but /usr/bin/tapio exists"
    grep -q "cluster: kept" "$root/etc/tapio/tapio.yaml" || fail "the removal lost the conffile"
    say "remove: the conffile is kept"
    in_root dpkg -P tapio >/dev/null
    listing "$root" >"$work/after"
    diff "$work/before" "$work/after" || fail "left after purge"
    say "purge: nothing is left"

    # The rpm, on the same root.
    if command -v rpm >/dev/null; then
        rpm -K --nosignature "$rpm" | grep -q 'digests OK' || fail "rpm -K: $(rpm -K "$rpm")"
        diff <(rpm -qlp "$rpm" | sort) <(cd "$work/next" && {
            find usr etc -type f -o -type l
            find etc/tapio usr/libexec/tapio usr/share/tapio usr/share/doc/tapio -type d
        } | sed 's,^,/,' | sort) || fail "the rpm has other files than the deb"
        # --nodeps, as Debian's shell isn't in rpm's database: the rpm requires nothing else.
        comm -23 <(rpm -qp --requires "$rpm" | sort -u) <(rpm -qp --provides "$rpm" | sort -u) |
            grep -v '^/bin/sh\|^rpmlib' && fail "the rpm requires more than a shell"
        mkdir -p "$root/var/lib/rpm"
        rpm --root "$root" --dbpath /var/lib/rpm --nodeps -i "$rpm" 2>"$work/rpm.log" || { cat "$work/rpm.log"; fail "rpm -i"; }
        has_files
        [ "$(in_root tapio --version)" = "tapio $version" ] || fail "tapio --version from the rpm"
        rpm --root "$root" --dbpath /var/lib/rpm -V --nodeps tapio || fail "rpm -V"
        echo "cluster: kept" >>"$root/etc/tapio/tapio.yaml"
        rpm --root "$root" --dbpath /var/lib/rpm --nodeps -e tapio 2>/dev/null
        [ ! -e "$root/usr/bin/tapio" ] || fail "the rpm is erased, but /usr/bin/tapio exists"
        grep -q "cluster: kept" "$root/etc/tapio/tapio.yaml.rpmsave" || fail "the rpm's changed configuration is lost"
        say "rpm: digests, files and rights are right; erased, the changed configuration is kept"
    else
        say "SKIPPED the rpm: rpm is missing"
    fi
    tar -C "$root/tmp" -xzf "$archive"
    for program in "$root"/tmp/tapio-*/usr/bin/tapio; do
        [ "$(in_root "${program#"$root"}" --version)" = "tapio $version" ] || fail "the archive's program doesn't run"
    done
    say "tar.gz: the program runs"
    without_libraries
}

# The archive's programs in a root that has nothing else: no library, no shell, no /etc.
without_libraries() {
    local empty=$root/tmp/empty
    mkdir "$empty"
    cp "$root"/tmp/tapio-*/usr/bin/tapio "$root"/tmp/tapio-*/usr/libexec/tapio/tapio-cni "$empty/"
    alone() { chroot "$empty" "$@"; }
    [ "$(alone /tapio --version)" = "tapio $version" ] || fail "tapio doesn't run without libraries"
    echo "log: { level: info }" >"$empty/tapio.yaml"
    alone /tapio check --config /tapio.yaml >/dev/null 2>&1 || fail "tapio check without libraries"
    alone /tapio rules list | grep -q oom-kill || fail "tapio has no rules without libraries"
    # A host name resolves as soon as /etc/hosts has it: nothing is listening there.
    mkdir "$empty/etc"
    echo "127.0.0.9 tapio-server.test" >"$empty/etc/hosts"
    [[ $(alone /tapio agents --server http://tapio-server.test:9 2>&1 || true) == *"Connection refused"* ]] ||
        fail "a name in /etc/hosts isn't resolved"
    CNI_COMMAND=VERSION alone /tapio-cni <<<'{"cniVersion":"1.0.0"}' | grep -q supportedVersions || fail "tapio-cni doesn't run without libraries"
    say "tar.gz: both programs run in an empty root, and resolve names by /etc/hosts"
}

inside() { nsenter -t "$pid" -m -p -u -i -n -C -- env -i PATH="$PATH" DEBIAN_FRONTEND=noninteractive "$@"; }
# get URL: from this machine's curl in the machine's network, since a bare Debian has none.
get() { nsenter -t "$pid" -n -- curl -sf --max-time 5 "$1"; }
# within SECONDS COMMAND...: repeats it until it succeeds.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.3
    done
}
agent_is_listed() { inside tapio agents -o json | grep -q '"health":"running"'; }
story_of_probe() { inside tapio stories --since 5m -o wide | grep -q 'package-probe'; }

# The units under a systemd of the bare Debian.
booted() {
    local state=$work/systemd
    mkdir "$state"
    cat >"$work/setup.sh" <<SETUP
cp "$deb" srv/tapio.deb
cp "$work/next.deb" srv/next.deb
mknod -m 600 dev/kmsg c 1 11
SETUP
    pid=$(ROOTFS=$cache/systemd "$tests/up.sh" "$state" "package-$$" unified "" "$work/setup.sh") || fail "no systemd could be booted"
    # The link of the process leads into its mount namespace; the dot makes find follow it.
    root=/proc/$pid/root
    root+=/.
    # systemd's own folder for the state of dynamic users.
    inside mkdir -m 700 -p /var/lib/private
    listing "$root" >"$work/before"
    inside dpkg -i /srv/tapio.deb >"$work/dpkg.log" 2>&1 || { cat "$work/dpkg.log"; fail "dpkg -i under systemd"; }
    for unit in tapio tapio-server; do
        [ "$(inside systemctl is-active $unit || true)" = inactive ] || fail "$unit was started by the installation"
        [ "$(inside systemctl is-enabled $unit || true)" = disabled ] || fail "$unit was enabled by the installation"
    done
    inside systemctl enable --now tapio-server tapio 2>/dev/null || { inside journalctl -u 'tapio*' --no-pager | tail -n 20; fail "the units don't start"; }
    say "systemd: installed, not started; both units start when enabled"
    inside systemd-run --quiet --unit=package-probe sh -c 'echo "package-probe: no such table" >&2; exit 3'
    inside tapio status --wait-ready 60s >/dev/null || { inside tapio status; fail "the agent isn't ready"; }
    within 30 agent_is_listed || { inside tapio agents; fail "the server doesn't list the agent"; }
    within 60 story_of_probe || { get http://127.0.0.1:7603/status; fail "no story of the failed unit within 60 s"; }
    say "systemd: tapio stories has the story of a failed unit"

    inside dpkg --force-confold -i /srv/next.deb >"$work/dpkg.log" 2>&1 || { cat "$work/dpkg.log"; fail "upgrade"; }
    [ "$(inside systemctl is-active tapio)" = active ] || fail "the upgrade stopped the agent"
    grep -q "restart tapio.service" "$work/dpkg.log" || fail "the upgrade doesn't name the unit to restart"
    inside systemctl restart tapio tapio-server || fail "the units don't start after the upgrade"
    inside dpkg -r tapio >/dev/null 2>&1
    [ "$(inside systemctl is-active tapio || true)" != active ] || fail "removed, but the agent runs"
    [ -d "$root/var/lib/tapio" ] || fail "the removal lost the state"
    inside dpkg -P tapio >/dev/null 2>&1
    listing "$root" >"$work/after"
    diff "$work/before" "$work/after" || fail "left after purge"
    [ ! -e "$root/run/tapio" ] || fail "/run/tapio is left after purge"
    say "systemd: upgraded, removed (stopped, state kept) and purged (nothing is left)"
}

# The image, imported and run by a containerd of the test's own.
image() {
    local opt=$PWD/target/testbed/opt/containerd/usr folder=$work/image
    local tar=$packages/image.tar
    [ -e "$tar" ] || { say "SKIPPED the image: make image writes it"; return; }
    [ -x "$opt/bin/containerd" ] || { say "SKIPPED the image: no containerd; scripts/test-deps.sh gets it"; return; }
    mkdir "$folder"
    cat >"$folder/config.toml" <<CONFIG
version = 2
root = "$folder/root"
state = "$folder/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$folder/socket"
[ttrpc]
  address = "$folder/socket.ttrpc"
CONFIG
    PATH=$opt/bin:$opt/sbin:$PATH containerd --config "$folder/config.toml" >"$folder/log" 2>&1 &
    containerd=$!
    ctr() { timeout 60 "$opt/bin/ctr" -a "$folder/socket" "$@"; }
    within 30 ctr version >/dev/null 2>&1 || { tail -n 5 "$folder/log"; fail "containerd doesn't respond"; }
    # `native` needs no overlay on the file system below.
    ctr images import --snapshotter native "$tar" >/dev/null || fail "the image can't be imported"
    run() { ctr run --rm --read-only --snapshotter native "localhost/tapio:$version" "$@"; }
    [ "$(run version /usr/bin/tapio --version)" = "tapio $version" ] || fail "the image's program doesn't run"
    run rules /usr/bin/tapio rules list | grep -q oom-kill || fail "the image's program has no rules"
    kill "$containerd"
    wait "$containerd" 2>/dev/null || true
    containerd=
    say "image: imported and run by containerd, with a read-only root"
}

# fetch NAME OPTION...: a bare Debian, once.
fetch() {
    local name=$1
    shift
    [ -d "$cache/$name" ] && return
    say "builds $cache/$name"
    mkdir -p "$cache"
    rm -rf "$cache/$name.new"
    debootstrap --variant=minbase "$@" "$suite" "$cache/$name.new" >"$cache/$name.log" 2>&1 || { tail -n 5 "$cache/$name.log"; return 1; }
    mv "$cache/$name.new" "$cache/$name"
}

if [ "${1:-}" = bare ]; then
    work=$2
    bare
    exit
fi
if [ "$(id -u)" -ne 0 ]; then
    say "SKIPPED: needs root, for chroot and overlays"
    exit 0
fi
if ! command -v debootstrap >/dev/null; then
    apt-get -qq update && apt-get -qq install --yes --no-install-recommends debootstrap >/dev/null ||
        { say "SKIPPED: debootstrap can't be installed"; exit 0; }
fi
fetch bare || { say "SKIPPED: no bare Debian"; exit 0; }
work=$(mktemp -d)
pid=
containerd=
end() {
    [ -z "$containerd" ] || { kill "$containerd" && wait "$containerd"; } 2>/dev/null || true
    [ ! -d "$work/systemd" ] || "$tests/down.sh" "$work/systemd" "package-$$"
    rm -rf "$work"
}
trap end EXIT
(cd "$packages" && sha256sum --quiet -c SHA256SUMS) || fail "SHA256SUMS"
next_deb
unshare --mount --pid --fork --mount-proc --propagation private "$0" bare "$work"
if fetch systemd --include=systemd,dbus,iproute2; then
    booted
else
    say "SKIPPED the units: no bare Debian with systemd"
fi
image
say "passed"
