#!/usr/bin/env bash
# Measures the path from the kernel to the store: dd reads and writes byte by byte in a cgroup of
# its own, and each of its system calls is an event: kernel → eBPF → agent → server, the latter two
# in processes of their own. Prints how many events were emitted, stored and lost (counted in the
# kernel), their delay at the server, and the CPU time of the agent's threads.
#
# usage: perf/kernel.sh [SECONDS] [RATE] [BYTES]
#        SECONDS: duration (10); RATE: limit of events per second in the kernel, 0 for no limit (0);
#        BYTES: size of the ring buffer (16 MiB). Needs root and a release build.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-10} rate=${2:-0} ring_bytes=${3:-16777216}
tapio=target/release/tapio
[ "$(id -u)" -eq 0 ] || { echo "kernel.sh: needs root, to create the cgroup and to load eBPF programs" >&2; exit 1; }
[ -x "$tapio" ] || { echo "kernel.sh: $tapio is missing: run make build" >&2; exit 1; }

root=/sys/fs/cgroup
[ -e "$root/cgroup.controllers" ] || root=$root/unified
name=tapio-perf-$$
dir=$(mktemp -d)
pids=()
end() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" || true; done
    rm -rf "$dir"
    rmdir "$root/$name"
}
mkdir "$root/$name"
trap end EXIT

port=$((20000 + $$ % 10000 * 4))
cat >"$dir/tapio.yaml" <<YAML
state_dir: $dir/agent
node: perf
log: { level: warn }
admin: { listen: "127.0.0.1:$port" }
bridge: { endpoint: "127.0.0.1:$((port + 1))" }
server: { grpc_listen: "127.0.0.1:$((port + 1))", http_listen: "127.0.0.1:$((port + 2))", data_dir: $dir/store }
collectors:
  ebpf:
    kinds: [kernel.process.exec, kernel.process.fork, kernel.process.exit, kernel.process.signal, kernel.process.oom_kill, kernel.tcp.refused, kernel.syscall.enter]
    syscall_enter_cgroup: /$name
    ring_buffer_bytes: $ring_bytes
    rate_per_cgroup: $rate
    burst_per_cgroup: $((rate / 100 + 1))
YAML
"$tapio" server --config "$dir/tapio.yaml" & server=$! pids+=($!)
"$tapio" run --config "$dir/tapio.yaml" & agent=$! pids=("$agent" "${pids[@]}")

page() { curl -s "http://127.0.0.1:$1/metrics" || true; }
of() { awk -v what="$2" 'index($0, what) == 1 { sum += $NF } END { printf "%.0f\n", sum }' <<<"$1"; }
until page "$port" | grep -q '^tapio_ebpf_records_drained_total'; do sleep 0.1; done
cpu_ns() { # PREFIX: CPU time of the agent's threads whose names begin with it
    for task in /proc/"$agent"/task/*; do
        if [[ $(<"$task/comm") == "$1"* ]]; then cut -d' ' -f1 "$task/schedstat"; fi
    done | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}
each=("" c:ebpf shard: bridge)
declare -A before
for thread in "${each[@]}"; do before["x$thread"]=$(cpu_ns "$thread"); done

from=$(date +%s.%N)
sh -c "echo \$\$ >$root/$name/cgroup.procs; exec timeout -s INT $seconds env LC_ALL=C dd if=/dev/zero of=/dev/null bs=1" 2>"$dir/dd" || true
took=$(awk -v a="$from" -v b="$(date +%s.%N)" 'BEGIN { print b - a }')
# The collector reads the kernel's counters of losses once a second.
sleep 1.5
for _ in $(seq 200); do
    now=$(page "$port")
    [ "$(of "$now" 'tapio_events_held{collector="ebpf"}')" -eq 0 ] && break
    sleep 0.1
done
now=$(page "$port") server_page=$(page $((port + 2)))
calls=$(awk '/records in/ { split($1, n, "+"); a = n[1] } /records out/ { split($1, n, "+"); b = n[1] } END { print a + b }' "$dir/dd")
emitted=$(of "$now" 'tapio_ebpf_records_emitted_total{kind="kernel.syscall.enter"}')
stored=$(of "$server_page" tapio_server_events_total)
echo "dd made $calls system calls in $took s"
grep -E '^tapio_(events_(received|forwarded|held|dropped)|cons1_residual).*' <<<"$now"
awk -v n="$calls" -v e="$emitted" -v s="$stored" -v t="$took" 'BEGIN {
    printf "%.0f calls/s; %.0f emitted, %.0f events/s; %.0f stored\n", n / t, e, e / t, s }'
echo "delay at the server: $(curl -s "http://127.0.0.1:$((port + 2))/api/v1/stats" | sed -n 's/.*"latency":{\([^}]*\)}.*/\1/p')"
for thread in "${each[@]}"; do
    awk -v name="${thread:-agent}" -v a="${before["x$thread"]}" -v b="$(cpu_ns "$thread")" -v e="$emitted" -v t="$took" \
        'BEGIN { printf "%s: %.2f CPU s, %.2f per million events, %.0f %% of a core\n", name, (b - a) / 1e9, (b - a) / 1e3 / e, (b - a) / 1e7 / t }'
done
grep VmHWM "/proc/$agent/status"
