#!/usr/bin/env bash
# Downloads Debian's packages of etcd, kubectl, containerd, runc, the CNI plugins, busybox, nginx
# and Go, and unpacks them into the testbed's folder. Nothing is installed on the host.
. "$(dirname "$0")/lib.sh"
get() { # NAME PACKAGE...
  local dir=$OPT/$1 tmp; shift
  [ -d "$dir" ] && return
  tmp=$(mktemp -d "$TESTBED/fetch.XXXXXX")
  (cd "$tmp" && apt-get -q -o APT::Sandbox::User=root download "$@" >/dev/null)
  for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root"; done
  mv "$tmp/root" "$dir"; rm -rf "$tmp"
}
get etcd etcd-server
get etcd-client etcd-client
get kubectl kubernetes-client
get containerd containerd runc
get cni containernetworking-plugins
get busybox busybox-static
get socat socat libwrap0
get nginx nginx nginx-common
[ "${1:-}" != go ] || get go golang-1.19-go golang-1.19-src
