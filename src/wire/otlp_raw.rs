//! Log records of a request, undecoded, and the few parts of most of them by which it is decided
//! whether they have to be decoded.

use crate::otlp::{OtlpAttributes, OtlpRecord, OtlpScope, OtlpValue, key_value, origins, value};
use crate::reader::{FIXED32, FIXED64, LEN, Reader, VARINT, WireError, as_ascii};

/// The records of a resource and scope.
#[derive(Clone)]
pub struct OtlpRawLogs<'a>(Reader<'a>);

/// A log record, undecoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtlpRawLog<'a> {
    /// The record with its tag and length, as field 2 of a `ScopeLogs` message.
    pub framed: &'a [u8],
    /// The record.
    pub encoded: &'a [u8],
}

/// A part of a plain record.
#[derive(Clone, Copy, Debug)]
pub enum OtlpLogPart<'a> {
    /// An attribute.
    Attribute {
        /// Its position among the attributes.
        at: usize,
        /// Its key.
        key: &'a str,
        /// Its value, which isn't nested.
        value: OtlpValue<'a>,
    },
    /// A text: the body, the name of the severity or of the event.
    Text(&'a str),
}

/// Parts of a plain record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtlpLogOutline<'a> {
    /// Its time, nanoseconds since the Unix epoch; 0: unset.
    pub time_ns: u64,
    /// Time of observation; 0: unset.
    pub observed_ns: u64,
    /// OpenTelemetry's severity number.
    pub severity: u64,
    /// Its body.
    pub message: &'a str,
    /// Its trace; zeros for none.
    pub trace_id: [u8; 16],
    /// Number of its attributes.
    pub attributes: usize,
}

/// Passes the log records of a request to `visit`, for each resource and scope.
///
/// # Errors
/// When the request's outline is invalid, or `visit` finds it invalid; some records may have been
/// visited.
pub fn otlp_raw_logs<'a>(
    bytes: &'a [u8],
    mut visit: impl FnMut(&OtlpAttributes<'a>, &OtlpScope<'a>, OtlpRawLogs<'a>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    origins(bytes, |resource, scope, records| visit(resource, scope, OtlpRawLogs(records)))
}

/// Decodes the records of a block: the bytes of an `InstrumentationScope`, and those of a
/// `ScopeLogs` with records only. Returns the number of those that can't be decoded.
///
/// # Errors
/// When the outline is invalid; some records may have been visited.
pub(crate) fn otlp_block<'a>(
    scope: &'a [u8],
    records: &'a [u8],
    mut visit: impl FnMut(&OtlpScope<'a>, &OtlpRecord<'a>),
) -> Result<u64, WireError> {
    let mut of_scope = OtlpScope::default();
    of_scope.read(Reader::new(scope))?;
    let (mut records, mut record, mut invalid) =
        (OtlpRawLogs::of(records), OtlpRecord::default(), 0);
    while let Some(one) = records.next_log()? {
        match one.decode(&mut record) {
            Ok(()) => visit(&of_scope, &record),
            Err(_) => invalid += 1,
        }
    }
    Ok(invalid)
}

impl<'a> OtlpRawLogs<'a> {
    /// The records of a block: the bytes of a `ScopeLogs` with records only.
    pub(crate) fn of(records: &'a [u8]) -> Self {
        Self(Reader::new(records))
    }

    /// About the size of the records that are left.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.0.rest().len()
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// When the outline of the records is invalid.
    pub fn next_log(&mut self) -> Result<Option<OtlpRawLog<'a>>, WireError> {
        while !self.0.is_empty() {
            let before = self.0.rest();
            let (2, LEN) = self.0.tag_or_skip(2)? else { continue };
            let encoded = self.0.message()?.rest();
            let framed = &before[..before.len() - self.0.rest().len()];
            return Ok(Some(OtlpRawLog { framed, encoded }));
        }
        Ok(None)
    }
}

impl<'a> OtlpRawLog<'a> {
    /// Decodes the record into this one, whose lists are used again.
    ///
    /// # Errors
    /// When it can't be decoded.
    pub fn decode(&self, record: &mut OtlpRecord<'a>) -> Result<(), WireError> {
        record.clear();
        record.encoded = self.encoded;
        record.log(Reader::new(self.encoded))
    }

