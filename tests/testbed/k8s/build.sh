#!/usr/bin/env bash
# Builds kube-apiserver and kubelet 1.20.2 with Debian's Go 1.19 in GOPATH mode. The source is
# Debian 12's source package, which contains the whole tree with vendor/. Takes three to nine
# minutes; existing programs aren't built again.
# usage: build.sh [kube-apiserver] [kubelet]
. "$(dirname "$0")/lib.sh"
[ $# -gt 0 ] || set -- kube-apiserver kubelet
todo=()
for c in "$@"; do [ -x "$BIN/$c" ] || todo+=("$c"); done
[ ${#todo[@]} -gt 0 ] || exit 0
"$HERE/fetch.sh" go

# A separate apt configuration, so that the host's isn't changed.
APT=$TESTBED/apt
mkdir -p "$APT"/{lists/partial,cache/archives/partial} "$TESTBED/gopath/src/k8s.io"
MIRROR=$(awk '/^URIs:/{print $2; exit}' /etc/apt/sources.list.d/debian.sources)
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $MIRROR bookworm main" >"$APT/src.list"
cp /var/lib/dpkg/status "$APT/status"
O=(-o Dir::Etc::SourceList="$APT/src.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$APT/lists"
   -o Dir::Cache="$APT/cache" -o Dir::State::status="$APT/status" -o APT::Sandbox::User=root)
TREE=$TESTBED/gopath/src/k8s.io/kubernetes
if [ ! -d "$TREE" ]; then
  apt-get -q "${O[@]}" update
  (cd "$TESTBED" && apt-get -q "${O[@]}" source --download-only kubernetes=1.20.5+really1.20.2-1.1+deb12u1
   dpkg-source --no-check -x kubernetes_1.20.5*.dsc "$TREE.new" && mv "$TREE.new" "$TREE" && rm -f kubernetes_1.20.5*)
fi
export PATH=$OPT/go/usr/lib/go-1.19/bin:$PATH GOROOT=$OPT/go/usr/lib/go-1.19
export GO111MODULE=off CGO_ENABLED=0 GOCACHE=$TESTBED/gocache GOPATH=$TESTBED/gopath HOME=$TESTBED
cd "$TREE"
# The vendored reflect2 crashes (SIGSEGV in mapiterinit) with Go 1.18 and later; Debian's package is
# newer.
if [ ! -e vendor/github.com/modern-go/reflect2/.renewed ]; then
  (tmp=$(mktemp -d "$TESTBED/fetch.XXXXXX"); cd "$tmp"
   apt-get -q -o APT::Sandbox::User=root download golang-github-modern-go-reflect2-dev >/dev/null
   dpkg -x golang-github-modern-go-reflect2-dev_*.deb x
   V=$TREE/vendor/github.com/modern-go/reflect2; rm -f "$V"/*.go "$V"/*.s
   cp x/usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} "$V/"; touch "$V/.renewed"; rm -rf "$tmp")
fi
# The OpenAPI definitions aren't in the source package.
if [ ! -e pkg/generated/openapi/.made ]; then
  nice -n 15 go build -o "$TESTBED/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
  DIRS=$(find cmd pkg plugin vendor/k8s.io/*/ -name '*.go' -type f ! -path '*/code-generator/*' ! -path '*/sample-apiserver/*' \
      ! -path '*/testdata/*' -print0 2>/dev/null | xargs -0 grep -l '^// *+k8s:openapi-gen=' | xargs -n1 dirname | LC_ALL=C sort -u \
    | sed 's|^|k8s.io/kubernetes/|' | paste -sd,)
  nice -n 15 "$TESTBED/openapi-gen" --logtostderr -i "$DIRS" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$TESTBED/openapi-violations.txt"
  touch pkg/generated/openapi/.made
fi
LD="-s -w"
for p in k8s.io/kubernetes/vendor/k8s.io/component-base/version k8s.io/kubernetes/vendor/k8s.io/client-go/pkg/version; do
  LD="$LD -X $p.gitVersion=v1.20.2 -X $p.gitMajor=1 -X $p.gitMinor=20 -X $p.gitTreeState=archive -X $p.gitCommit=debian"
  LD="$LD -X $p.buildDate=2021-01-13T00:00:00Z"
done
for c in "${todo[@]}"; do
  nice -n 15 go build -p 2 -trimpath -ldflags "$LD" -o "$BIN/$c.new" "k8s.io/kubernetes/cmd/$c"
  mv "$BIN/$c.new" "$BIN/$c"
done
# The source tree and Go's cache are no longer needed.
[ -n "${TAPIO_TESTBED_KEEP:-}" ] || { chmod -R u+w "$TESTBED/gocache"; rm -rf "$TESTBED/gocache" "$TESTBED/gopath" "$TESTBED/openapi-gen" "$OPT/go" "$APT"; }
