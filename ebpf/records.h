/* The interface between the programs and src/collector/ebpf/raw.rs: kinds, counters, configuration
 * and record layouts. Offsets are asserted here; raw.rs reads by the same offsets. All numbers are
 * in the machine's byte order, addresses and ports in network order where a comment states it. */
#pragma once

enum tp_kind {
	KIND_EXEC = 0,
	KIND_FORK,
	KIND_EXIT,
	KIND_OOM_KILL,
	KIND_SIGNAL,
	KIND_CONNECT,
	KIND_ACCEPT,
	KIND_CLOSE,
	KIND_REFUSED,
	KIND_RESET,
	KIND_RETRANSMIT,
	KIND_TIMEOUT,
	KIND_BLOCK_ERROR,
	KIND_BLOCK_SLOW,
	KIND_ERROR_RATE,
	KIND_ENTER,
	KIND_FILE_CREATE,
	KIND_CGROUP, /* control: for the table of cgroup paths, not an event */
	KINDS,
};

/* The outcome of a record; the index into a kind's counters. */
enum tp_outcome {
	OUT_EMITTED = 0,
	OUT_RING_FULL,
	OUT_THROTTLED,
	OUT_MAP_FULL,
	OUTCOMES,
};

struct tp_counters {
	__u64 n[OUTCOMES];
};

/* Written by user space once, after loading. With kinds == 0 every program returns at once. */
struct tp_config {
	__u64 kinds;            /* bit per tp_kind */
	__u64 signals;          /* bit per signal number */
	__u64 block_slow_ns;
	__u64 interval_ns;      /* time per record of a cgroup; 0: no limit */
	__u64 burst_ns;         /* how far a cgroup may be ahead: burst * interval_ns */
	__u64 errno_ignored[3]; /* bit per errno */
	__u64 self_tgid;        /* process whose TCP and system calls are skipped; 0: none */
	__u64 enter_cgroup;     /* only home cgroup whose system calls are emitted; 0: all */
	__u64 args_bytes;       /* bytes of a command line that are read */
};

/* control[CONTROL_SLEEP]: 1 while user space sleeps on the ring buffer.
 * control[CONTROL_GENERATION]: which half of error_counts the programs write. */
enum tp_control {
	CONTROL_SLEEP = 0,
	CONTROL_GENERATION,
	CONTROLS,
};

/* A home cgroup: the inode number of the unified cgroup. For a task in the unified root, whose
 * memory cgroup (v1, hybrid) isn't a root, it is the number of the memory cgroup with the
 * hierarchy's id above this bit. */
#define HIERARCHY_SHIFT 48

#define COMM_BYTES 16
#define PATH_BYTES 256
#define ARGS_BYTES 512
#define CGROUP_PATH_BYTES 512
#define NAME_BYTES 64

struct tp_head {
	__u16 kind;
	__u16 cpu;
	__u32 tgid;    /* 0: unknown */
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 cgroup;  /* home cgroup; 0: unknown */
	__u32 tid;
	__u32 flags;
};
_Static_assert(sizeof(struct tp_head) == 32, "head");

struct tp_task {
	__u64 start_ns; /* CLOCK_BOOTTIME of the process's start */
	__u32 ppid;
	__u32 uid;
	__u32 sid; /* session id */
	__u32 pad;
	char comm[COMM_BYTES];
};
_Static_assert(sizeof(struct tp_task) == 40, "task");

#define EXEC_TRUNCATED 1   /* the command line is longer than the part that was read */
#define EXEC_ARGS_UNREAD 2 /* the command line's pages weren't in memory */

struct tp_exec {
	struct tp_head head;
	struct tp_task task;
	__u32 args_len;
	__u32 folder_len; /* of the working directory, at the end of `folder`; 0: unknown */
	char path[PATH_BYTES];
	char args[ARGS_BYTES];
	char folder[PATH_BYTES];
};
_Static_assert(__builtin_offsetof(struct tp_exec, args_len) == 72, "exec.args_len");
_Static_assert(__builtin_offsetof(struct tp_exec, path) == 80, "exec.path");
_Static_assert(__builtin_offsetof(struct tp_exec, args) == 336, "exec.args");
_Static_assert(__builtin_offsetof(struct tp_exec, folder) == 848, "exec.folder");
_Static_assert(sizeof(struct tp_exec) == 1104, "exec");

struct tp_file {
	struct tp_head head;
	struct tp_task task;
	__u32 len; /* of the path, at the end of `path`; 0: unknown */
	__u32 pad;
	char path[PATH_BYTES];
};
_Static_assert(__builtin_offsetof(struct tp_file, path) == 80, "file.path");
_Static_assert(sizeof(struct tp_file) == 336, "file");

