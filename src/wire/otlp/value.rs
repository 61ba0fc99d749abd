//! Values and attributes.

use crate::reader::{FIXED64, LEN, Reader, VARINT, WireError};

/// Attributes kept of a resource or record; more are counted.
const MAX_ATTRIBUTES: usize = 256;
/// Nesting depth of a value, so that hostile bytes can't exhaust the stack.
const MAX_DEPTH: usize = 16;

/// Value of an attribute or a body.
#[derive(Clone, Copy, Debug, Default)]
pub enum OtlpValue<'a> {
    /// No value.
    #[default]
    Empty,
    /// Text.
    Text(&'a str),
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A list, a map or bytes; [`OtlpValue::json`] decodes it.
    Nested(OtlpNested<'a>),
}

/// A list, a map or bytes, undecoded.
#[derive(Clone, Copy)]
pub struct OtlpNested<'a>(u32, Reader<'a>);

impl std::fmt::Debug for OtlpNested<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "field {}", self.0)
    }
}

/// The attributes of a resource or record.
#[derive(Debug, Default)]
pub struct OtlpAttributes<'a> {
    /// Keys and values, in the order of the request.
    pub list: Vec<(&'a str, OtlpValue<'a>)>,
    /// Attributes dropped here or by the sender.
    pub dropped: u32,
    /// The bytes of the resource that has them; empty elsewhere.
    pub encoded: &'a [u8],
}

impl<'a> OtlpAttributes<'a> {
    /// Adds a `KeyValue`. One that can't be decoded costs itself only.
    pub(super) fn add(&mut self, pair: Reader<'a>) {
        match key_value(pair) {
            Ok(("", _)) => {}
            Ok(decoded) if self.list.len() < MAX_ATTRIBUTES => self.list.push(decoded),
            Ok(_) | Err(_) => self.dropped = self.dropped.saturating_add(1),
        }
    }

    /// Attributes dropped here or by the sender.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.into()
    }

    /// Adds a `dropped_attributes_count`.
    pub(super) fn add_dropped(&mut self, attributes: u64) {
        let more = u32::try_from(attributes).unwrap_or(u32::MAX);
        self.dropped = self.dropped.saturating_add(more);
    }
}

/// Decodes a `KeyValue`.
pub(crate) fn key_value(mut pair: Reader<'_>) -> Result<(&str, OtlpValue<'_>), WireError> {
    let (mut key, mut decoded) = ("", OtlpValue::Empty);
    while !pair.is_empty() {
        match pair.tag()? {
            (1, LEN) => key = pair.text()?,
            (2, LEN) => decoded = value(pair.message()?)?,
            (number, wire_type) => pair.skip_unknown(number, 2, wire_type)?,
        }
    }
    Ok((key, decoded))
}

/// Decodes an `AnyValue`.
pub(crate) fn value(mut any: Reader<'_>) -> Result<OtlpValue<'_>, WireError> {
    let mut decoded = OtlpValue::Empty;
    while !any.is_empty() {
        decoded = match any.tag()? {
            (1, LEN) => OtlpValue::Text(any.text()?),
            (2, VARINT) => OtlpValue::Bool(any.varint()? != 0),
            // An int64 is its two's complement on the wire.
            (3, VARINT) => OtlpValue::Int(any.varint()? as i64),
            (4, FIXED64) => OtlpValue::Float(f64::from_bits(any.fixed64()?)),
            (number @ 5..=7, LEN) => OtlpValue::Nested(OtlpNested(number, any.message()?)),
            (number, wire_type) => {
                any.skip_unknown(number, 7, wire_type)?;
                decoded
            }
        };
    }
    Ok(decoded)
}

impl<'a> Reader<'a> {
    /// Reads the next field's number and type. A field other than `expected` is skipped; its number
    /// is returned as 0.
    pub(crate) fn tag_or_skip(&mut self, expected: u32) -> Result<(u32, u8), WireError> {
        let (number, wire_type) = self.tag()?;
        if number == expected && wire_type == LEN {
            return Ok((number, wire_type));
        }
        self.skip(wire_type)?;
        Ok((0, wire_type))
    }
}

impl OtlpValue<'_> {
    /// The value as JSON: lists and maps up to a depth of 16, bytes as hexadecimal digits. A value
    /// that can't be decoded is null.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        json(self, 0)
    }
}

fn json(value: &OtlpValue<'_>, depth: usize) -> serde_json::Value {
    match value {
        OtlpValue::Empty => serde_json::Value::Null,
        OtlpValue::Text(text) => (*text).into(),
        OtlpValue::Bool(b) => (*b).into(),
        OtlpValue::Int(n) => (*n).into(),
        OtlpValue::Float(n) => (*n).into(),
        OtlpValue::Nested(_) if depth >= MAX_DEPTH => serde_json::Value::Null,
        OtlpValue::Nested(OtlpNested(number, nested)) => {
            nested_json(*number, *nested, depth + 1).unwrap_or_default()
        }
    }
}

/// Decodes an `ArrayValue` (5), `KeyValueList` (6) or bytes (7).
fn nested_json(
    number: u32,
    mut r: Reader<'_>,
    depth: usize,
) -> Result<serde_json::Value, WireError> {
    if number == 7 {
        let rest = r.range();
        let digits: String = r.take(rest.len())?.iter().map(|b| format!("{b:02x}")).collect();
        return Ok(digits.into());
    }
    let (mut list, mut map) = (Vec::new(), serde_json::Map::new());
    while !r.is_empty() {
        let (1, LEN) = r.tag_or_skip(1)? else { continue };
        let inner = r.message()?;
        if number == 5 {
            list.push(json(&value(inner)?, depth));
            continue;
        }
        let (key, decoded) = key_value(inner)?;
        if !key.is_empty() {
            map.insert(key.to_owned(), json(&decoded, depth));
        }
    }
    Ok(if number == 5 { list.into() } else { map.into() })
}
