/* kernel.block.error and kernel.block.slow. */

#define REQ_OP_MASK 0xff

struct issued {
	__u64 time_ns;
	__u64 cgroup;
	__u32 tgid;
	__u32 tid;
	__u32 bytes;
	__u32 pad;
	char comm[COMM_BYTES];
};

/* request → the process that issued it, and when */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct issued);
} requests SEC(".maps");

static __always_inline void emit_block(const struct tp_config *c, __u32 kind, struct request *rq,
				       const struct issued *by, __u32 status, __u32 bytes)
{
	struct request___old *old = (void *)rq;
	struct gendisk *disk;
	struct tp_block *r = begin(c, kind, sizeof(*r), by ? by->cgroup : 0, 0);

	if (!r)
		return;
	if (bpf_core_field_exists(rq->q->disk))
		disk = BPF_CORE_READ(rq, q, disk);
	else
		disk = BPF_CORE_READ(old, rq_disk);
	r->sector = BPF_CORE_READ(rq, __sector);
	r->op = BPF_CORE_READ(rq, cmd_flags) & REQ_OP_MASK;
	r->status = status;
	r->bytes = bytes;
	r->major = BPF_CORE_READ(disk, major);
	r->minor = BPF_CORE_READ(disk, first_minor);
	r->pad = 0;
	bpf_probe_read_kernel_str(r->disk, sizeof(r->disk),
				  __builtin_preserve_access_index(&disk->disk_name));
	r->latency_ns = 0;
	__builtin_memset(r->comm, 0, sizeof(r->comm));
	if (by) {
		r->head.tgid = by->tgid;
		r->head.tid = by->tid;
		r->latency_ns = r->head.time_ns - by->time_ns;
		__builtin_memcpy(r->comm, by->comm, sizeof(r->comm));
	}
	publish(r, kind);
}

SEC("tp_btf/block_rq_issue")
int BPF_PROG(block_issue, struct request *rq)
{
	__u64 key = (__u64)rq, id;
	struct issued by = {};

	if (!config_if_enabled(KIND_BLOCK_SLOW) && !config_if_enabled(KIND_BLOCK_ERROR))
		return 0;
	id = bpf_get_current_pid_tgid();
	by.time_ns = bpf_ktime_get_ns();
	by.cgroup = home_cgroup(bpf_get_current_task_btf());
	by.tgid = id >> 32;
	by.tid = id;
	by.bytes = rq->__data_len;
	bpf_get_current_comm(by.comm, sizeof(by.comm));
	bpf_map_update_elem(&requests, &key, &by, BPF_ANY);
	return 0;
}

SEC("tp_btf/block_rq_complete")
int BPF_PROG(block_complete, struct request *rq, int error, unsigned int bytes)
{
	const struct tp_config *c = config_if_enabled(KIND_BLOCK_SLOW);
	__u64 key = (__u64)rq;
	struct issued *by;

	by = bpf_map_lookup_elem(&requests, &key);
	if (!by)
		return 0;
	if (c && bpf_ktime_get_ns() - by->time_ns >= c->block_slow_ns)
		emit_block(c, KIND_BLOCK_SLOW, rq, by, 0, by->bytes);
	bpf_map_delete_elem(&requests, &key);
	return 0;
}

/* Precedes block_rq_complete of the same request. */
SEC("tp_btf/block_rq_error")
int BPF_PROG(block_error, struct request *rq, int status, unsigned int bytes)
{
	const struct tp_config *c = config_if_enabled(KIND_BLOCK_ERROR);
	__u64 key = (__u64)rq;

	if (c)
		emit_block(c, KIND_BLOCK_ERROR, rq, bpf_map_lookup_elem(&requests, &key), (__u8)status,
			   bytes);
	return 0;
}
