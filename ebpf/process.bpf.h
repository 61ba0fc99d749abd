/* kernel.process.exec, fork, exit: the lifecycle of processes (thread groups, not threads). */

/* Working directories of processes that run a program at this moment, by thread. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct found_path);
} exec_folders SEC(".maps");

/* Runs before process_exec, which it is attached before. A program of its own: a kernel whose
 * verifier rejects the walk along the path still reports execs. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(exec_folder, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct path_buffer *b;
	__u32 tid = task->pid;

	if (!config_if_enabled(KIND_EXEC))
		return 0;
	b = take_path_buffer();
	if (!b)
		return 0;
	find_path(b, task, BPF_CORE_READ(task, fs, pwd.mnt), BPF_CORE_READ(task, fs, pwd.dentry));
	bpf_map_update_elem(&exec_folders, &tid, &b->path, BPF_ANY);
	give_path_buffer(b);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	const struct tp_config *c = config_if_enabled(KIND_EXEC);
	struct tp_exec *r;
	struct found_path *folder;
	struct mm_struct *mm;
	__u64 start, len;
	__u32 tid = task->pid;

	if (!c)
		return 0;
	r = begin(c, KIND_EXEC, sizeof(*r), home_cgroup(task), 1);
	if (!r)
		return 0;
	r->head.tgid = task->tgid;
	r->head.tid = task->pid;
	describe(&r->task, task);
	bpf_probe_read_kernel_str(r->path, sizeof(r->path), bprm->filename);
	r->folder_len = 0;
	folder = bpf_map_lookup_elem(&exec_folders, &tid);
	if (folder) {
		r->folder_len = folder->len;
		bpf_probe_read_kernel(r->folder, sizeof(r->folder), folder->text);
		bpf_map_delete_elem(&exec_folders, &tid);
	}

	mm = task->mm;
	start = mm->arg_start;
	len = mm->arg_end - start;
	if (len > c->args_bytes) {
		len = c->args_bytes;
		r->head.flags |= EXEC_TRUNCATED;
	}
	if (len > ARGS_BYTES)
		len = ARGS_BYTES;
	if (bpf_probe_read_user(r->args, len, (const void *)start)) {
		r->head.flags |= EXEC_ARGS_UNREAD;
		len = 0;
	}
	r->args_len = len;
	publish(r, KIND_EXEC);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_fork, struct task_struct *parent, struct task_struct *child)
{
	const struct tp_config *c = config_if_enabled(KIND_FORK);
	struct tp_fork *r;

	if (!c || child->pid != child->tgid)
		return 0;
	r = begin(c, KIND_FORK, sizeof(*r), home_cgroup(child), 1);
	if (!r)
		return 0;
	r->head.tgid = child->tgid;
	r->head.tid = child->pid;
	describe(&r->task, child);
	publish(r, KIND_FORK);
	return 0;
}

#define SIGNAL_GROUP_EXIT 0x4 /* include/linux/sched/signal.h: group_exit_code is valid */

static __always_inline void emit_exit(const struct tp_config *c, struct task_struct *task)
{
	struct signal_struct *signal = task->signal;
	struct tp_exit *r = begin(c, KIND_EXIT, sizeof(*r), home_cgroup(task), 1);

	if (!r)
		return;
	r->head.tgid = task->tgid;
	r->head.tid = task->pid;
	describe(&r->task, task);
	r->boot_ns = bpf_ktime_get_boot_ns();
	/* As the parent's wait(2) reports it. */
	r->code = signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code :
						      task->group_leader->exit_code;
	r->pad = 0;
	publish(r, KIND_EXIT);
}

/* Since Linux 6.16 the kernel itself marks the last thread. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *task, bool group_dead)
{
	const struct tp_config *c = config_if_enabled(KIND_EXIT);

	if (c && group_dead)
		emit_exit(c, task);
	return 0;
}

/* Processes whose exit or OOM kill was emitted already: the two last threads may both see that no
 * other thread lives, and the OOM killer may mark several threads of one process. */
struct once_key {
	__u64 start_ns;
	__u32 tgid;
	__u32 kind;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct once_key);
	__type(value, __u8);
} once SEC(".maps");

static __always_inline int first_time(struct task_struct *task, __u32 kind)
{
	struct once_key key = {
		.start_ns = task->group_leader->start_boottime,
		.tgid = task->tgid,
		.kind = kind,
	};
	__u8 one = 1;

	return bpf_map_update_elem(&once, &key, &one, BPF_NOEXIST) == 0;
}

/* Before Linux 6.16. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit_live, struct task_struct *task)
{
	const struct tp_config *c = config_if_enabled(KIND_EXIT);

	if (c && task->signal->live.counter == 0 && first_time(task, KIND_EXIT))
		emit_exit(c, task);
	return 0;
}

/* Every process that exists already. */
SEC("iter/task")
int process_seed(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct tp_seed seed = {};

	if (!task || task->pid != task->tgid)
		return 0;
	describe(&seed.task, task);
	seed.cgroup = home_cgroup(task);
	seed.tgid = task->tgid;
	bpf_seq_write(ctx->meta->seq, &seed, sizeof(seed));
	return 0;
}
