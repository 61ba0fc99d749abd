#!/usr/bin/env bash
# Installs what the build needs in addition to a Rust toolchain: clang (for the eBPF programs),
# libbpf's headers and a linker. Does nothing if all are installed.
set -euo pipefail

say() { echo "deps: $*" >&2; }

if ! command -v cargo >/dev/null; then
    say "cargo is missing: install Rust with rustup (rust-lang.org/tools/install)"
    exit 1
fi

missing=()
command -v clang >/dev/null || missing+=(clang)
# asm/types.h is in a folder per architecture; clang finds it with the compiler's headers.
[ -e /usr/include/bpf/bpf_helpers.h ] || missing+=(libbpf-dev)
command -v cc >/dev/null || missing+=(gcc libc6-dev)
[ ${#missing[@]} -eq 0 ] && exit 0

say "missing: ${missing[*]}"
if ! command -v apt-get >/dev/null; then
    say "no apt-get: install clang, libbpf's headers (bpf/bpf_helpers.h) and a C linker"
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        say "neither root nor sudo: as root, run apt-get install ${missing[*]}"
        exit 1
    fi
    as_root=(sudo)
fi
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get -qq update
"${as_root[@]}" apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
say "installed: ${missing[*]}"
