//! Block requests that fail or are slow.

use super::decode::Decoder;
use super::display::{ByteSize, Elapsed};
use super::kinds::Kind;
use super::raw::{COMM_BYTES, Record};
use crate::events::event_builder::Lossy;
use tapio_core::event::{Severity, names};

/// The name of an `enum req_op` (include/linux/blk_types.h).
fn operation(op: u32) -> &'static str {
    match op {
        0 => "read",
        1 => "write",
        2 => "flush",
        3 => "discard",
        5 => "secure_erase",
        9 => "write_zeroes",
        34 | 35 => "driver",
        _ => "other",
    }
}

/// The errno of a `blk_status_t` (block/blk-core.c), for the numbers that are the same in every
/// kernel; EIO for all others.
fn error(status: u32) -> &'static str {
    match status {
        1 => "EOPNOTSUPP",
        2 => "ETIMEDOUT",
        3 => "ENOSPC",
        4 => "ENOLINK",
        5 => "EREMOTEIO",
        6 => "EBADE",
        7 => "ENODATA",
        8 => "EILSEQ",
        9 => "ENOMEM",
        12 => "EAGAIN",
        _ => "EIO",
    }
}

impl Decoder {
    /// Decodes a failed or slow block request.
    pub(super) fn block(&mut self, kind: Kind, record: &Record<'_>) -> Severity {
        let (head, bytes) = (&record.head, record.bytes);
        self.identify(head, 0, bytes.text(104, COMM_BYTES));
        let (sector, latency_ns) = (bytes.u64(32), bytes.u64(40));
        let (size, op) = (bytes.u32(48), operation(bytes.u32(52)));
        let disk = Lossy(bytes.text(72, 32));
        let event = &mut self.event;
        event.text(names::TAPIO_BLOCK_DEVICE, &disk);
        event.int(names::TAPIO_BLOCK_SECTOR, sector);
        event.int(names::TAPIO_BLOCK_BYTES, size);
        event.word(names::TAPIO_BLOCK_OPERATION, op);
        if latency_ns > 0 {
            event.int(names::TAPIO_BLOCK_LATENCY_NS, latency_ns);
        }
        if kind == Kind::BlockError {
            let error = error(bytes.u32(56));
            event.word(names::ERROR_TYPE, error);
            event.message(format_args!(
                "{disk}: {op} of {} at sector {sector} failed with {error}",
                ByteSize(size.into())
            ));
            return Severity::ERROR;
        }
        event.message(format_args!(
            "{disk}: {op} of {} at sector {sector} took {}",
            ByteSize(size.into()),
            Elapsed(latency_ns)
        ));
        Severity::WARN
    }
}
