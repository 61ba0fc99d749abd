//! TCP connections: opened, closed, refused, timed out, reset, and retransmissions.

use std::net::SocketAddr;
use std::sync::Arc;

use super::decode::Decoder;
use super::display::Elapsed;
use super::kinds::{Kind, errno_name};
use super::raw::{COMM_BYTES, Head, Record, TCP_INCOMING, TCP_KNOWN_SINCE, TCP_RESET_SENT};
use crate::events::event_builder::Lossy;
use tapio_core::event::{Severity, names};

const AF_INET6: u16 = 10;
const SYN_SENT: u8 = 2;

/// TCP states by number (include/net/tcp_states.h).
const STATES: [&str; 13] = [
    "UNKNOWN",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
];

/// A record of the TCP family.
struct Connection<'a> {
    kind: Kind,
    /// The process; 0 if unknown.
    pid: u32,
    uid: u32,
    comm: &'a [u8],
    local: SocketAddr,
    peer: SocketAddr,
    old_state: u8,
    /// Error number of the socket; 0 for none.
    error: u32,
    /// Time since the connection was opened, if the kernel saw that. Not set for an accept.
    duration_ns: Option<u64>,
    retransmits: u32,
    /// Opened by the peer.
    is_incoming: bool,
    /// The reset was sent, not received.
    is_reset_sent: bool,
}

impl<'a> Connection<'a> {
    fn read(kind: Kind, record: &Record<'a>) -> Self {
        let (head, bytes) = (&record.head, record.bytes);
        let is_v6 = bytes.u16(48) == AF_INET6;
        let has_duration = head.flags & TCP_KNOWN_SINCE != 0 && kind != Kind::Accept;
        Self {
            kind,
            pid: head.tgid,
            uid: bytes.u32(96),
            comm: bytes.text(104, COMM_BYTES),
            local: SocketAddr::new(bytes.ip_address(64, is_v6), bytes.u16(50)),
            peer: SocketAddr::new(bytes.ip_address(80, is_v6), bytes.u16(52)),
            old_state: bytes.u8(54),
            error: bytes.i32(56).unsigned_abs(),
            duration_ns: has_duration.then(|| bytes.u64(40)),
            retransmits: bytes.u32(60),
            is_incoming: head.flags & TCP_INCOMING != 0,
            is_reset_sent: head.flags & TCP_RESET_SENT != 0,
        }
    }

    /// Closed by this end before the peer answered.
    fn is_abandoned(&self) -> bool {
        self.kind == Kind::Close && self.error == 0 && self.old_state == SYN_SENT
    }

    fn error_type(&self) -> Option<&'static str> {
        let abandoned = || self.is_abandoned().then_some("connect_abandoned");
        errno_name(self.error).or_else(abandoned)
    }

    /// The verb of the message, between the process and the peer.
    fn verb(&self) -> &'static str {
        match self.kind {
            Kind::Connect => "connected to",
            Kind::Accept => "was connected to by",
            Kind::Close if self.is_abandoned() => "stopped connecting to",
            Kind::Close if self.is_incoming => "ended the connection from",
            Kind::Close => "ended the connection to",
            Kind::Refused => "was refused by",
            Kind::Timeout => "got no answer from",
            Kind::Reset if self.is_reset_sent => "reset a connection from",
            Kind::Reset => "was reset by",
            _ => "sent a segment again to",
        }
    }

    fn severity(&self) -> Severity {
        let is_warning = match self.kind {
            Kind::Refused | Kind::Timeout => true,
            Kind::Reset => !self.is_reset_sent,
            Kind::Close => self.error_type().is_some(),
            _ => false,
        };
        if is_warning { Severity::WARN } else { Severity::INFO }
    }
}

