/* The identity of a task: cgroup, session, process. */
#pragma once

static __always_inline struct cgroup_subsys_state *memory_css(struct task_struct *task)
{
	struct cgroup_subsys_state *css = 0;
	struct css_set *set = task->cgroups;
	const char *first = (const char *)__builtin_preserve_access_index(&set->subsys);
	__u64 index = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);

	if (!bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id))
		return 0;
	bpf_probe_read_kernel(&css, sizeof(css), first + index * sizeof(css));
	return css;
}

/* A cgroup's number with its hierarchy. */
static __always_inline __u64 cgroup_number(struct cgroup *cgroup)
{
	return (__u64)BPF_CORE_READ(cgroup, root, hierarchy_id) << HIERARCHY_SHIFT |
	       BPF_CORE_READ(cgroup, kn, id);
}

static __always_inline __u64 home_cgroup(struct task_struct *task)
{
	struct cgroup *unified = task->cgroups->dfl_cgrp;
	struct cgroup_subsys_state *css;
	struct cgroup *memory;

	if (unified->level > 0)
		return unified->kn->id;
	css = memory_css(task);
	memory = BPF_CORE_READ(css, cgroup);
	if (memory && BPF_CORE_READ(memory, level) > 0)
		return cgroup_number(memory);
	return unified->kn->id;
}

static __always_inline __u32 session_of(struct task_struct *task)
{
	struct signal_struct *signal = task->signal;
	struct pid *session = 0;
	const char *first = (const char *)__builtin_preserve_access_index(&signal->pids);
	__u64 index = bpf_core_enum_value(enum pid_type, PIDTYPE_SID);

	bpf_probe_read_kernel(&session, sizeof(session), first + index * sizeof(session));
	return BPF_CORE_READ(session, numbers[0].nr);
}

static __always_inline void describe(struct tp_task *to, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;

	to->start_ns = leader->start_boottime;
	to->ppid = leader->real_parent->tgid;
	to->uid = task->cred->uid.val;
	to->sid = session_of(task);
	to->pad = 0;
	bpf_probe_read_kernel(to->comm, sizeof(to->comm), leader->comm);
}
