//! OTLP's JSON encoding (OTLP specification, "JSON Protobuf Encoding"): a request as JSON becomes
//! one in protobuf, so that there is one decoder. Written while it is parsed, without a tree of the
//! values.
//!
//! An attribute or record that is invalid costs itself only: it is written as one that the decoder
//! can't decode, and counts.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::otlp::OtlpSignal;
use super::otlp_schema::{LOGS, METRICS, Schema, TRACES, Type};
use super::reader::{FIXED32, FIXED64, LEN, VARINT};

/// A message that can't be decoded: a tag without its end.
const INVALID: &[u8] = &[0xff];

/// Encodes a request in JSON as protobuf.
///
/// # Errors
/// When the text isn't JSON, or its outline isn't that of a request.
pub fn otlp_from_json(signal: OtlpSignal, json: &[u8]) -> Result<Vec<u8>, String> {
    let schema = match signal {
        OtlpSignal::Logs => &LOGS,
        OtlpSignal::Traces => &TRACES,
        OtlpSignal::Metrics => &METRICS,
    };
    let mut writer = Writer { out: Vec::with_capacity(json.len()), invalid: None };
    let mut parser = serde_json::Deserializer::from_slice(json);
    let parsed = Value { field: Field::Request(schema), writer: &mut writer }
        .deserialize(&mut parser)
        .and_then(|()| parser.end());
    match (parsed, writer.invalid) {
        (Err(e), _) => Err(e.to_string()),
        (Ok(()), Some(cause)) => Err(cause),
        (Ok(()), None) => Ok(writer.out),
    }
}

/// The protobuf written so far.
struct Writer {
    out: Vec<u8>,
    /// The first invalid value of the innermost message that costs itself.
    invalid: Option<String>,
}

impl Writer {
    fn invalid(&mut self, cause: impl FnOnce() -> String) {
        if self.invalid.is_none() {
            self.invalid = Some(cause());
        }
    }

