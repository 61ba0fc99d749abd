/* kernel.file.create: a system call that opens files created one. A second program at the end of
 * every system call, so it is loaded only where the kind is enabled. */

#define FMODE_CREATED 0x100000 /* include/linux/fs.h, since Linux 4.19 */
#define MAX_FD (1 << 20)

static __always_inline int opens_files(__u64 number)
{
#if defined(__TARGET_ARCH_x86)
	return number == 2 || number == 85 || number == 257 || number == 437;
#else
	return number == 56 || number == 437;
#endif
}

SEC("tp_btf/sys_exit")
int BPF_PROG(file_create, struct pt_regs *regs, long ret)
{
	struct task_struct *task;
	const struct tp_config *c;
	struct path_buffer *b;
	struct tp_file *r;
	struct file **files, *file = 0;

	if (ret < 0 || ret >= MAX_FD || !opens_files(SYSCALL_NUMBER(regs)))
		return 0;
	c = config_if_enabled(KIND_FILE_CREATE);
	if (!c || bpf_get_current_pid_tgid() >> 32 == c->self_tgid)
		return 0;
	task = bpf_get_current_task_btf();
	files = BPF_CORE_READ(task, files, fdt, fd);
	bpf_probe_read_kernel(&file, sizeof(file), files + ret);
	if (!file || !(BPF_CORE_READ(file, f_mode) & FMODE_CREATED))
		return 0;
	r = begin(c, KIND_FILE_CREATE, sizeof(*r), home_cgroup(task), 1);
	if (!r)
		return 0;
	r->head.tgid = task->tgid;
	r->head.tid = task->pid;
	describe(&r->task, task);
	r->len = 0;
	r->pad = 0;
	b = take_path_buffer();
	if (b) {
		find_path(b, task, BPF_CORE_READ(file, f_path.mnt), BPF_CORE_READ(file, f_path.dentry));
		r->len = b->path.len;
		bpf_probe_read_kernel(r->path, sizeof(r->path), b->path.text);
		give_path_buffer(b);
	}
	publish(r, KIND_FILE_CREATE);
	return 0;
}
