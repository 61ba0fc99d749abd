#!/usr/bin/env bash
# Packs the release programs into target/package: a deb, an rpm, a tar.gz, the debug information
# apart, an SBOM (CycloneDX) and SHA256SUMS. The same commit and programs give the same bytes.
#
# usage: scripts/package.sh [image]    image: only the OCI image, as target/package/image and .tar
#
# TAPIO_BINARY, TAPIO_CNI_BINARY: the programs to pack, by default those of `make dist`. Both have to
# be static: no package contains or depends on a library.
# TAPIO_PACKAGE_DIR: the folder for the packages.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "package: $*" >&2; }

arch=$(uname -m)
target=$arch-unknown-linux-musl
tapio=${TAPIO_BINARY:-target/$target/dist/tapio}
cni=${TAPIO_CNI_BINARY:-target/$target/dist/tapio-cni}
out=${TAPIO_PACKAGE_DIR:-target/package}
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
# Of the stripped program, in MiB: larger ones aren't packed.
goal=25
for program in "$tapio" "$cni"; do
    [ -x "$program" ] || { say "$program is missing: run make dist"; exit 1; }
done
case $arch in
x86_64) deb_arch=amd64 ;;
aarch64) deb_arch=arm64 ;;
*) say "no packages for $arch"; exit 1 ;;
esac

needs=(objcopy:binutils python3:python3)
[ "${1:-}" = image ] || needs+=(dpkg-deb:dpkg rpmbuild:rpm)
missing=()
for need in "${needs[@]}"; do
    command -v "${need%:*}" >/dev/null || missing+=("${need#*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        say "missing: ${missing[*]}: install them as root"
        exit 1
    fi
    say "installs ${missing[*]}"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
fi

# A program that the dynamic linker starts names it.
for program in "$tapio" "$cni"; do
    if readelf -lW "$program" | grep -q INTERP; then
        say "$program is linked dynamically: run make dist, which builds it for $target"
        exit 1
    fi
done

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.lock)}
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
# The default in the manual pages.
unset TAPIO_SERVER
umask 022
mkdir -p "$out"
out=$(cd "$out" && pwd)
if [ "${1:-}" = image ]; then
    exec scripts/image.py "$out/image" "$version" "$tapio"
