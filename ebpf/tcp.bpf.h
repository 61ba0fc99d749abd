/* kernel.tcp.*: connections and their failures.
 *
 * A state changes where the packet is handled, often in a softirq while another task runs. The
 * owner of a socket is therefore recorded when the owner itself acts: at connect(2) and listen(2).
 */

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define ECONNREFUSED 111
#define ETIMEDOUT 110

enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_SYN_RECV = 3,
	TCP_TIME_WAIT = 6,
	TCP_CLOSE = 7,
	TCP_LISTEN = 10,
};

struct owner {
	__u64 since_ns; /* time of connect or accept; 0: not observed */
	__u64 start_ns;
	__u64 cgroup;
	__u32 tgid;
	__u32 tid;
	__u32 uid;
	__u16 incoming;
	__u16 closed; /* emitted; kept until the socket is destroyed, because a reset may follow */
	char comm[COMM_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, __u64); /* the socket's address */
	__type(value, struct owner);
} owners SEC(".maps");

struct listener {
	__u32 netns;
	__u32 port;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct listener);
	__type(value, struct owner);
} listeners SEC(".maps");

static __always_inline void owned_by(struct owner *o, struct task_struct *task)
{
	o->start_ns = task->group_leader->start_boottime;
	o->cgroup = home_cgroup(task);
	o->tgid = task->tgid;
	o->tid = task->pid;
	o->uid = task->cred->uid.val;
	bpf_probe_read_kernel(o->comm, sizeof(o->comm), task->comm);
}

static __always_inline void current_owner(struct owner *o)
{
	o->since_ns = bpf_ktime_get_ns();
	owned_by(o, bpf_get_current_task_btf());
}

static __always_inline __u16 local_port(const struct sock *sk)
{
	const struct inet_sock *inet = (const void *)sk;
	__u16 port = sk->__sk_common.skc_num;

	/* Zero once the port is released, which precedes the change to CLOSE. */
	return port ? port : bpf_ntohs(BPF_CORE_READ(inet, inet_sport));
}

static __always_inline void addresses_of(struct tp_tcp *r, const struct sock *sk)
{
	r->family = sk->__sk_common.skc_family;
	r->local_port = local_port(sk);
	r->peer_port = bpf_ntohs(sk->__sk_common.skc_dport);
	if (r->family == AF_INET6) {
		BPF_CORE_READ_INTO(&r->local, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&r->peer, sk, __sk_common.skc_v6_daddr);
	} else {
		*(__u32 *)r->local = sk->__sk_common.skc_rcv_saddr;
		*(__u32 *)r->peer = sk->__sk_common.skc_daddr;
	}
}

/* The addresses of an incoming packet: its destination is local. */
static __always_inline void addresses_in(struct tp_tcp *r, const struct sk_buff *skb)
{
	const unsigned char *ip = skb->head + skb->network_header;
	const unsigned char *tcp = skb->head + skb->transport_header;
	__u8 version = 0;
	__be16 ports[2] = {};

	bpf_probe_read_kernel(&version, 1, ip);
	bpf_probe_read_kernel(ports, sizeof(ports), tcp);
	r->peer_port = bpf_ntohs(ports[0]);
	r->local_port = bpf_ntohs(ports[1]);
	if (version >> 4 == 6) {
		r->family = AF_INET6;
		bpf_probe_read_kernel(r->peer, 16, ip + 8);
		bpf_probe_read_kernel(r->local, 16, ip + 24);
	} else {
		r->family = AF_INET;
		bpf_probe_read_kernel(r->peer, 4, ip + 12);
		bpf_probe_read_kernel(r->local, 4, ip + 16);
	}
}

