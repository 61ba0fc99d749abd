/* Paths of files and folders, as the process sees them: below its root. bpf_d_path isn't allowed at
 * tracepoints, so the names are read from the entry up to the root. */
#pragma once

#define PATH_PARTS 32 /* names and mount points on the way to the root, at most */
#define PART_BYTES 256

/* A path at the end of `text`. Of one that is longer the end is kept, without a slash in front. */
struct found_path {
	__u32 len;
	char text[PATH_BYTES];
};

struct path_buffer {
	struct found_path path;
	char slack[PART_BYTES]; /* the verifier allows for a longest name at the last byte of `text` */
	char part[PART_BYTES];
	__u32 busy;
	/* Where the path begins in `text`. In memory, where the verifier doesn't follow its value:
	 * otherwise it walks every path of the loop below for every position, for a minute. */
	volatile __u32 at;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct path_buffer);
} path_buffers SEC(".maps");

/* This CPU's buffer; 0 while another program on the CPU, which this one interrupted, uses it. */
static __always_inline struct path_buffer *take_path_buffer(void)
{
	__u32 zero = 0;
	struct path_buffer *b = bpf_map_lookup_elem(&path_buffers, &zero);

	if (!b || __sync_val_compare_and_swap(&b->busy, 0, 1))
		return 0;
	return b;
}

static __always_inline void give_path_buffer(struct path_buffer *b)
{
	__sync_val_compare_and_swap(&b->busy, 1, 0);
}

static __always_inline void find_path(struct path_buffer *b, struct task_struct *task,
				      struct vfsmount *mnt, struct dentry *dentry)
{
	struct vfsmount *root_mnt = BPF_CORE_READ(task, fs, root.mnt);
	struct dentry *root = BPF_CORE_READ(task, fs, root.dentry);
	__u64 mnt_offset = bpf_core_field_offset(struct mount, mnt);
	__u32 at;

	b->at = PATH_BYTES;
	for (int i = 0; i < PATH_PARTS; i++) {
		struct dentry *parent;
		long n;

		if (dentry == root && mnt == root_mnt)
			break;
		if (dentry == BPF_CORE_READ(mnt, mnt_root)) {
			struct mount *here = (void *)mnt - mnt_offset;
			struct mount *above = BPF_CORE_READ(here, mnt_parent);

			if (above == here)
				break;
			dentry = BPF_CORE_READ(here, mnt_mountpoint);
			mnt = (void *)above + mnt_offset;
			continue;
		}
		parent = BPF_CORE_READ(dentry, d_parent);
		if (parent == dentry)
			break;
		n = bpf_probe_read_kernel_str(b->part, sizeof(b->part),
					      BPF_CORE_READ(dentry, d_name.name));
		at = b->at;
		if (n <= 1 || n > at)
			break;
		n--; /* without the zero byte */
		at -= n;
		bpf_probe_read_kernel(&b->path.text[at & (PATH_BYTES - 1)], n & (PART_BYTES - 1),
				      b->part);
		at--;
		b->path.text[at & (PATH_BYTES - 1)] = '/';
		b->at = at;
		dentry = parent;
	}
	at = b->at;
	if (at == PATH_BYTES) {
		at--;
		b->path.text[PATH_BYTES - 1] = '/';
	}
	b->path.len = PATH_BYTES - at;
}
