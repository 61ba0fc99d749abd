//! Connections and how they fail.

use std::net::SocketAddr;
use std::sync::Arc;

use super::decode::Decoder;
use super::kinds::{Kind, errno_name};
use super::raw::{COMM_BYTES, Head, Record, TCP_INCOMING, TCP_KNOWN_SINCE, TCP_RESET_SENT};
use super::words::{Span, address};
use crate::events::event_builder::Lossy;
use tapio_core::event::{Severity, names};

const AF_INET6: u16 = 10;
const SYN_SENT: u8 = 2;

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

/// What happened, between the one who did it and the peer.
fn deed(kind: Kind, abandoned: bool, incoming: bool, sent: bool) -> &'static str {
    match kind {
        Kind::Connect => "connected to",
        Kind::Accept => "was connected to by",
        Kind::Close if abandoned => "gave up connecting to",
        Kind::Close if incoming => "ended the connection from",
        Kind::Close => "ended the connection to",
        Kind::Refused => "was refused by",
        Kind::Timeout => "got no answer from",
        Kind::Reset if sent => "reset a connection from",
        Kind::Reset => "was reset by",
        _ => "sent a segment again to",
    }
}

fn severity(kind: Kind, sent: bool, failed: bool) -> Severity {
    match kind {
        Kind::Refused | Kind::Timeout => Severity::WARN,
        Kind::Reset if !sent => Severity::WARN,
        Kind::Close if failed => Severity::WARN,
        _ => Severity::INFO,
    }
}

impl Decoder {
    pub(super) fn tcp(&mut self, kind: Kind, record: &Record<'_>) -> Severity {
        let (head, bytes) = (&record.head, record.bytes);
        let comm = bytes.text(104, COMM_BYTES);
        self.identify(head, bytes.u64(32), comm);
        let v6 = bytes.u16(48) == AF_INET6;
        let local = address(bytes.array(64), v6);
        let peer = address(bytes.array(80), v6);
        let (local_port, peer_port) = (bytes.u16(50), bytes.u16(52));
        let old_state = bytes.u8(54);
        let error = bytes.i32(56).unsigned_abs();
        let draft = &mut self.draft;
        if head.tgid != 0 {
            draft.int(names::PROCESS_OWNER_UID, bytes.u32(96));
        }
        draft.word(names::NETWORK_TRANSPORT, "tcp");
        let network = if peer.is_ipv4() { "ipv4" } else { "ipv6" };
        draft.word(names::NETWORK_TYPE, network);
        draft.text(names::NETWORK_LOCAL_ADDRESS, local);
        draft.int(names::NETWORK_LOCAL_PORT, local_port);
        draft.text(names::NETWORK_PEER_ADDRESS, peer);
        draft.int(names::NETWORK_PEER_PORT, peer_port);
        let unit = draft.peer(SocketAddr::new(peer, peer_port), &self.directory);
        let state = STATES.get(usize::from(old_state)).unwrap_or(&STATES[0]);
        draft.word(names::TAPIO_TCP_STATE, state);
        let since = head.flags & TCP_KNOWN_SINCE != 0;
        if since && kind != Kind::Accept {
            draft.int(names::TAPIO_TCP_DURATION_NS, bytes.u64(40));
        }
        let abandoned = kind == Kind::Close && error == 0 && old_state == SYN_SENT;
        let error_type = match errno_name(error) {
            Some(name) => name,
            None if abandoned => "connect_abandoned",
            None => "",
        };
        if !error_type.is_empty() {
            draft.word(names::ERROR_TYPE, error_type);
        }
        let sent = head.flags & TCP_RESET_SENT != 0;
        match kind {
            Kind::Reset => {
                let direction = if sent { "transmit" } else { "receive" };
                draft.word(names::NETWORK_IO_DIRECTION, direction);
            }
            Kind::Retransmit => draft.int(names::TAPIO_TCP_RETRANSMITS, bytes.u32(60)),
            _ => {}
        }
        let incoming = head.flags & TCP_INCOMING != 0;
        // Which end of a connection this is can't be seen from its addresses.
        if head.tgid != 0 && matches!(kind, Kind::Close | Kind::Reset | Kind::Retransmit) {
            draft.bool(names::TAPIO_TCP_INCOMING, incoming);
        }
        let what = deed(kind, abandoned, incoming, sent);
        let peer = SocketAddr::new(peer, peer_port);
        let after = Span(if since { bytes.u64(40) } else { 0 });
        match (head.tgid, since && kind != Kind::Accept) {
            (0, _) => draft.message(format_args!("{local}:{local_port} {what} {peer}")),
            (pid, true) => draft
                .message(format_args!("{} (pid {pid}) {what} {peer} after {after}", Lossy(comm))),
            (pid, false) => {
                draft.message(format_args!("{} (pid {pid}) {what} {peer}", Lossy(comm)))
            }
        }
        match (kind, unit) {
            (Kind::Accept, _) => self.serves(head, SocketAddr::new(local, local_port)),
            (Kind::Refused | Kind::Timeout, Some(unit)) => self.turned_away(head, unit),
            _ => {}
        }
        severity(kind, sent, !error_type.is_empty())
    }

    /// A unit's process took a connection: the unit is to be found there.
    fn serves(&self, head: &Head, local: SocketAddr) {
        let Some(names) = self.cgroups.get(head.cgroup).map(|c| &c.names) else { return };
        let of_unit = names.container_id.is_none() && names.pod_uid.is_none();
        // Every network namespace has a loopback of its own.
        if let Some(unit) = names.unit.as_ref().filter(|_| of_unit && !local.ip().is_loopback()) {
            self.directory.unit_serves(local, unit, self.observed_ns);
        }
    }

    /// A connection to a unit ended badly: what becomes of the pod may come from there.
    fn turned_away(&self, head: &Head, unit: Arc<str>) {
        let names = self.cgroups.get(head.cgroup).map(|c| &c.names);
        if let Some(uid) = names.and_then(|n| n.pod_uid.as_ref()) {
            let wall_ns = head.time_ns.wrapping_add(self.wall_offset_ns);
            self.directory.pod_connection_failed(uid, unit, wall_ns);
        }
    }
}
