//! The parts of a block of log records in a batch.

use crate::raw_event::read_field;
use crate::reader::{FIXED64, LEN, Reader, VARINT, WireError};
use tapio_core::event::Value;

/// The bytes of a block.
#[derive(Clone, Copy)]
pub struct RawLogBlock<'a>(Reader<'a>);

/// The parts of a block. Names are indexes in the batch's names.
#[derive(Debug, Default)]
pub(crate) struct LogBlockView<'a> {
    pub(crate) records: u32,
    pub(crate) observed_ns: u64,
    /// The trace of the entity's lifecycle; zeros for none.
    pub(crate) trace: [u8; 16],
    pub(crate) dropped_attributes: u64,
    pub(crate) resource_digest: &'a [u8],
    pub(crate) scope: &'a [u8],
    pub(crate) encoded: &'a [u8],
    pub(crate) entities: Vec<(u64, Value<'a>)>,
    pub(crate) attributes: Vec<(u64, Value<'a>)>,
}

impl<'a> RawLogBlock<'a> {
    pub(crate) fn new(message: Reader<'a>) -> Self {
        Self(message)
    }

    pub(crate) fn reader(self) -> Reader<'a> {
        self.0
    }

    /// The number of records that the block claims to have.
    pub(crate) fn records(self) -> Result<u32, WireError> {
        let mut r = self.0;
        while !r.is_empty() {
            match r.tag()? {
                (1, VARINT) => return read_u32(&mut r),
                (_, wire_type) => r.skip(wire_type)?,
            }
        }
        Ok(0)
    }

    /// Reads the parts.
    ///
    /// # Errors
    /// When the bytes are no block.
    pub(crate) fn read(self) -> Result<LogBlockView<'a>, WireError> {
        let mut view = LogBlockView::default();
        let mut r = self.0;
        while !r.is_empty() {
            match r.tag()? {
                (1, VARINT) => view.records = read_u32(&mut r)?,
                (2, FIXED64) => view.observed_ns = r.fixed64()?,
                (3, LEN) => view.trace = r.id()?,
                (4, VARINT) => view.dropped_attributes = r.varint()?,
                (5, LEN) => view.resource_digest = r.delimited()?,
                (6, LEN) => view.scope = r.delimited()?,
                (7, LEN) => view.encoded = r.delimited()?,
                (11, LEN) => view.entities.push(read_field(r.message()?)?),
                (12, LEN) => view.attributes.push(read_field(r.message()?)?),
                (number, wire_type) => r.skip_unknown(number, 12, wire_type)?,
            }
        }
        Ok(view)
    }
}

fn read_u32(r: &mut Reader<'_>) -> Result<u32, WireError> {
    Ok(u32::try_from(r.varint()?).unwrap_or(u32::MAX))
}
