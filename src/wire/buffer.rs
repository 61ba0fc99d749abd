//! Buffers that batches are written into. A large buffer travels with its batch and comes back
//! when the last holder of the batch lets go of it, so that steady traffic allocates nothing and
//! touches no fresh page.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers kept for the next batches.
const KEPT: usize = 8;

/// A batch that fills less than this share of its buffer is copied out of it: a queue of small
/// batches would otherwise hold many times its own size.
const WORTH_A_BUFFER: usize = 4;

/// A buffer of initialised bytes, of which the first `used` count.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    pub(super) used: usize,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

/// A buffer on its way; the owner behind a `Bytes`.
struct Lent {
    buffer: Vec<u8>,
    used: usize,
    pool: Pool,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.used]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut kept = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(std::mem::take(&mut self.buffer));
        }
    }
}

impl Pool {
    /// An empty buffer of at least `bytes`.
    pub(super) fn buffer(&self, bytes: usize) -> Buffer {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = match kept {
            Some(kept) if kept.len() >= bytes => kept,
            _ => vec![0; bytes],
        };
        Buffer { bytes, used: 0 }
    }

    /// What was written, as shared bytes; the buffer is empty afterwards.
    pub(super) fn share(&self, buffer: &mut Buffer, next_bytes: usize) -> Bytes {
        if buffer.used < buffer.bytes.len() / WORTH_A_BUFFER {
            let shared = Bytes::copy_from_slice(&buffer.bytes[..buffer.used]);
            buffer.used = 0;
            return shared;
        }
        let full = std::mem::replace(buffer, self.buffer(next_bytes));
        Bytes::from_owner(Lent { buffer: full.bytes, used: full.used, pool: self.clone() })
    }
}

impl Buffer {
    /// Makes room for `more` bytes behind those used.
    pub(super) fn reserve(&mut self, more: usize) {
        if self.bytes.len() - self.used < more {
            self.bytes.resize(self.used + more, 0);
        }
    }

    /// Whether there is room without growing.
    pub(super) fn has_room(&self, more: usize) -> bool {
        self.bytes.len() - self.used >= more
    }

    /// A pen at the end of what was written. Room must have been reserved.
    pub(super) fn pen(&mut self) -> Pen<'_> {
        Pen { at: self.used, bytes: &mut self.bytes }
    }
}

/// Writes protobuf into a buffer with room.
pub(super) struct Pen<'a> {
    bytes: &'a mut [u8],
    pub(super) at: usize,
}

/// Bytes of a varint.
#[inline]
pub(super) fn varint_len(value: u64) -> usize {
    // Seven bits a byte, at least one byte.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

impl Pen<'_> {
    #[inline]
    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes[self.at] = byte;
        self.at += 1;
    }

    #[inline]
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    #[inline]
    pub(super) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    #[inline]
    pub(super) fn delimited(&mut self, tag: u8, bytes: &[u8]) {
        self.byte(tag);
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }

    #[inline]
    pub(super) fn fixed64(&mut self, tag: u8, value: u64) {
        self.byte(tag);
        self.raw(&value.to_le_bytes());
    }

    /// Leaves room for a length of `width` varint bytes.
    #[inline]
    pub(super) fn length_later(&mut self, width: usize) -> usize {
        self.at += width;
        self.at
    }

    /// Writes the length of what stands since `start` before it, padded to `width` bytes: longer
    /// than it need be, which every protobuf reader takes.
    #[inline]
    pub(super) fn length_now(&mut self, start: usize, width: usize) {
        let len = self.at - start;
        let slot = &mut self.bytes[start - width..start];
        for (i, byte) in slot.iter_mut().enumerate() {
            let more = if i + 1 < width { 0x80 } else { 0 };
            *byte = (len >> (7 * i)) as u8 & 0x7f | more;
        }
    }
}
