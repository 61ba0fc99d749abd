//! The kinds of event that the programs emit, names of signals, errors and system calls, and the
//! sets of signals and errors in the configuration.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::events::signals::SIGNALS;
use tapio_core::event::{Name, names};

include!(concat!(env!("OUT_DIR"), "/kernel_names.rs"));

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $text:literal, $name:ident;)*) => {
        /// A kind of kernel event. The numbers are those of `ebpf/records.h`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$doc])* #[serde(rename = $text)] $variant = $number,)*
        }

        impl Kind {
            /// Every kind, by number.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The kind as in events.
            #[must_use]
            pub fn name(self) -> Name {
                match self { $(Self::$variant => names::$name,)* }
            }
        }
    };
}

kinds! {
    /// A program was started.
    Exec = 0, "kernel.process.exec", KERNEL_PROCESS_EXEC;
    /// A process was created.
    Fork = 1, "kernel.process.fork", KERNEL_PROCESS_FORK;
    /// A process ended.
    Exit = 2, "kernel.process.exit", KERNEL_PROCESS_EXIT;
    /// The OOM killer selected a process.
    OomKill = 3, "kernel.process.oom_kill", KERNEL_PROCESS_OOM_KILL;
    /// A process was sent a signal of the configured set.
    Signal = 4, "kernel.process.signal", KERNEL_PROCESS_SIGNAL;
    /// An outgoing connection was opened.
    Connect = 5, "kernel.tcp.connect", KERNEL_TCP_CONNECT;
    /// An incoming connection was opened.
    Accept = 6, "kernel.tcp.accept", KERNEL_TCP_ACCEPT;
    /// A connection ended.
    Close = 7, "kernel.tcp.close", KERNEL_TCP_CLOSE;
    /// A connection was refused: nothing listens at the peer.
    Refused = 8, "kernel.tcp.refused", KERNEL_TCP_REFUSED;
    /// A connection was reset.
    Reset = 9, "kernel.tcp.reset", KERNEL_TCP_RESET;
    /// A segment was retransmitted.
    Retransmit = 10, "kernel.tcp.retransmit", KERNEL_TCP_RETRANSMIT;
    /// The peer didn't answer.
    Timeout = 11, "kernel.tcp.timeout", KERNEL_TCP_TIMEOUT;
    /// A block device failed a request.
    BlockError = 12, "kernel.block.error", KERNEL_BLOCK_ERROR;
    /// A block device was slow to complete a request.
    BlockSlow = 13, "kernel.block.slow", KERNEL_BLOCK_SLOW;
    /// The failures of a system call in a cgroup, counted in the kernel.
    SyscallErrorRate = 14, "kernel.syscall.error_rate", KERNEL_SYSCALL_ERROR_RATE;
    /// A system call, for load and tests only.
    SyscallEnter = 15, "kernel.syscall.enter", KERNEL_SYSCALL_ENTER;
    /// A file was created.
    FileCreate = 16, "kernel.file.create", KERNEL_FILE_CREATE;
}

impl Kind {
    pub(super) fn from_number(number: u16) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The bit in `tp_config.kinds`.
    pub(super) fn bit(self) -> u64 {
        1 << self as u8
    }
}

fn lookup(table: &'static [(u32, &'static str)], number: u32) -> Option<&'static str> {
    table.binary_search_by_key(&number, |row| row.0).ok().map(|i| table[i].1)
}

/// The name of an error number, as in `errno(3)`.
pub(super) fn errno_name(number: u32) -> Option<&'static str> {
    lookup(ERRORS, number)
}

/// The name of a system call on this architecture.
pub(super) fn syscall_name(number: u32) -> Option<&'static str> {
    lookup(SYSCALLS, number)
}

/// Whether a signal means that a program is broken: its default action writes a core.
pub(super) fn is_crash(signal: u32) -> bool {
    matches!(signal, 3..=8 | 11 | 24 | 25 | 31)
}

