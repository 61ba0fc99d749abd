/* Everything tapio runs in the kernel: one object with one set of maps, whose programs are loaded
 * and attached one by one, so that one that can't load costs only what it tells. Only tp_btf
 * programs and an iterator: CAP_BPF and CAP_PERFMON suffice. docs/ebpf.md lists them.
 *
 * The licence string below is what the kernel asks of programs that call its GPL helpers. */
#include <linux/types.h>
#include <linux/bpf.h>
#include <stdbool.h>

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

#include "records.h"
#include "maps.h"
#include "task.h"
#include "process.bpf.h"
#include "signal.bpf.h"
#include "tcp.bpf.h"
#include "block.bpf.h"
#include "syscall.bpf.h"
#include "cgroup.bpf.h"

char LICENSE[] SEC("license") = "GPL";
