/* The maps, and the functions that put a record into the ring buffer. */
#pragma once

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 << 20); /* replaced by the configured size */
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tp_config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CONTROLS);
	__type(key, __u32);
	__type(value, __u32);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KINDS);
	__type(key, __u32);
	__type(value, struct tp_counters);
} counters SEC(".maps");

/* home cgroup → the time up to which its rate limit is used */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, __u64);
} buckets SEC(".maps");

/* The configuration, if this kind is enabled. */
static __always_inline struct tp_config *config_if_enabled(__u32 kind)
{
	__u32 zero = 0;
	struct tp_config *c = bpf_map_lookup_elem(&config, &zero);

	return c && (c->kinds & (1ULL << kind)) ? c : 0;
}

/* Counts the outcome of a record, and is a full barrier, on whose order `publish` relies. A program
 * on this CPU may be interrupted by another. */
static __always_inline void tally(__u32 kind, __u32 outcome)
{
	struct tp_counters *c = bpf_map_lookup_elem(&counters, &kind);
	__u64 before;

	if (!c)
		return;
	before = __sync_fetch_and_add(&c->n[outcome], 1);
	/* The result is used, so that the compiler picks the fetching, fully ordered instruction. */
	asm volatile("" ::"r"(before));
}

/* A token bucket in one number: the time up to which the cgroup's rate limit is used. A record
 * advances it by interval_ns; it may be up to burst_ns ahead of now. */
static __always_inline int over_limit(const struct tp_config *c, __u64 cgroup, __u64 now)
{
	__u64 *used = bpf_map_lookup_elem(&buckets, &cgroup);

	if (!used) {
		__u64 first = now + c->interval_ns;

		bpf_map_update_elem(&buckets, &cgroup, &first, BPF_ANY);
		return 0;
	}
	for (int i = 0; i < 4; i++) {
		__u64 old = *(volatile __u64 *)used;
		__u64 next = (old > now ? old : now) + c->interval_ns;

		if (next - now > c->burst_ns)
			return 1;
		if (__sync_val_compare_and_swap(used, old, next) == old)
			return 0;
	}
	__sync_fetch_and_add(used, c->interval_ns);
	return 0;
}

/* Reserves a record in the ring buffer and fills in its head. 0: no room, which is counted. */
static __always_inline void *begin(const struct tp_config *c, __u32 kind, __u64 bytes,
				   __u64 cgroup, int limited)
{
	__u64 now = bpf_ktime_get_ns();
	struct tp_head *head;

	if (limited && c->interval_ns && over_limit(c, cgroup, now)) {
		tally(kind, OUT_THROTTLED);
		return 0;
	}
	head = bpf_ringbuf_reserve(&events, bytes, 0);
	if (!head) {
		tally(kind, OUT_RING_FULL);
		return 0;
	}
	head->kind = kind;
	head->cpu = bpf_get_smp_processor_id();
	head->time_ns = now;
	head->cgroup = cgroup;
	head->tgid = 0;
	head->tid = 0;
	head->flags = 0;
	return head;
}

/* Submits the record, and wakes user space if it sleeps.
 *
 *   user space                         here
 *   control[SLEEP] := 1                reserve: the ring's producer position moves
 *   full barrier              ◀──▶     full barrier (tally)
 *   poll(2) reads the position         control[SLEEP] == 1? the program that clears it wakes
 *
 * One of the two barriers comes first: either poll(2) sees the reservation and doesn't sleep, or
 * the program here sees that user space sleeps. */
static __always_inline void publish(void *record, __u32 kind)
{
	__u32 index = CONTROL_SLEEP, *sleep;
	__u64 flags = BPF_RB_NO_WAKEUP;

	tally(kind, OUT_EMITTED);
	sleep = bpf_map_lookup_elem(&control, &index);
	if (sleep && *(volatile __u32 *)sleep && __sync_val_compare_and_swap(sleep, 1, 0) == 1)
		flags = BPF_RB_FORCE_WAKEUP;
	bpf_ringbuf_submit(record, flags);
}
