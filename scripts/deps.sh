#!/usr/bin/env bash
# Installs what the build needs in addition to a Rust toolchain: clang (for the eBPF programs),
# libbpf's headers and a linker. Does nothing if all are installed.
#
# usage: scripts/deps.sh [static]    static: also what the static programs of `make dist` need
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
if [ "${1:-}" = static ]; then
    # The standard library for musl, with musl itself, its start files and an unwinder.
    target=$(uname -m)-unknown-linux-musl
    if ! [ -d "$(rustc --print target-libdir --target "$target")" ]; then
        command -v rustup >/dev/null || { say "no rustup: install Rust's standard library for $target"; exit 1; }
        rustup --quiet target add "$target"
    fi
    # musl's headers and a compiler that uses them, for the C code of dependencies.
    command -v musl-gcc >/dev/null || missing+=(musl-tools)
fi
[ ${#missing[@]} -eq 0 ] && exit 0

say "missing: ${missing[*]}"
if ! command -v apt-get >/dev/null; then
    say "no apt-get: install clang, libbpf's headers (bpf/bpf_helpers.h) and a C linker; for make dist also musl-gcc"
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