fi
work=$out/work
stage=$work/stage
doc=$stage/usr/share/doc/tapio
rm -rf "$out"/*.{deb,rpm,tar.gz,debug,json} "$out/SHA256SUMS" "$work"
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT

# The debug information is found by gdb, perf and addr2line when it lies beside the program or in
# /usr/lib/debug.
debug=tapio-$version-$arch-linux.debug
objcopy --only-keep-debug --compress-debug-sections=zlib "$tapio" "$out/$debug"
chmod 644 "$out/$debug"
objcopy --strip-all "$tapio" "$work/tapio"
(cd "$out" && objcopy --add-gnu-debuglink="$debug" work/tapio)
objcopy --strip-all "$cni" "$work/tapio-cni"

bytes=$(stat -c %s "$work/tapio")
say "tapio: $(awk "BEGIN { printf \"%.1f\", $bytes / 1048576 }") MiB stripped, at most $goal MiB"
if [ "$bytes" -gt $((goal * 1048576)) ]; then
    say "TOO LARGE; its largest sections, in KiB:"
    size -A "$work/tapio" | awk '$1 ~ /^\./ { printf "%8d %s\n", $2 / 1024, $1 }' | sort -rn | head -6 >&2
    exit 1
fi

install -D -m 755 "$work/tapio" "$stage/usr/bin/tapio"
install -D -m 755 "$work/tapio-cni" "$stage/usr/libexec/tapio/tapio-cni"
# The plugin of kubectl is the same program.
ln -s tapio "$stage/usr/bin/kubectl-tapio"
# Debian's zsh reads vendor-completions, others read site-functions.
completions=(bash:bash-completion/completions/tapio zsh:zsh/vendor-completions/_tapio
    zsh:zsh/site-functions/_tapio fish:fish/vendor_completions.d/tapio.fish)
for completion in "${completions[@]}"; do
    file=$stage/usr/share/${completion#*:}
    mkdir -p "$(dirname "$file")"
    "$work/tapio" completion "${completion%%:*}" >"$file"
done
"$work/tapio" man "$stage/usr/share/man/man1"
gzip -9n "$stage"/usr/share/man/man1/*.1
for unit in deploy/systemd/*.service; do
    program=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$unit")
    [ -x "$stage$program" ] || { say "$unit starts $program, which no package contains"; exit 1; }
    install -D -m 644 "$unit" "$stage/usr/lib/systemd/system/$(basename "$unit")"
done
# The agent's configuration may have secrets; the server isn't root and has to read its own.
install -D -m 600 deploy/package/tapio.yaml "$stage/etc/tapio/tapio.yaml"
install -D -m 644 deploy/package/server.yaml "$stage/etc/tapio/server.yaml"
for file in "$stage"/etc/tapio/*.yaml; do "$work/tapio" check --config "$file" >/dev/null; done
mkdir -p "$stage/usr/share/tapio" "$doc/docs"
cp docs/*.md "$doc/docs/"
cp -R rules "$stage/usr/share/tapio/rules"
cp README.md "$doc/README.md"
cat deploy/package/copyright LICENSE >"$doc/copyright"
gzip -9n <CHANGELOG.md >"$doc/changelog.gz"
scripts/dependencies.py licences "$target" >"$doc/THIRD-PARTY-LICENSES"
scripts/dependencies.py sbom "$target" >"$out/tapio-$version.cdx.json"
chmod -R u=rwX,go=rX "$stage/usr"

# Sets all times to the commit's, so that the archives don't have those of this run.
stamp() { find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +; }
archive() { tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" "$@"; }
stamp "$stage"

summary="Node-level event correlator"
description="Runs on every node, reads the kernel (eBPF), systemd and its journal, Kubernetes,
CNI, the container runtime and applications (OTLP), and joins the events that
belong together into stories: one trace, a ranked root cause, an impact and
recommended actions."

# The archive: unpack it below / or anywhere.
name=tapio-$version-$arch-linux
archive --transform "s,^\.,$name," -C "$stage" -cf - . | gzip -9n >"$out/$name.tar.gz"

# The deb. It depends on nothing: the programs are static.
deb=$work/deb
mkdir -p "$deb/DEBIAN"
cp -a "$stage/." "$deb/"
{
    printf '%s\n' "Package: tapio" "Version: $version" "Architecture: $deb_arch" \
        "Maintainer: tapio maintainers <maintainers@tapio.invalid>" "Section: admin" "Priority: optional" \
        "Installed-Size: $(du -sk --apparent-size "$stage" | cut -f1)"
    echo "Description: $summary"
    sed 's/^/ /' <<<"$description"
} >"$deb/DEBIAN/control"
(cd "$deb" && find etc -type f | sort | sed 's,^,/,') >"$deb/DEBIAN/conffiles"
(cd "$deb" && find usr -type f | sort | xargs md5sum) >"$deb/DEBIAN/md5sums"
for script in postinst prerm postrm; do install -m 755 "deploy/package/$script" "$deb/DEBIAN/$script"; done
stamp "$deb"
# One thread: the blocks of xz don't depend on this machine's cores.
DPKG_DEB_THREADS_MAX=1 dpkg-deb --root-owner-group -Zxz --build "$deb" "$out/tapio_${version}_$deb_arch.deb" >/dev/null

rpmbuild -bb --quiet --target "$arch-linux" --define "_topdir $work/rpm" --define "_rpmdir $work" \
    --define "_rpmfilename tapio.rpm" --define "version $version" --define "stage $stage" \
    --define "long_description $description" deploy/package/tapio.spec
mv "$work/tapio.rpm" "$out/tapio-$version-1.$arch.rpm"

(cd "$out" && sha256sum ./*.deb ./*.rpm ./*.tar.gz ./*.debug ./*.json | sed 's,\./,,' >SHA256SUMS)
ls -l "$out" | awk 'NR > 1 && $5 ~ /^[0-9]+$/ && !/^d/ { printf "package: %10d %s\n", $5, $NF }' >&2
