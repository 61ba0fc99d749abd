#!/usr/bin/env bash
# Installs what building tapio needs beside a Rust toolchain: clang (the eBPF programs), libbpf's
# headers and a linker. Does nothing where all is there.
set -euo pipefail

say() { echo "deps: $*" >&2; }

if ! command -v cargo >/dev/null; then
    say "cargo is missing: install Rust with rustup (rust-lang.org/tools/install), then try again"
    exit 1
fi

missing=()
command -v clang >/dev/null || missing+=(clang)
# asm/types.h lies in a folder per architecture; clang finds it where the compiler's headers are.
[ -e /usr/include/bpf/bpf_helpers.h ] || missing+=(libbpf-dev)
command -v cc >/dev/null || missing+=(gcc libc6-dev)
[ ${#missing[@]} -eq 0 ] && exit 0

say "missing: ${missing[*]}"
if ! command -v apt-get >/dev/null; then
    say "this system has no apt-get: install clang, the headers of libbpf (bpf/bpf_helpers.h) and a C linker"
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        say "not root and no sudo: let an administrator run: apt-get install ${missing[*]}"
        exit 1
    fi
    as_root=(sudo)
fi
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get -qq update
"${as_root[@]}" apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
say "installed: ${missing[*]}"