struct tp_fork {
	struct tp_head head; /* of the child */
	struct tp_task task;
};

struct tp_exit {
	struct tp_head head;
	struct tp_task task;
	__u64 boot_ns; /* time of the record, on the clock of start_ns */
	__u32 code;    /* as wait(2) reports it */
	__u32 pad;
};
_Static_assert(__builtin_offsetof(struct tp_exit, boot_ns) == 72, "exit.boot_ns");
_Static_assert(sizeof(struct tp_exit) == 88, "exit");

#define SIGNAL_FATAL 1     /* no handler: the default action ends the process */
#define SIGNAL_BY_KERNEL 2 /* the kernel sent it, not a process */

struct tp_signal {
	struct tp_head head; /* of the receiving process */
	struct tp_task task;
	__u32 number;
	__s32 code;
	__u32 sender;
	__u32 pad;
	char sender_comm[COMM_BYTES];
};
_Static_assert(__builtin_offsetof(struct tp_signal, number) == 72, "signal.number");
_Static_assert(sizeof(struct tp_signal) == 104, "signal");

struct tp_oom {
	struct tp_head head; /* of the victim */
	struct tp_task task;
	__u64 rss_pages;
	__u64 limit_pages; /* 0: the node ran out of memory, no cgroup */
	__u64 usage_pages;
	__u64 memory_cgroup; /* the limited cgroup with its hierarchy, as in a home cgroup */
	__u32 killer;
	__s32 score_adj;
	char killer_comm[COMM_BYTES];
	char memory_cgroup_name[NAME_BYTES];
};
_Static_assert(__builtin_offsetof(struct tp_oom, rss_pages) == 72, "oom.rss_pages");
_Static_assert(__builtin_offsetof(struct tp_oom, killer) == 104, "oom.killer");
_Static_assert(__builtin_offsetof(struct tp_oom, killer_comm) == 112, "oom.killer_comm");
_Static_assert(sizeof(struct tp_oom) == 192, "oom");

#define TCP_INCOMING 1    /* the peer opened the connection */
#define TCP_RESET_SENT 2  /* this side sent the reset */
#define TCP_KNOWN_SINCE 4 /* duration_ns counts from the connection's start */

struct tp_tcp {
	struct tp_head head;
	__u64 start_ns; /* of the process; 0: unknown */
	__u64 duration_ns;
	__u16 family;
	__u16 local_port;
	__u16 peer_port;
	__u8 old_state;
	__u8 new_state;
	__s32 error;
	__u32 retransmits;
	__u8 local[16]; /* network order; IPv4 in the first four */
	__u8 peer[16];
	__u32 uid;
	__u32 pad;
	char comm[COMM_BYTES];
};
_Static_assert(__builtin_offsetof(struct tp_tcp, family) == 48, "tcp.family");
_Static_assert(__builtin_offsetof(struct tp_tcp, local) == 64, "tcp.local");
_Static_assert(sizeof(struct tp_tcp) == 120, "tcp");

struct tp_block {
	struct tp_head head; /* of the process that issued the request */
	__u64 sector;
	__u64 latency_ns;
	__u32 bytes;
	__u32 op;
	__u32 status; /* blk_status_t */
	__u32 major;
	__u32 minor;
	__u32 pad;
	char disk[32];
	char comm[COMM_BYTES];
};
_Static_assert(__builtin_offsetof(struct tp_block, bytes) == 48, "block.bytes");
_Static_assert(__builtin_offsetof(struct tp_block, disk) == 72, "block.disk");
_Static_assert(sizeof(struct tp_block) == 120, "block");

struct tp_enter {
	struct tp_head head;
	__s64 number;
};
_Static_assert(sizeof(struct tp_enter) == 40, "enter");

#define CGROUP_REMOVED 1

struct tp_cgroup {
	struct tp_head head;
	__u64 id; /* with its hierarchy, as in a home cgroup */
	char path[CGROUP_PATH_BYTES];
};
_Static_assert(sizeof(struct tp_cgroup) == 552, "cgroup");

/* Written by iter/task for each process that exists already. */
struct tp_seed {
	struct tp_task task;
	__u64 cgroup;
	__u32 tgid;
	__u32 pad;
};
_Static_assert(sizeof(struct tp_seed) == 56, "seed");

/* A key of error_counts; the value is a __u64 per CPU. */
struct tp_error_key {
	__u64 cgroup;
	__u32 number;
	__u16 error;
	__u16 generation;
};
_Static_assert(sizeof(struct tp_error_key) == 16, "error_key");
