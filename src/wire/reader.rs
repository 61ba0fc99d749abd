//! Bounds-checked protobuf reader. Every error has its position in the batch.

/// Errors in a message's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireCause {
    /// The bytes end in the middle of a field.
    #[error("the message ends in the middle of a field")]
    Truncated,
    /// A varint of more than ten bytes.
    #[error("a varint is longer than ten bytes")]
    LongVarint,
    /// A group, or a wire type that protobuf doesn't have.
    #[error("wire type {0} isn't used by tapio.v1")]
    WireType(u8),
    /// A known field with a wrong wire type.
    #[error("field {0} has the wrong wire type")]
    FieldType(u32),
    /// Text that isn't UTF-8.
    #[error("text isn't UTF-8")]
    NotUtf8,
    /// An identifier of a wrong length.
    #[error("an id has {found} bytes instead of {expected}")]
    IdLength {
        /// The correct length.
        expected: usize,
        /// The length found.
        found: usize,
    },
    /// An index beyond the names of the batch.
    #[error("name index {index} is out of range: the batch has {names} names")]
    NoSuchName {
        /// The index.
        index: u64,
        /// Names in the batch.
        names: usize,
    },
    /// A name that can't be interned.
    #[error("a name is empty, too long, or exceeds the name table of this process")]
    BadName,
    /// A node's name of more than [`crate::MAX_NODE_BYTES`].
    #[error("the node's name is longer than 255 bytes")]
    LongNode,
    /// A value out of its field's range.
    #[error("field {0} is out of range")]
    OutOfRange(u32),
    /// More of something than an event or batch may contain.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// `count` differs from the number of items.
    #[error("count is {count}, but the batch has {found} items")]
    Count {
        /// The head's count.
        count: u32,
        /// Items found.
        found: u32,
    },
    /// A story that can't be decoded.
    #[error("a story can't be decoded")]
    BadStory,
}

/// An error in a batch, with its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause} (at byte {at})")]
pub struct WireError {
    /// Byte offset in the batch.
    pub at: usize,
    /// The error.
    pub cause: WireCause,
}

/// The wire types that tapio.v1 uses.
pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const LEN: u8 = 2;
pub(super) const FIXED32: u8 = 5;

/// A position in a message. `bytes` is the batch up to the message's end, so that positions refer
/// to the batch.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn range(&self) -> std::ops::Range<usize> {
        self.at..self.bytes.len()
    }

    /// The bytes that aren't read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.range()]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(super) fn error(&self, cause: WireCause) -> WireError {
        WireError { at: self.at, cause }
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, WireError> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            Some(_) => self.long_varint(),
            None => Err(self.error(WireCause::Truncated)),
        }
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for (i, &byte) in self.bytes[self.at..].iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.at += i + 1;
                return Ok(value);
            }
        }
        let cause = if self.bytes.len() - self.at < 10 {
            WireCause::Truncated
        } else {
            WireCause::LongVarint
        };
        Err(self.error(cause))
    }

    /// Reads a field's number and wire type.
    #[inline]
    pub(super) fn tag(&mut self) -> Result<(u32, u8), WireError> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| self.error(WireCause::LongVarint))?;
        Ok((number, (tag & 7) as u8))
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        match end {
            Some(end) => {
                let taken = &self.bytes[self.at..end];
                self.at = end;
                Ok(taken)
            }
            None => Err(self.error(WireCause::Truncated)),
        }
    }

    #[inline]
    pub(super) fn len(&mut self) -> Result<usize, WireError> {
        let len = self.varint()?;
        usize::try_from(len).map_err(|_| self.error(WireCause::Truncated))
    }

    #[inline]
    pub(super) fn delimited(&mut self) -> Result<&'a [u8], WireError> {
        let len = self.len()?;
        self.take(len)
    }

    /// Reads a nested message; this reader continues behind it.
    #[inline]
    pub(super) fn message(&mut self) -> Result<Reader<'a>, WireError> {
        let len = self.len()?;
        let start = self.at;
        self.take(len)?;
        Ok(Reader { bytes: &self.bytes[..self.at], at: start })
    }

    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a str, WireError> {
        let at = self.at;
        let bytes = self.delimited()?;
        as_text(bytes).ok_or(WireError { at, cause: WireCause::NotUtf8 })
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    #[inline]
    pub(super) fn fixed64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    pub(super) fn fixed32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Reads a length-delimited id of N bytes. An empty one is the default: no id.
    #[inline]
    pub(super) fn id<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let at = self.at;
        let bytes = self.delimited()?;
        let mut out = [0; N];
        if bytes.len() == N {
            out.copy_from_slice(bytes);
        } else if !bytes.is_empty() {
            let cause = WireCause::IdLength { expected: N, found: bytes.len() };
            return Err(WireError { at, cause });
        }
        Ok(out)
    }

    /// Skips a field.
    pub(super) fn skip(&mut self, wire_type: u8) -> Result<(), WireError> {
        match wire_type {
            VARINT => self.varint().map(drop),
            FIXED64 => self.take(8).map(drop),
            LEN => self.delimited().map(drop),
            FIXED32 => self.take(4).map(drop),
            other => Err(self.error(WireCause::WireType(other))),
        }
    }

    /// Handles a field that the caller doesn't expect: skips it if its number is above
    /// `last_known`; otherwise its wire type is wrong.
    #[cold]
    pub(super) fn skip_unknown(
        &mut self,
        number: u32,
        last_known: u32,
        wire_type: u8,
    ) -> Result<(), WireError> {
        if number == 0 || number <= last_known {
            return Err(self.error(WireCause::FieldType(number)));
        }
        self.skip(wire_type)
    }
}

/// Converts bytes to text. Most text is short ASCII, for which this is several times faster than
/// `str::from_utf8`.
#[inline]
fn as_text(bytes: &[u8]) -> Option<&str> {
    as_ascii(bytes).or_else(|| std::str::from_utf8(bytes).ok())
}

/// Converts ASCII to text.
#[inline]
pub(super) fn as_ascii(bytes: &[u8]) -> Option<&str> {
    // SAFETY: ASCII is UTF-8.
    bytes.is_ascii().then(|| unsafe { std::str::from_utf8_unchecked(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_read_up_to_ten_bytes() {
        let mut r = Reader::new(&[0x7f, 0x80, 0x01, 0xff]);
        assert_eq!((r.varint(), r.varint()), (Ok(127), Ok(128)));
        assert_eq!(r.varint().unwrap_err().cause, WireCause::Truncated);
        let mut endless = Reader::new(&[0xff; 11]);
        assert_eq!(endless.varint().unwrap_err().cause, WireCause::LongVarint);
    }

    #[test]
    fn length_beyond_the_message_is_an_error() {
        let mut r = Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1]);
        let error = r.delimited().unwrap_err();
        assert_eq!((error.at, error.cause), (10, WireCause::Truncated));
    }

    #[test]
    fn nested_message_has_batch_positions() {
        let bytes = [0x0a, 2, 0x08, 0x80, 0x08, 1];
        let mut r = Reader::new(&bytes);
        assert_eq!(r.tag(), Ok((1, LEN)));
        let mut inner = r.message().unwrap();
        assert_eq!(inner.tag(), Ok((1, VARINT)));
        assert_eq!(inner.varint().unwrap_err().at, 3);
        assert_eq!(r.at, 4);
    }
}
