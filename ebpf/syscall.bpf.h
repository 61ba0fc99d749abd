/* kernel.syscall.error_rate, counted here and read by user space, and kernel.syscall.enter. */

#define MAX_ERRNO 191

/* Two generations: the programs write one while user space reads and clears the other, so that no
 * count is lost between reading and clearing. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tp_error_key);
	__type(value, __u64);
} error_counts SEC(".maps");

SEC("tp_btf/sys_exit")
int BPF_PROG(syscall_exit, struct pt_regs *regs, long ret)
{
	const struct tp_config *c;
	struct tp_error_key key = {};
	__u32 index = CONTROL_GENERATION, *generation;
	__u64 one = 1, *count, error = -ret;

	if (ret >= 0 || error > MAX_ERRNO)
		return 0;
	c = config_if_enabled(KIND_ERROR_RATE);
	if (!c || (c->errno_ignored[error >> 6] >> (error & 63) & 1))
		return 0;
	if (bpf_get_current_pid_tgid() >> 32 == c->self_tgid)
		return 0;
	generation = bpf_map_lookup_elem(&control, &index);
	if (!generation)
		return 0;
	key.cgroup = home_cgroup(bpf_get_current_task_btf());
	key.number = SYSCALL_NUMBER(regs);
	key.error = error;
	key.generation = *generation;
	count = bpf_map_lookup_elem(&error_counts, &key);
	if (count)
		__sync_fetch_and_add(count, 1);
	else if (bpf_map_update_elem(&error_counts, &key, &one, BPF_NOEXIST)) {
		/* Another CPU was first, or the map is full. */
		count = bpf_map_lookup_elem(&error_counts, &key);
		if (count)
			__sync_fetch_and_add(count, 1);
		else
			tally(KIND_ERROR_RATE, OUT_MAP_FULL);
	}
	return 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(syscall_enter, struct pt_regs *regs, long number)
{
	const struct tp_config *c = config_if_enabled(KIND_ENTER);
	__u64 id = bpf_get_current_pid_tgid();
	struct tp_enter *r;
	__u64 cgroup;

	if (!c || id >> 32 == c->self_tgid)
		return 0;
	cgroup = home_cgroup(bpf_get_current_task_btf());
	if (c->enter_cgroup && cgroup != c->enter_cgroup)
		return 0;
	r = begin(c, KIND_ENTER, sizeof(*r), cgroup, 1);
	if (!r)
		return 0;
	r->head.tgid = id >> 32;
	r->head.tid = id;
	r->number = number;
	publish(r, KIND_ENTER);
	return 0;
}