fn number_of(mut names: impl Iterator<Item = (u32, &'static str)>, text: &str) -> Option<u32> {
    names.find(|(_, name)| *name == text).map(|row| row.0)
}

/// Reads a list of names into bits. The fields: the description of a name for errors, and the
/// lookup of its number.
struct Names<F>(&'static str, F);

impl<'de, F: Fn(&str) -> Option<u32>> Visitor<'de> for Names<F> {
    type Value = u128;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}", self.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<u128, A::Error> {
        let mut bits = 0u128;
        while let Some(name) = list.next_element::<String>()? {
            let number = (self.1)(&name)
                .filter(|n| *n < 128)
                .ok_or_else(|| A::Error::custom(format!("{name:?} is not one of {}", self.0)))?;
            bits |= 1 << number;
        }
        Ok(bits)
    }
}

/// A set of signals, written as a list of names: `[SIGSEGV, SIGKILL]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalSet(pub u64);

impl Default for SignalSet {
    /// The signals that end a process by default and aren't part of normal operation (as SIGINT
    /// at a terminal and SIGPIPE at a pipe's end are).
    fn default() -> Self {
        Self([3, 4, 6, 7, 8, 9, 11, 15, 24, 25, 31].iter().fold(0, |set, n| set | 1 << n))
    }
}

impl<'de> Deserialize<'de> for SignalSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let find = |text: &str| number_of((1..).zip(SIGNALS[1..].iter().copied()), text);
        let bits = deserializer.deserialize_seq(Names("signal names such as SIGSEGV", find))?;
        Ok(Self(bits as u64))
    }
}

/// The schema of a list of names.
fn list_of(names: impl Iterator<Item = &'static str>) -> Schema {
    let names: Vec<&str> = names.collect();
    json_schema!({"type": "array", "items": {"type": "string", "enum": names}})
}

impl Serialize for SignalSet {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let names = (0u32..).zip(SIGNALS).filter(|(n, _)| *n > 0 && self.0 >> n & 1 == 1);
        to.collect_seq(names.map(|(_, name)| name))
    }
}

impl JsonSchema for SignalSet {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "SignalSet".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        list_of(SIGNALS[1..].iter().copied())
    }
}

/// A set of errors, written as a list of names: `[EAGAIN, ENOENT]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorSet(pub u128);

impl ErrorSet {
    pub(super) fn of(names: &[&str]) -> Self {
        let numbers = names.iter().filter_map(|name| number_of(ERRORS.iter().copied(), name));
        Self(numbers.fold(0, |set, n| set | 1u128 << n))
    }
}

impl Serialize for ErrorSet {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let names = ERRORS.iter().filter(|(n, _)| *n < 128 && self.0 >> n & 1 == 1);
        to.collect_seq(names.map(|(_, name)| name))
    }
}

impl JsonSchema for ErrorSet {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ErrorSet".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        list_of(ERRORS.iter().filter(|(n, _)| *n < 128).map(|(_, name)| *name))
    }
}

impl<'de> Deserialize<'de> for ErrorSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let find = |text: &str| number_of(ERRORS.iter().copied(), text);
        let names = Names("error names such as EAGAIN", find);
        deserializer.deserialize_seq(names).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_numbers_of_the_programs() {
        for (i, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, i);
            let text = serde_json::to_string(kind).unwrap();
            assert_eq!(text, format!("{:?}", kind.name().text()));
        }
        let header = include_str!("../../../ebpf/records.h");
        let (_, list) = header.split_once("enum tp_kind {").unwrap();
        let (list, _) = list.split_once("};").unwrap();
        assert_eq!(list.matches("KIND_").count(), Kind::ALL.len() + 1);
    }

    #[test]
    fn names_come_from_the_kernel_headers() {
        assert_eq!(errno_name(111), Some("ECONNREFUSED"));
        assert_eq!(syscall_name(libc::SYS_openat as u32), Some("openat"));
        assert_eq!(syscall_name(9999), None);
    }

    #[test]
    fn set_is_read_from_a_list_of_names() {
        let set: SignalSet = serde_json::from_str(r#"["SIGSEGV","SIGHUP"]"#).unwrap();
        assert_eq!(set.0, 1 << 11 | 1 << 1);
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"["SIGHUP","SIGSEGV"]"#);
        let wrong = serde_json::from_str::<SignalSet>(r#"["SEGV"]"#).unwrap_err();
        assert!(wrong.to_string().contains("\"SEGV\" is not one of"), "{wrong}");
        let set: ErrorSet = serde_json::from_str(r#"["ECONNREFUSED"]"#).unwrap();
        assert_eq!(set.0, 1 << 111);
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"["ECONNREFUSED"]"#);
    }
}