impl Decoder {
    /// Decodes an event of the TCP family.
    pub(super) fn tcp(&mut self, kind: Kind, record: &Record<'_>) -> Severity {
        let connection = Connection::read(kind, record);
        let (head, start_ns) = (&record.head, record.bytes.u64(32));
        self.identify(head, start_ns, connection.comm);
        let unit = self.add_connection(&connection, head.time_ns);
        self.set_tcp_message(&connection);
        match (kind, unit) {
            (Kind::Accept, _) => self.learn_server(head, connection.local),
            (Kind::Refused | Kind::Timeout, Some(unit)) => self.learn_failed_connect(head, unit),
            _ => {}
        }
        connection.severity()
    }

    /// Adds the connection's attributes. Returns the unit that serves the peer address, if known.
    fn add_connection(&mut self, connection: &Connection<'_>, now_ns: u64) -> Option<Arc<str>> {
        let &Connection { kind, pid, local, peer, .. } = connection;
        if pid != 0 {
            self.add_owner(connection.uid, now_ns);
        }
        let event = &mut self.event;
        event.word(names::NETWORK_TRANSPORT, "tcp");
        let network = if peer.is_ipv4() { "ipv4" } else { "ipv6" };
        event.word(names::NETWORK_TYPE, network);
        event.text(names::NETWORK_LOCAL_ADDRESS, local.ip());
        event.int(names::NETWORK_LOCAL_PORT, local.port());
        event.text(names::NETWORK_PEER_ADDRESS, peer.ip());
        event.int(names::NETWORK_PEER_PORT, peer.port());
        let unit = event.peer(peer, &self.directory);
        let state = STATES.get(usize::from(connection.old_state)).unwrap_or(&STATES[0]);
        event.word(names::TAPIO_TCP_STATE, state);
        if let Some(duration_ns) = connection.duration_ns {
            event.int(names::TAPIO_TCP_DURATION_NS, duration_ns);
        }
        if let Some(error_type) = connection.error_type() {
            event.word(names::ERROR_TYPE, error_type);
        }
        match kind {
            Kind::Reset => {
                let direction = if connection.is_reset_sent { "transmit" } else { "receive" };
                event.word(names::NETWORK_IO_DIRECTION, direction);
            }
            Kind::Retransmit => event.int(names::TAPIO_TCP_RETRANSMITS, connection.retransmits),
            _ => {}
        }
        // The addresses don't show which end opened the connection.
        if pid != 0 && matches!(kind, Kind::Close | Kind::Reset | Kind::Retransmit) {
            event.bool(names::TAPIO_TCP_INCOMING, connection.is_incoming);
        }
        unit
    }

    fn set_tcp_message(&mut self, connection: &Connection<'_>) {
        let &Connection { pid, local, peer, .. } = connection;
        let (comm, verb) = (Lossy(connection.comm), connection.verb());
        match (pid, connection.duration_ns.map(Elapsed)) {
            (0, _) => self.event.message(format_args!("{local} {verb} {peer}")),
            (pid, Some(duration)) => self
                .event
                .message(format_args!("{comm} (pid {pid}) {verb} {peer} after {duration}")),
            (pid, None) => {
                self.event.message(format_args!("{comm} (pid {pid}) {verb} {peer}"));
            }
        }
    }

    /// Adds the address of a connection that a unit's process accepted to the directory.
    fn learn_server(&self, head: &Head, local: SocketAddr) {
        let Some(names) = self.cgroups.get(head.cgroup).map(|c| &c.names) else { return };
        let is_units = names.container_id.is_none() && names.pod_uid.is_none();
        // Every network namespace has its own loopback.
        if let Some(unit) = names.unit.as_ref().filter(|_| is_units && !local.ip().is_loopback()) {
            self.directory.unit_serves(local, unit, self.observed_ns);
        }
    }

    /// Adds a pod's failed connection to a unit to the directory: the pod's fault may come from it.
    fn learn_failed_connect(&self, head: &Head, unit: Arc<str>) {
        let names = self.cgroups.get(head.cgroup).map(|c| &c.names);
        if let Some(uid) = names.and_then(|n| n.pod_uid.as_ref()) {
            let wall_ns = head.time_ns.wrapping_add(self.wall_offset_ns);
            self.directory.pod_connection_failed(uid, unit, wall_ns);
        }
    }
}