/* Begins a record about a socket; the owner is 0 where it is unknown. */
static __always_inline struct tp_tcp *begin_tcp(const struct tp_config *c, __u32 kind,
						const struct sock *sk, const struct owner *o)
{
	struct cgroup *cgroup;
	struct tp_tcp *r;
	__u64 home = 0;

	if (o && o->tgid == c->self_tgid)
		return 0;
	if (o) {
		home = o->cgroup;
	} else if (sk) {
		cgroup = BPF_CORE_READ(sk, sk_cgrp_data.cgroup);
		home = BPF_CORE_READ(cgroup, kn, id);
	}
	r = begin(c, kind, sizeof(*r), home, 1);
	if (!r)
		return 0;
	__builtin_memset(&r->start_ns, 0, sizeof(*r) - sizeof(r->head));
	if (o) {
		r->head.tgid = o->tgid;
		r->head.tid = o->tid;
		r->start_ns = o->start_ns;
		r->uid = o->uid;
		r->head.flags = o->incoming ? TCP_INCOMING : 0;
		if (o->since_ns) {
			r->head.flags |= TCP_KNOWN_SINCE;
			r->duration_ns = r->head.time_ns - o->since_ns;
		}
		__builtin_memcpy(r->comm, o->comm, sizeof(r->comm));
	}
	return r;
}

static __always_inline void emit_state_change(__u32 kind, const struct sock *sk,
					      const struct owner *o, int old_state, int new_state, int error)
{
	const struct tp_config *c = config_if_enabled(kind);
	struct tp_tcp *r;

	if (!c)
		return;
	r = begin_tcp(c, kind, sk, o);
	if (!r)
		return;
	addresses_of(r, sk);
	r->old_state = old_state;
	r->new_state = new_state;
	r->error = error;
	publish(r, kind);
}

static __always_inline void listener_of(struct listener *key, const struct sock *sk)
{
	key->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	key->port = local_port(sk);
}

/* A connection that the peer opened belongs to the process that listens on the port. */
static __always_inline void accepted(const struct sock *sk, __u64 key)
{
	struct listener where = {};
	struct owner *listening, o = {};

	listener_of(&where, sk);
	listening = bpf_map_lookup_elem(&listeners, &where);
	if (!listening) {
		emit_state_change(KIND_ACCEPT, sk, 0, TCP_SYN_RECV, TCP_ESTABLISHED, 0);
		return;
	}
	o = *listening;
	o.since_ns = bpf_ktime_get_ns();
	o.incoming = 1;
	bpf_map_update_elem(&owners, &key, &o, BPF_ANY);
	emit_state_change(KIND_ACCEPT, sk, &o, TCP_SYN_RECV, TCP_ESTABLISHED, 0);
}

static __always_inline void closed(const struct sock *sk, __u64 key, int old_state)
{
	struct owner *o = bpf_map_lookup_elem(&owners, &key);
	int error = sk->sk_err;
	__u32 kind = KIND_CLOSE;

	if (error == ECONNREFUSED && old_state == TCP_SYN_SENT)
		kind = KIND_REFUSED;
	else if (error == ETIMEDOUT)
		kind = KIND_TIMEOUT;
	emit_state_change(kind, sk, o, old_state, TCP_CLOSE, error);
	if (o)
		o->closed = 1;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_state, const struct sock *sk, int old_state, int new_state)
{
	const __u64 tcp = 1ULL << KIND_CONNECT | 1ULL << KIND_ACCEPT | 1ULL << KIND_CLOSE |
			  1ULL << KIND_REFUSED | 1ULL << KIND_RESET | 1ULL << KIND_RETRANSMIT |
			  1ULL << KIND_TIMEOUT;
	__u64 key = (__u64)sk;
	struct listener where = {};
	struct tp_config *c;
	struct owner *known, o = {};
	__u32 zero = 0;

	c = bpf_map_lookup_elem(&config, &zero);
	if (!c || !(c->kinds & tcp) || sk->sk_protocol != IPPROTO_TCP || old_state == new_state)
		return 0;
	if (new_state == TCP_SYN_SENT) {
		current_owner(&o);
		bpf_map_update_elem(&owners, &key, &o, BPF_ANY);
	} else if (new_state == TCP_LISTEN) {
		current_owner(&o);
		listener_of(&where, sk);
		bpf_map_update_elem(&listeners, &where, &o, BPF_ANY);
	} else if (new_state == TCP_ESTABLISHED) {
		known = bpf_map_lookup_elem(&owners, &key);
		/* From SYN_RECV only for a simultaneous open. */
		if (old_state == TCP_SYN_SENT || (known && known->since_ns && !known->incoming && !known->closed))
			emit_state_change(KIND_CONNECT, sk, known, old_state, new_state, 0);
		else
			accepted(sk, key);
	} else if (new_state == TCP_CLOSE && old_state == TCP_LISTEN) {
		listener_of(&where, sk);
		bpf_map_delete_elem(&listeners, &where);
	} else if (new_state == TCP_CLOSE && old_state != TCP_SYN_RECV) {
		closed(sk, key, old_state);
	}
	return 0;
}

