# Sourced by the scripts here.

pid= started= temporary=
# Ends what was started here and removes what is temporary.
cleanup() {
    [ -z "$started" ] || { kill "$started" 2>/dev/null && wait "$started"; } || true
    [ -z "$temporary" ] || rm -rf "$temporary"
}
trap cleanup EXIT

export PATH="$PWD/target/tools/bin:$PATH"

# Draws flame graphs (SVG). Installed below target, like cargo-deny: about a minute, once.
need_inferno() {
    command -v inferno-flamegraph >/dev/null && return
    cargo install --quiet --locked --version 0.12.8 --no-default-features --features cli \
        --root target/tools --target-dir target/tools/build inferno
    rm -rf target/tools/build
}

# need PROGRAM PACKAGE: a program of Debian's package must be installed.
need() {
    command -v "$1" >/dev/null && return
    echo "$(basename "$0"): $1 is missing: install Debian's package $2" >&2
    exit 1
}

# The usage lines of the script.
usage() {
    sed -n '/^# usage/,/^#$/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

# Starts the command in the arguments, or takes the process whose number is the only argument, and
# sets `pid`. A command that is started here is ended at exit.
process() {
    if [ $# -eq 1 ] && [[ $1 =~ ^[0-9]+$ ]]; then
        pid=$1
        [ -d "/proc/$pid" ] || { echo "$(basename "$0"): no process $pid" >&2; exit 1; }
        return
    fi
    "$@" &
    pid=$! started=$!
    sleep "${WARM:-2}"
    [ -d "/proc/$pid" ] || { echo "$(basename "$0"): $1 has ended within ${WARM:-2} s" >&2; exit 1; }
}
