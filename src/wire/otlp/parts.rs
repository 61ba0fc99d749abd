//! Events and links of spans.

use super::value::OtlpAttributes;
use crate::reader::{FIXED64, LEN, Reader, WireError};

/// Events, and links, kept of a span; more are counted.
const MAX_PARTS: usize = 32;

/// The events or links of a span, undecoded; those that the sender dropped are counted.
#[derive(Default)]
pub struct OtlpParts<'a> {
    list: Vec<Reader<'a>>,
    /// Number that the sender or the bound left out.
    pub dropped: u32,
}

/// An event or a link of a span.
#[derive(Debug, Default)]
pub struct OtlpPart<'a> {
    /// Time of the event.
    pub time_ns: u64,
    /// Name of the event.
    pub name: &'a str,
    /// Trace of the link.
    pub trace_id: [u8; 16],
    /// Span of the link.
    pub span_id: [u8; 8],
    /// Its attributes.
    pub attributes: OtlpAttributes<'a>,
}

impl std::fmt::Debug for OtlpParts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} parts", self.list.len())
    }
}

impl<'a> OtlpParts<'a> {
    /// Empties the list; returns it, to be filled again.
    pub(super) fn cleared(&mut self) -> Self {
        let mut list = std::mem::take(&mut self.list);
        list.clear();
        Self { list, dropped: 0 }
    }

    pub(super) fn add(&mut self, part: Reader<'a>) {
        if self.list.len() < MAX_PARTS {
            self.list.push(part);
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    pub(super) fn add_dropped(&mut self, parts: u64) {
        self.dropped = self.dropped.saturating_add(u32::try_from(parts).unwrap_or(u32::MAX));
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The events of a span; one that can't be decoded is left out.
    pub fn events(&self) -> impl Iterator<Item = OtlpPart<'a>> {
        self.list.iter().filter_map(|part| event(*part).ok())
    }

    /// The links of a span; one that can't be decoded is left out.
    pub fn links(&self) -> impl Iterator<Item = OtlpPart<'a>> {
        self.list.iter().filter_map(|part| link(*part).ok())
    }
}

/// Decodes a `Span.Event`.
fn event(mut r: Reader<'_>) -> Result<OtlpPart<'_>, WireError> {
    let mut event = OtlpPart::default();
    while !r.is_empty() {
        match r.tag()? {
            (1, FIXED64) => event.time_ns = r.fixed64()?,
            (2, LEN) => event.name = r.text()?,
            (3, LEN) => event.attributes.add(r.message()?),
            (_, wire_type) => r.skip(wire_type)?,
        }
    }
    Ok(event)
}

/// Decodes a `Span.Link`.
fn link(mut r: Reader<'_>) -> Result<OtlpPart<'_>, WireError> {
    let mut link = OtlpPart::default();
    while !r.is_empty() {
        match r.tag()? {
            (1, LEN) => link.trace_id = r.id()?,
            (2, LEN) => link.span_id = r.id()?,
            (4, LEN) => link.attributes.add(r.message()?),
            (_, wire_type) => r.skip(wire_type)?,
        }
    }
    Ok(link)
}