/* The socket is destroyed: its address may be reused. */
SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(tcp_destroy, const struct sock *sk)
{
	__u64 key = (__u64)sk;

	bpf_map_delete_elem(&owners, &key);
	return 0;
}

SEC("tp_btf/tcp_receive_reset")
int BPF_PROG(tcp_reset_received, const struct sock *sk)
{
	const struct tp_config *c = config_if_enabled(KIND_RESET);
	__u64 key = (__u64)sk;
	struct tp_tcp *r;

	/* While connecting it is a refusal, which is emitted on the change to CLOSE. */
	if (!c || sk->__sk_common.skc_state == TCP_SYN_SENT)
		return 0;
	r = begin_tcp(c, KIND_RESET, sk, bpf_map_lookup_elem(&owners, &key));
	if (!r)
		return 0;
	addresses_of(r, sk);
	r->old_state = r->new_state = sk->__sk_common.skc_state;
	publish(r, KIND_RESET);
	return 0;
}

SEC("tp_btf/tcp_send_reset")
int BPF_PROG(tcp_reset_sent, const struct sock *sk, const struct sk_buff *skb)
{
	const struct tp_config *c = config_if_enabled(KIND_RESET);
	__u8 state = TCP_CLOSE;
	struct owner *o = 0;
	struct tp_tcp *r;
	__u64 key;

	if (!c)
		return 0;
	if (sk) {
		key = (__u64)sk;
		o = bpf_map_lookup_elem(&owners, &key);
		state = sk->__sk_common.skc_state;
	}
	/* Small sockets (TIME_WAIT, new SYN_RECV) end before sk_cgrp_data. */
	r = begin_tcp(c, KIND_RESET, state == TCP_TIME_WAIT || state > TCP_LISTEN ? 0 : sk, o);
	if (!r)
		return 0;
	r->head.flags |= TCP_RESET_SENT;
	r->old_state = r->new_state = state;
	if (skb)
		addresses_in(r, skb);
	else if (sk)
		addresses_of(r, sk);
	publish(r, KIND_RESET);
	return 0;
}

SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(tcp_retransmit, const struct sock *sk)
{
	const struct tp_config *c = config_if_enabled(KIND_RETRANSMIT);
	const struct inet_connection_sock *icsk = (const void *)sk;
	__u64 key = (__u64)sk;
	struct tp_tcp *r;

	if (!c)
		return 0;
	r = begin_tcp(c, KIND_RETRANSMIT, sk, bpf_map_lookup_elem(&owners, &key));
	if (!r)
		return 0;
	addresses_of(r, sk);
	r->old_state = r->new_state = sk->__sk_common.skc_state;
	r->retransmits = BPF_CORE_READ(icsk, icsk_retransmits);
	publish(r, KIND_RETRANSMIT);
	return 0;
}

/* The owners of sockets that were open before: without them, the connections that a daemon accepts
 * would lack its name if it started before tapio. */
SEC("iter/task_file")
int tcp_seed(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct listener where = {};
	struct owner o = {};
	struct socket *socket;
	struct sock *sk;
	__u64 key;

	if (!task || !file || task->pid != task->tgid)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk || sk->sk_protocol != IPPROTO_TCP ||
	    (sk->__sk_common.skc_family != AF_INET && sk->__sk_common.skc_family != AF_INET6))
		return 0;
	owned_by(&o, task);
	/* Entries from the tracepoints are newer: they are kept. */
	if (sk->__sk_common.skc_state == TCP_LISTEN) {
		listener_of(&where, sk);
		bpf_map_update_elem(&listeners, &where, &o, BPF_NOEXIST);
	} else if (sk->__sk_common.skc_state != TCP_CLOSE) {
		key = (__u64)sk;
		bpf_map_update_elem(&owners, &key, &o, BPF_NOEXIST);
	}
	return 0;
}
