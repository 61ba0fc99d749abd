//! The records of `ebpf/records.h`, read from bytes without casts. Every read is checked, so a
//! record that is too short is rejected instead of read past its end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::kinds::Kind;

/// `struct tp_head`.
pub(super) const HEAD_BYTES: usize = 32;
/// Offset of `struct tp_task`, which follows the head in a process's records.
pub(super) const TASK: usize = HEAD_BYTES;
pub(super) const COMM_BYTES: usize = 16;
pub(super) const PATH_BYTES: usize = 256;
pub(super) const ARGS_BYTES: usize = 512;
/// `sizeof(struct tp_seed)`.
pub(super) const SEED_BYTES: usize = 56;
/// Bits of a cgroup's number below its hierarchy's id.
pub(super) const HIERARCHY_SHIFT: u32 = 48;

/// Kind number of a control record.
pub(super) const KIND_CGROUP: u16 = 17;
/// `KINDS`: the kinds of event and the control record.
pub(super) const KINDS: usize = 18;
/// `OUTCOMES`: emitted, ring full, throttled, map full.
pub(super) const OUTCOMES: usize = 4;

pub(super) const CONTROL_SLEEP: u32 = 0;
pub(super) const CONTROL_GENERATION: u32 = 1;

pub(super) const EXEC_TRUNCATED: u32 = 1;
pub(super) const SIGNAL_FATAL: u32 = 1;
pub(super) const SIGNAL_BY_KERNEL: u32 = 2;
pub(super) const TCP_INCOMING: u32 = 1;
pub(super) const TCP_RESET_SENT: u32 = 2;
pub(super) const TCP_KNOWN_SINCE: u32 = 4;
pub(super) const CGROUP_REMOVED: u32 = 1;

/// The fields of `struct tp_config`, in order.
pub(super) type ConfigWords = [u64; 11];

/// Bytes that are read by offset. A read past the end returns zeros; [`Record::parse`] checks the
/// length, so none happens.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn array<const N: usize>(self, at: usize) -> [u8; N] {
        self.0.get(at..at + N).and_then(|s| s.try_into().ok()).unwrap_or([0; N])
    }

    pub(super) fn u8(self, at: usize) -> u8 {
        self.array::<1>(at)[0]
    }

    pub(super) fn u16(self, at: usize) -> u16 {
        u16::from_ne_bytes(self.array(at))
    }

    pub(super) fn u32(self, at: usize) -> u32 {
        u32::from_ne_bytes(self.array(at))
    }

    pub(super) fn i32(self, at: usize) -> i32 {
        i32::from_ne_bytes(self.array(at))
    }

    pub(super) fn u64(self, at: usize) -> u64 {
        u64::from_ne_bytes(self.array(at))
    }

    /// An IP address: 16 bytes in network order, IPv4 in the first four. An IPv4-mapped IPv6
    /// address is returned as IPv4.
    pub(super) fn ip_address(self, at: usize, is_v6: bool) -> IpAddr {
        let bytes: [u8; 16] = self.array(at);
        if is_v6 {
            return Ipv6Addr::from(bytes).to_canonical();
        }
        let [a, b, c, d, ..] = bytes;
        Ipv4Addr::new(a, b, c, d).into()
    }

    /// Text of at most `max` bytes that ends at its first zero byte.
    pub(super) fn text(self, at: usize, max: usize) -> &'a [u8] {
        let field = self.0.get(at..at + max).unwrap_or(&[]);
        let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
        &field[..end]
    }

    /// The path of `len` bytes at the end of a field of [`PATH_BYTES`].
    pub(super) fn path(self, at: usize, len: u32) -> &'a [u8] {
        let len = (len as usize).min(PATH_BYTES);
        self.slice(at + PATH_BYTES - len, len)
    }

    /// At most `len` bytes.
    pub(super) fn slice(self, at: usize, len: usize) -> &'a [u8] {
        let rest = self.0.get(at..).unwrap_or(&[]);
        &rest[..len.min(rest.len())]
    }
}