    fn tag(&mut self, number: u32, wire_type: u8) {
        self.varint(u64::from(number << 3 | u32::from(wire_type)));
    }

    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.out.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.out.push(n as u8);
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.tag(number, LEN);
        self.varint(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// Makes what was written from `begin` on a length-delimited field.
    fn enclose(&mut self, number: u32, begin: usize) {
        let end = self.out.len();
        self.tag(number, LEN);
        self.varint((end - begin) as u64);
        let head = self.out.len() - end;
        // The head was written behind its content.
        self.out[begin..].rotate_right(head);
    }
}

/// The place of a value.
#[derive(Clone, Copy)]
enum Field {
    /// The whole text.
    Request(&'static Schema),
    /// A field of a message.
    Of(&'static str, u32, Type),
    /// An element of a packed list.
    Element(&'static str, Type),
}

/// Parses one value and writes it.
struct Value<'w> {
    field: Field,
    writer: &'w mut Writer,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl Value<'_> {
    fn name(&self) -> &'static str {
        match self.field {
            Field::Request(_) => "request",
            Field::Of(name, ..) | Field::Element(name, _) => name,
        }
    }

    fn mismatch(self, found: impl fmt::Display) {
        let name = self.name();
        self.writer.invalid(|| format!("{name}: unexpected {found}"));
    }

    /// Writes an integer that has the bits of `n`.
    fn int(self, n: i64) {
        let bits = n.cast_unsigned();
        match self.field {
            Field::Of(_, number, Type::Int) => {
                self.writer.tag(number, VARINT);
                self.writer.varint(bits);
            }
            Field::Of(_, number, Type::ZigZag) => {
                self.writer.tag(number, VARINT);
                self.writer.varint((n << 1 ^ n >> 63).cast_unsigned());
            }
            Field::Of(_, number, Type::Fixed64) => {
                self.writer.tag(number, FIXED64);
                self.writer.out.extend_from_slice(&bits.to_le_bytes());
            }
            Field::Element(_, Type::PackedInts) => self.writer.varint(bits),
            Field::Element(_, Type::PackedFixed64) => {
                self.writer.out.extend_from_slice(&bits.to_le_bytes());
            }
            Field::Of(_, number, Type::Fixed32) => match u32::try_from(n) {
                Ok(bits) => {
                    self.writer.tag(number, FIXED32);
                    self.writer.out.extend_from_slice(&bits.to_le_bytes());
                }
                Err(_) => self.mismatch(n),
            },
            _ => self.float(n as f64),
        }
    }

    fn float(self, n: f64) {
        match self.field {
            Field::Of(_, number, Type::Double) => {
                self.writer.tag(number, FIXED64);
                self.writer.out.extend_from_slice(&n.to_le_bytes());
            }
            Field::Element(_, Type::PackedDoubles) => {
                self.writer.out.extend_from_slice(&n.to_le_bytes());
            }
            // 1e3 is an integer in JSON.
            Field::Of(_, _, Type::Int | Type::ZigZag | Type::Fixed32 | Type::Fixed64)
            | Field::Element(_, Type::PackedInts | Type::PackedFixed64)
                if n.fract() == 0.0 && n.abs() < 9.0e15 =>
            {
                self.int(n as i64);
            }
            _ => self.mismatch(n),
        }
    }

    fn text(self, text: &str) {
        match self.field {
            Field::Of(_, number, Type::Text) => self.writer.bytes(number, text.as_bytes()),
            Field::Of(_, number, Type::Id) => match from_hex(text) {
                Some(id) => self.writer.bytes(number, &id),
                None => self.mismatch(format_args!("{text:?}, not hexadecimal digits")),
            },
            Field::Of(_, number, Type::Bytes) => {
                match STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)) {
                    Ok(bytes) => self.writer.bytes(number, &bytes),
                    Err(_) => self.mismatch("text that isn't base64"),
                }
            }
            Field::Of(_, _, Type::Double) | Field::Element(_, Type::PackedDoubles) => {
                // Rust reads `NaN`, `Infinity` and `-Infinity` as well.
                match text.parse() {
                    Ok(n) => self.float(n),
                    Err(_) => self.mismatch(format_args!("{text:?}, not a number")),
                }
            }
            Field::Of(_, _, Type::Int | Type::ZigZag | Type::Fixed32 | Type::Fixed64)
            | Field::Element(_, Type::PackedInts | Type::PackedFixed64) => {
                let signed = text.parse::<i64>();
                match signed.or_else(|_| text.parse::<u64>().map(u64::cast_signed)) {
                    Ok(n) => self.int(n),
                    Err(_) => self.mismatch(format_args!("{text:?}, not an integer")),
                }
            }
            _ => self.mismatch("text"),
        }
    }
}

/// The bytes of hexadecimal digits in any case.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some((digit(*high)? << 4 | digit(*low)?) as u8),
            _ => None,
        })
        .collect()
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of OTLP")
    }

    /// `null` is the default.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, b: bool) -> Result<(), E> {
        match self.field {
            Field::Of(_, number, Type::Bool) => {
                self.writer.tag(number, VARINT);
                self.writer.out.push(u8::from(b));
            }
            _ => self.mismatch(b),
        }
        Ok(())
    }

    fn visit_i64<E>(self, n: i64) -> Result<(), E> {
        self.int(n);
        Ok(())
    }

    fn visit_u64<E>(self, n: u64) -> Result<(), E> {
        match self.field {
            Field::Of(_, _, Type::Double) | Field::Element(_, Type::PackedDoubles) => {
                self.float(n as f64);
            }
            _ => self.int(n.cast_signed()),
        }
        Ok(())
    }

    fn visit_f64<E>(self, n: f64) -> Result<(), E> {
        self.float(n);
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.text(text);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let begin = self.writer.out.len();
        let schema = match self.field {
            Field::Request(schema) | Field::Of(_, _, Type::Message(schema)) => schema,
            _ => {
                self.mismatch("object");
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return Ok(());
            }
        };
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match schema.fields.iter().find(|(name, ..)| is_name(&key, name)) {
                Some((name, number, kind)) => {
                    let field = Field::Of(name, *number, *kind);
                    map.next_value_seed(Value { field, writer: self.writer })?;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if let Field::Of(_, number, _) = self.field {
            self.writer.enclose(number, begin);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let (name, number, schema) = match self.field {
            Field::Of(name, number, Type::Messages(schema)) => (name, number, schema),
            Field::Of(
                name,
                number,
                kind @ (Type::PackedInts | Type::PackedFixed64 | Type::PackedDoubles),
            ) => {
                let (begin, field) = (self.writer.out.len(), Field::Element(name, kind));
                while seq.next_element_seed(Value { field, writer: self.writer })?.is_some() {}
                self.writer.enclose(number, begin);
                return Ok(());
            }
            _ => {
                self.mismatch("list");
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(());
            }
        };
        // The cause of the message that this list is a part of.
        let outer = self.writer.invalid.take();
        loop {
            let begin = self.writer.out.len();
            let field = Field::Of(name, number, Type::Message(schema));
            let element = Value { field, writer: self.writer };
            if seq.next_element_seed(element)?.is_none() {
                break;
            }
            if schema.costs_itself && self.writer.invalid.take().is_some() {
                self.writer.out.truncate(begin);
                self.writer.bytes(number, INVALID);
            }
        }
        if outer.is_some() {
            self.writer.invalid = outer;
        }
        Ok(())
    }
}

/// Whether a key is this name: `lowerCamelCase`, or as in the definition.
fn is_name(key: &str, name: &str) -> bool {
    if key == name {
        return true;
    }
    let mut key = key.bytes();
    let mut upper = false;
    for c in name.bytes() {
        if c == b'_' {
            upper = true;
            continue;
        }
        let c = if std::mem::take(&mut upper) { c.to_ascii_uppercase() } else { c };
        if key.next() != Some(c) {
            return false;
        }
    }
    key.next().is_none()
}

#[cfg(test)]
mod tests;
