/* The eBPF programs of tapio: one object with one set of maps. The programs are loaded and attached
 * one by one, so that one that can't load costs only its own events. All are tp_btf programs or
 * iterators: CAP_BPF and CAP_PERFMON suffice. docs/ebpf.md lists them.
 *
 * The kernel requires the licence string below for programs that call its GPL helpers. */
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
#include "path.h"
#include "process.bpf.h"
#include "signal.bpf.h"
#include "tcp.bpf.h"
#include "block.bpf.h"
#include "syscall.bpf.h"
#include "file.bpf.h"
#include "cgroup.bpf.h"

char LICENSE[] SEC("license") = "GPL";