/// `struct tp_head`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) cpu: u16,
    /// The process; 0 if unknown to the kernel.
    pub(super) tgid: u32,
    /// CLOCK_MONOTONIC.
    pub(super) time_ns: u64,
    /// Number of the home cgroup; 0 if unknown to the kernel.
    pub(super) cgroup: u64,
    pub(super) flags: u32,
}

/// `struct tp_task`.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    /// The process's start, CLOCK_BOOTTIME.
    pub(super) start_ns: u64,
    pub(super) parent: u32,
    pub(super) uid: u32,
    pub(super) session: u32,
    pub(super) comm: &'a [u8],
}

impl<'a> Task<'a> {
    pub(super) fn read(bytes: Bytes<'a>, at: usize) -> Self {
        Self {
            start_ns: bytes.u64(at),
            parent: bytes.u32(at + 8),
            uid: bytes.u32(at + 12),
            session: bytes.u32(at + 16),
            comm: bytes.text(at + 24, COMM_BYTES),
        }
    }
}

/// The kind of a record: an event, or a control record about a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    Event(Kind),
    Cgroup,
}

/// A record that is long enough for its kind.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) kind: RecordKind,
    pub(super) head: Head,
    pub(super) bytes: Bytes<'a>,
}

/// `sizeof` of a kind's record.
fn size_of(kind: RecordKind) -> usize {
    match kind {
        RecordKind::Cgroup => 552,
        RecordKind::Event(kind) => match kind {
            Kind::Exec => 1104,
            Kind::FileCreate => 336,
            Kind::Fork => 72,
            Kind::Exit => 88,
            Kind::OomKill => 192,
            Kind::Signal => 104,
            Kind::BlockError | Kind::BlockSlow | Kind::Connect | Kind::Accept | Kind::Close => 120,
            Kind::Refused | Kind::Reset | Kind::Retransmit | Kind::Timeout => 120,
            Kind::SyscallEnter => 40,
            // Not a record: it is read from a map.
            Kind::SyscallErrorRate => usize::MAX,
        },
    }
}

impl<'a> Record<'a> {
    /// Parses a record; `None` for an unknown kind or too few bytes.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() < HEAD_BYTES {
            return None;
        }
        let b = Bytes(bytes);
        let kind = match b.u16(0) {
            KIND_CGROUP => RecordKind::Cgroup,
            number => RecordKind::Event(Kind::from_number(number)?),
        };
        (bytes.len() >= size_of(kind)).then(|| Self {
            kind,
            head: Head {
                cpu: b.u16(2),
                tgid: b.u32(4),
                time_ns: b.u64(8),
                cgroup: b.u64(16),
                flags: b.u32(28),
            },
            bytes: b,
        })
    }

    pub(super) fn task(&self) -> Task<'a> {
        Task::read(self.bytes, TASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_or_unknown_record_is_rejected() {
        assert!(Record::parse(&[]).is_none());
        assert!(Record::parse(&[0; 1103]).is_none());
        assert!(Record::parse(&[0; 1104]).is_some());
        let mut unknown = [0; 1024];
        unknown[0] = 99;
        assert!(Record::parse(&unknown).is_none());
        unknown[0] = 14; // error rates come from a map
        assert!(Record::parse(&unknown).is_none());
    }

    #[test]
    fn mapped_ipv4_address_is_ipv4() {
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];
        assert_eq!(Bytes(&mapped).ip_address(0, true).to_string(), "127.0.0.1");
    }

    #[test]
    fn text_ends_at_zero_byte_or_end_of_field() {
        let b = Bytes(b"ab\0cd");
        assert_eq!(b.text(0, 5), b"ab");
        assert_eq!(b.text(3, 2), b"cd");
        assert_eq!(b.text(3, 9), b"");
    }
}
