/* kernel.process.signal and kernel.process.oom_kill. */

#define SEND_NOINFO 0UL /* include/linux/sched/signal.h: by a process, without details */
#define SEND_PRIV 1UL   /* by the kernel, without details */
#define SI_USER 0
#define SI_QUEUE -1
#define SI_TKILL -6
#define SI_KERNEL 0x80
#define TRACE_SIGNAL_DELIVERED 0 /* include/trace/events/signal.h */
#define TRACE_SIGNAL_LOSE_INFO 4

SEC("tp_btf/signal_generate")
int BPF_PROG(process_signal, int number, struct kernel_siginfo *info, struct task_struct *task,
	     int group, int result)
{
	const struct tp_config *c = config_if_enabled(KIND_SIGNAL);
	struct sighand_struct *sighand;
	struct tp_signal *r;
	void *handler = 0;
	int code;

	if (!c || number <= 0 || number > 63 || !(c->signals & (1ULL << number)))
		return 0;
	if (result != TRACE_SIGNAL_DELIVERED && result != TRACE_SIGNAL_LOSE_INFO)
		return 0;
	r = begin(c, KIND_SIGNAL, sizeof(*r), home_cgroup(task), 1);
	if (!r)
		return 0;
	r->head.tgid = task->tgid;
	r->head.tid = task->pid;
	describe(&r->task, task);
	if ((unsigned long)info == SEND_NOINFO)
		code = SI_USER;
	else if ((unsigned long)info == SEND_PRIV)
		code = SI_KERNEL;
	else
		code = BPF_CORE_READ(info, si_code);
	r->number = number;
	r->code = code;
	r->sender = 0;
	r->pad = 0;
	__builtin_memset(r->sender_comm, 0, sizeof(r->sender_comm));
	/* Only these are sent by the current task; others come from faults, timers and limits. */
	if (code != SI_USER && code != SI_QUEUE && code != SI_TKILL) {
		r->head.flags |= SIGNAL_BY_KERNEL;
	} else {
		r->sender = bpf_get_current_pid_tgid() >> 32;
		bpf_get_current_comm(r->sender_comm, sizeof(r->sender_comm));
	}
	sighand = task->sighand;
	bpf_probe_read_kernel(&handler, sizeof(handler),
			      (const char *)__builtin_preserve_access_index(
				      &sighand->action[0].sa.sa_handler) +
				      (number - 1) * bpf_core_type_size(struct k_sigaction));
	if (number == 9 || !handler)
		r->head.flags |= SIGNAL_FATAL;
	publish(r, KIND_SIGNAL);
	return 0;
}

/* From here on page_counter means no limit: LONG_MAX bytes in pages, for every page size. */
#define NO_LIMIT (1UL << 48)
/* A charge takes up to a batch of pages at once (MEMCG_CHARGE_BATCH) and fails when less is left,
 * so the cgroup that ran out is within a batch of its limit. Reclaim by other tasks while the OOM
 * killer runs may have freed a little. */
#define LIMIT_MARGIN 256
#define MAX_DEPTH 16

/* Finds the nearest memory cgroup at its limit, from the victim's upwards. None: the node ran out
 * of memory. */
static __always_inline void find_limit(struct tp_oom *r, struct task_struct *task)
{
	struct cgroup_subsys_state *css = memory_css(task);

	for (int i = 0; i < MAX_DEPTH && css; i++) {
		/* css is mem_cgroup's first member in every kernel; CO-RE supplies the offset. */
		struct mem_cgroup *memcg =
			(void *)css - bpf_core_field_offset(struct mem_cgroup, css);
		unsigned long max = BPF_CORE_READ(memcg, memory.max);
		__s64 usage = BPF_CORE_READ(memcg, memory.usage.counter);

		if (max < NO_LIMIT && usage + LIMIT_MARGIN >= (__s64)max) {
			struct cgroup *cgroup = BPF_CORE_READ(css, cgroup);

			r->limit_pages = max;
			r->usage_pages = usage;
			r->memory_cgroup = cgroup_number(cgroup);
			bpf_probe_read_kernel_str(r->memory_cgroup_name,
						  sizeof(r->memory_cgroup_name),
						  BPF_CORE_READ(cgroup, kn, name));
			return;
		}
		css = BPF_CORE_READ(css, parent);
	}
}

/* File, anonymous and shared pages; 2 is swap. The kernel's own report reads the same counters. */
static __always_inline __u64 resident_pages(struct mm_struct *mm)
{
	struct mm_struct___old *old = (void *)mm;
	__s64 pages;

	if (!mm)
		return 0;
	if (bpf_core_field_exists(old->rss_stat.count))
		pages = BPF_CORE_READ(old, rss_stat.count[0].counter) +
			BPF_CORE_READ(old, rss_stat.count[1].counter) +
			BPF_CORE_READ(old, rss_stat.count[3].counter);
	else
		pages = BPF_CORE_READ(mm, rss_stat[0].count) + BPF_CORE_READ(mm, rss_stat[1].count) +
			BPF_CORE_READ(mm, rss_stat[3].count);
	return pages > 0 ? pages : 0;
}

/* Since Linux 6.8 the tracepoint names the victim by its task. */
SEC("tp_btf/mark_victim")
int BPF_PROG(process_oom_kill, struct task_struct *task)
{
	const struct tp_config *c = config_if_enabled(KIND_OOM_KILL);
	struct tp_oom *r;

	if (!c || !first_time(task, KIND_OOM_KILL))
		return 0;
	/* Rare, and the cause of many other events: never throttled. */
	r = begin(c, KIND_OOM_KILL, sizeof(*r), home_cgroup(task), 0);
	if (!r)
		return 0;
	r->head.tgid = task->tgid;
	r->head.tid = task->pid;
	describe(&r->task, task);
	r->rss_pages = resident_pages(task->mm);
	r->limit_pages = 0;
	r->usage_pages = 0;
	r->memory_cgroup = 0;
	__builtin_memset(r->memory_cgroup_name, 0, sizeof(r->memory_cgroup_name));
	r->killer = bpf_get_current_pid_tgid() >> 32;
	r->score_adj = task->signal->oom_score_adj;
	bpf_get_current_comm(r->killer_comm, sizeof(r->killer_comm));
	find_limit(r, task);
	publish(r, KIND_OOM_KILL);
	return 0;
}