    /// The outline of a plain record: a valid one that has an ASCII text as its body, as attributes
    /// only texts, numbers and booleans, and with whose parts `agrees` agrees. `None` for another
    /// one.
    #[inline]
    #[must_use]
    pub fn outline(
        &self,
        mut agrees: impl FnMut(OtlpLogPart<'a>) -> bool,
    ) -> Option<OtlpLogOutline<'a>> {
        let mut outline = OtlpLogOutline::default();
        let mut r = Reader::new(self.encoded);
        while !r.is_empty() {
            match r.tag().ok()? {
                (6, LEN) => {
                    let pair = r.message().ok()?;
                    let (key, value) = match short_pair(pair.rest()) {
                        Some(pair) => pair,
                        None => plain_pair(pair)?,
                    };
                    let at = outline.attributes;
                    if !agrees(OtlpLogPart::Attribute { at, key, value }) {
                        return None;
                    }
                    outline.attributes += 1;
                }
                (1, FIXED64) => outline.time_ns = r.fixed64().ok()?,
                (2, VARINT) => outline.severity = r.varint().ok()?,
                (3 | 12, LEN) => {
                    if !agrees(OtlpLogPart::Text(r.text().ok()?)) {
                        return None;
                    }
                }
                (5, LEN) => match value(r.message().ok()?).ok()? {
                    OtlpValue::Text(text) if text.is_ascii() && agrees(OtlpLogPart::Text(text)) => {
                        outline.message = text;
                    }
                    _ => return None,
                },
                (7, VARINT) => drop(r.varint().ok()?),
                (8, FIXED32) => drop(r.fixed32().ok()?),
                (9, LEN) => outline.trace_id = r.id().ok()?,
                (10, LEN) => drop(r.id::<8>().ok()?),
                (11, FIXED64) => outline.observed_ns = r.fixed64().ok()?,
                _ => return None,
            }
        }
        Some(outline)
    }
}

/// An attribute whose value isn't nested.
fn plain_pair(pair: Reader<'_>) -> Option<(&str, OtlpValue<'_>)> {
    key_value(pair).ok().filter(|(_, value)| !matches!(value, OtlpValue::Nested(_)))
}

/// The same for what nearly all attributes are: an ASCII key and then a value, an ASCII text or an
/// integer, each of less than 128 bytes. `None`: it may be another one.
#[inline]
fn short_pair(pair: &[u8]) -> Option<(&str, OtlpValue<'_>)> {
    const KEY: u8 = 1 << 3 | LEN;
    const VALUE: u8 = 2 << 3 | LEN;
    const TEXT: u8 = 1 << 3 | LEN;
    const INTEGER: u8 = 3 << 3 | VARINT;
    let [KEY, key_bytes @ 0..0x80, rest @ ..] = pair else { return None };
    let (key, rest) = rest.split_at_checked(usize::from(*key_bytes))?;
    let [VALUE, value_bytes @ 0..0x80, value @ ..] = rest else { return None };
    if value.len() != usize::from(*value_bytes) {
        return None;
    }
    let value = match value {
        [TEXT, text_bytes @ 0..0x80, text @ ..] if text.len() == usize::from(*text_bytes) => {
            OtlpValue::Text(as_ascii(text)?)
        }
        [INTEGER, more @ .., last @ 0..0x80]
            if more.len() < 9 && more.iter().all(|b| *b >= 0x80) =>
        {
            let bits = more.iter().rfold(u64::from(*last), |n, b| n << 7 | u64::from(b & 0x7f));
            OtlpValue::Int(bits.cast_signed())
        }
        _ => return None,
    };
    Some((as_ascii(key)?, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn short_attributes_are_read_as_all_are(
            key in "[a-zé]{0,3}", text in "[a-zé]{0,3}", number in any::<i64>(), which in 0..6u8,
            damage in prop::option::of((0..20usize, any::<u8>())),
        ) {
            let value = match which {
                0 => [&[1 << 3 | 2, text.len() as u8], text.as_bytes()].concat(),
                1 => {
                    let mut out = vec![3 << 3];
                    prost::encoding::encode_varint(number as u64, &mut out);
                    out
                }
                2 => vec![2 << 3, 1],
                3 => [&[4 << 3 | 1][..], &1f64.to_le_bytes()].concat(),
                4 => vec![5 << 3 | 2, 0],
                _ => vec![],
            };
            let key = [&[1 << 3 | 2, key.len() as u8], key.as_bytes()].concat();
            let mut pair = [&key[..], &[2 << 3 | 2, value.len() as u8], &value].concat();
            if let Some((at, byte)) = damage && at < pair.len() {
                pair[at] = byte;
            }
            if let Some(short) = short_pair(&pair) {
                let plain = plain_pair(Reader::new(&pair));
                prop_assert_eq!(format!("{short:?}"), format!("{:?}", plain.unwrap()));
            } else if damage.is_none() && which < 2 && pair.is_ascii() {
                prop_assert!(false, "{:?}", pair);
            }
        }
    }
}
