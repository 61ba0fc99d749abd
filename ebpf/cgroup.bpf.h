/* Control records about cgroups that are created and removed, so that the events of a container
 * that lived for a few milliseconds still get its path. */

static __always_inline int emit_cgroup(struct cgroup *cgroup, const char *path, __u32 flags)
{
	const struct tp_config *c = config_if_enabled(KIND_CGROUP);
	struct tp_cgroup *r;

	if (!c)
		return 0;
	r = begin(c, KIND_CGROUP, sizeof(*r), 0, 0);
	if (!r)
		return 0;
	r->head.flags = flags;
	r->id = cgroup_number(cgroup);
	bpf_probe_read_kernel_str(r->path, sizeof(r->path), path);
	publish(r, KIND_CGROUP);
	return 0;
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(cgroup_mkdir, struct cgroup *cgroup, const char *path)
{
	return emit_cgroup(cgroup, path, 0);
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(cgroup_rmdir, struct cgroup *cgroup, const char *path)
{
	return emit_cgroup(cgroup, path, CGROUP_REMOVED);
}
