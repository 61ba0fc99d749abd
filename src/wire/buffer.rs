//! Buffers that batches are written into. A large buffer travels with its batch and returns to the
//! pool when the last reference to the batch is dropped, so that steady traffic allocates nothing
//! and touches no fresh page.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Maximum number of pooled buffers.
const MAX_POOLED: usize = 8;

/// A batch that fills less than this share of its buffer is copied out of it: a queue of small
/// batches would otherwise hold many times its own size.
const MIN_FILL_DIVISOR: usize = 4;

/// A buffer of initialised bytes, of which the first `used` are content.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    pub(super) used: usize,
}

/// Pool of buffers.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

/// The owner behind a `Bytes`: returns its buffer to the pool.
struct PooledBuffer {
    buffer: Vec<u8>,
    used: usize,
    pool: Pool,
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.used]
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let mut pooled = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pooled.len() < MAX_POOLED {
            pooled.push(std::mem::take(&mut self.buffer));
        }
    }
}

impl Pool {
    /// An empty buffer of at least `bytes`.
    pub(super) fn buffer(&self, bytes: usize) -> Buffer {
        let pooled = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = match pooled {
            Some(pooled) if pooled.len() >= bytes => pooled,
            _ => vec![0; bytes],
        };
        Buffer { bytes, used: 0 }
    }

    /// An empty list with room for about so many bytes.
    pub(super) fn empty(&self, bytes: usize) -> Vec<u8> {
        let pooled = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut list = pooled.unwrap_or_default();
        list.clear();
        list.reserve(bytes);
        list
    }

    /// Shares a list, which comes back to the pool.
    pub(super) fn bytes(&self, list: Vec<u8>) -> Bytes {
        let used = list.len();
        Bytes::from_owner(PooledBuffer { buffer: list, used, pool: self.clone() })
    }

    /// Shares the content and leaves an empty buffer of at least `next_bytes`.
    pub(super) fn share(&self, buffer: &mut Buffer, next_bytes: usize) -> Bytes {
        if buffer.used < buffer.bytes.len() / MIN_FILL_DIVISOR {
            let shared = Bytes::copy_from_slice(&buffer.bytes[..buffer.used]);
            buffer.used = 0;
            return shared;
        }
        let full = std::mem::replace(buffer, self.buffer(next_bytes));
        Bytes::from_owner(PooledBuffer { buffer: full.bytes, used: full.used, pool: self.clone() })
    }
}

impl Buffer {
    /// Grows, if necessary, so that `more` bytes fit behind the content.
    pub(super) fn reserve(&mut self, more: usize) {
        if self.bytes.len() - self.used < more {
            self.bytes.resize(self.used + more, 0);
        }
    }

    /// Whether `more` bytes fit without growing.
    pub(super) fn has_room(&self, more: usize) -> bool {
        self.bytes.len() - self.used >= more
    }

    /// A writer at the end of the content. Room must have been reserved.
    pub(super) fn writer(&mut self) -> ProtoWriter<'_> {
        ProtoWriter { at: self.used, bytes: &mut self.bytes }
    }
}

/// Writes protobuf into a buffer with enough room.
pub(super) struct ProtoWriter<'a> {
    bytes: &'a mut [u8],
    pub(super) at: usize,
}

/// Length of a varint.
#[inline]
pub(super) fn varint_len(value: u64) -> usize {
    // Seven bits per byte, at least one byte.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

impl ProtoWriter<'_> {
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

    /// Reserves `width` varint bytes for a length. Returns the start of what the length covers.
    #[inline]
    pub(super) fn reserve_length(&mut self, width: usize) -> usize {
        self.at += width;
        self.at
    }

    /// Writes the reserved length of what was written since `start`, padded to `width` bytes:
    /// longer than necessary, which every protobuf reader accepts.
    #[inline]
    pub(super) fn fill_length(&mut self, start: usize, width: usize) {
        let len = self.at - start;
        let slot = &mut self.bytes[start - width..start];
        for (i, byte) in slot.iter_mut().enumerate() {
            let more = if i + 1 < width { 0x80 } else { 0 };
            *byte = (len >> (7 * i)) as u8 & 0x7f | more;
        }
    }
}
