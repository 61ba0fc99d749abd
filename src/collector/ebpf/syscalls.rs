//! System calls: error rates by cgroup, call and error; and single calls, for load tests.

use super::decode::{Decoder, NO_CPU};
use super::display::Elapsed;
use super::kinds::{Kind, errno_name, syscall_name};
use super::raw::Record;
use tapio_core::event::{Severity, names};
use tapio_core::ring::Sink;

/// A key of `error_counts`: `struct tp_error_key` as two words.
#[derive(Clone, Copy)]
pub(super) struct ErrorKey(pub(super) [u64; 2]);

impl ErrorKey {
    fn cgroup(self) -> u64 {
        self.0[0]
    }

    fn parts(self) -> (u32, u16, u16) {
        let [a, b, c, d, e, f, g, h] = self.0[1].to_ne_bytes();
        (u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]), u16::from_ne_bytes([g, h]))
    }

    pub(super) fn generation(self) -> u16 {
        self.parts().2
    }
}

impl Decoder {
    /// Decodes `kernel.syscall.enter`.
    pub(super) fn syscall_enter(&mut self, record: &Record<'_>) -> Severity {
        self.identify(&record.head, 0, b"");
        let number = record.bytes.u64(32);
        self.event.int(names::TAPIO_SYSCALL_NUMBER, number);
        if let Some(name) = u32::try_from(number).ok().and_then(syscall_name) {
            self.event.word(names::TAPIO_SYSCALL_NAME, name);
        }
        Severity::TRACE
    }

    /// Emits how often a call failed with an error in a cgroup within a counting interval.
    pub(super) fn error_rate(
        &mut self,
        key: ErrorKey,
        count: u64,
        window_ns: u64,
        now_ns: u64,
        sink: &mut Sink,
    ) {
        let (number, error, _) = key.parts();
        self.event.clear();
        self.event.text(names::HOST_NAME, &self.node);
        self.add_cgroup(key.cgroup(), now_ns);
        self.event.end_entities();
        let cgroup = self.cgroups.get(key.cgroup());
        let event = &mut self.event;
        if let Some(cgroup) = cgroup {
            event.text(names::TAPIO_CGROUP_PATH, &cgroup.names.path);
        }
        let call = syscall_name(number).unwrap_or("unknown");
        let error = errno_name(error.into()).unwrap_or("unknown");
        event.int(names::TAPIO_SYSCALL_NUMBER, number);
        event.word(names::TAPIO_SYSCALL_NAME, call);
        event.word(names::ERROR_TYPE, error);
        event.int(names::TAPIO_COUNT, count);
        event.int(names::TAPIO_WINDOW_NS, window_ns);
        event.message(format_args!(
            "{call} failed {count} times with {error} in {} within {}",
            cgroup.map_or("an unknown cgroup", |c| &c.names.path),
            Elapsed(window_ns)
        ));
        let meta = self.meta(Kind::SyscallErrorRate, NO_CPU, now_ns, Severity::INFO);
        self.send(key.cgroup(), meta, now_ns, sink);
    }
}
