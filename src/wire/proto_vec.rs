//! Protobuf into a growing buffer, and OTLP's attributes (common/v1 `KeyValue`, `AnyValue`).

use serde_json::Value as Json;

use crate::buffer::varint_len;
use tapio_core::event::Value;

/// Nesting of a JSON value that is written; deeper parts are text.
const MAX_DEPTH: usize = 16;

/// The tag of a field with this number and wire type.
pub(super) const fn tag(number: u32, wire_type: u8) -> u32 {
    number << 3 | wire_type as u32
}

/// The hexadecimal digits of bytes. Ids are written for each record; `format!` would cost half of a
/// record's instructions.
pub(super) fn hex_digits(bytes: &[u8]) -> impl Iterator<Item = u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| DIGITS[usize::from(digit)])
}

/// A growing buffer.
#[derive(Debug, Default)]
pub(super) struct ProtoVec(pub(super) Vec<u8>);

impl ProtoVec {
    #[inline]
    pub(super) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    #[inline]
    fn tag(&mut self, number: u32, wire_type: u8) {
        self.varint(u64::from(tag(number, wire_type)));
    }

    /// Writes a number, unless it is 0.
    #[inline]
    pub(super) fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.tag(field, 0);
            self.varint(value);
        }
    }

    #[inline]
    pub(super) fn fixed64(&mut self, field: u32, value: u64) {
        self.tag(field, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    #[inline]
    pub(super) fn double(&mut self, field: u32, value: f64) {
        self.fixed64(field, value.to_bits());
    }

    /// Writes a number or a boolean, also if it is 0.
    #[inline]
    pub(super) fn any_number(&mut self, field: u32, value: u64) {
        self.tag(field, 0);
        self.varint(value);
    }

    /// Writes bytes or text, unless there are none.
    #[inline]
    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.delimited(field, bytes);
        }
    }

    /// Writes bytes, text or an encoded message.
    #[inline]
    pub(super) fn delimited(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// Writes a message. Its length has one byte if it is short, else it is moved.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.tag(field, 2);
        let at = self.0.len();
        self.0.push(0);
        write(self);
        let len = self.0.len() - at - 1;
        let width = varint_len(len as u64);
        if width > 1 {
            let end = self.0.len();
            self.0.resize(end + width - 1, 0);
            self.0.copy_within(at + 1..end, at + width);
        }
        for (i, byte) in self.0[at..at + width].iter_mut().enumerate() {
            *byte = (len >> (7 * i)) as u8 & 0x7f | if i + 1 < width { 0x80 } else { 0 };
        }
    }

    /// Writes a `KeyValue` with text.
    #[inline]
    pub(super) fn text_attribute(&mut self, field: u32, key: &str, text: &str) {
        self.key_and_value(field, key, 1 + varint_len(text.len() as u64) + text.len());
        self.delimited(1, text.as_bytes());
    }

    /// Writes a `KeyValue` with the hexadecimal digits of these bytes.
    #[inline]
    pub(super) fn hex_attribute(&mut self, field: u32, key: &str, bytes: &[u8]) {
        let len = 2 * bytes.len();
        self.key_and_value(field, key, 1 + varint_len(len as u64) + len);
        self.tag(1, 2);
        self.varint(len as u64);
        self.0.reserve(len);
        self.0.extend(hex_digits(bytes));
    }

    /// Writes a `KeyValue`.
    #[inline]
    pub(super) fn attribute(&mut self, field: u32, key: &str, value: &Value<'_>) {
        match *value {
            Value::Str(text) => self.text_attribute(field, key, text),
            Value::Int(n) => {
                self.key_and_value(field, key, 1 + varint_len(n.cast_unsigned()));
                self.tag(3, 0);
                self.varint(n.cast_unsigned());
            }
            Value::Bool(b) => {
                self.key_and_value(field, key, 2);
                self.tag(2, 0);
                self.0.push(u8::from(b));
            }
            Value::Float(n) => {
                self.key_and_value(field, key, 9);
                self.double(4, n);
            }
            Value::Null => self.key_and_value(field, key, 0),
            Value::Json(text) => match serde_json::from_str(text) {
                Ok(json) => self.json_attribute(field, key, &json),
                // Cut because of its size.
                Err(_) => self.text_attribute(field, key, text),
            },
        }
    }

    /// Begins a `KeyValue` whose `AnyValue` has this length.
    #[inline]
    fn key_and_value(&mut self, field: u32, key: &str, value_len: usize) {
        let value_field = 1 + varint_len(value_len as u64) + value_len;
        self.tag(field, 2);
        self.varint((1 + varint_len(key.len() as u64) + key.len() + value_field) as u64);
        self.delimited(1, key.as_bytes());
        self.tag(2, 2);
        self.varint(value_len as u64);
    }

    /// Writes a `KeyValue` with a list, a map or any other JSON value.
    pub(super) fn json_attribute(&mut self, field: u32, key: &str, json: &Json) {
        self.json_pair(field, key, json, 0);
    }

    fn json_pair(&mut self, field: u32, key: &str, json: &Json, depth: usize) {
        self.message(field, |out| {
            out.delimited(1, key.as_bytes());
            out.message(2, |out| out.json_value(json, depth));
        });
    }

    /// Writes the fields of an `AnyValue`.
    pub(super) fn any_json(&mut self, json: &Json) {
        self.json_value(json, 0);
    }

    fn json_value(&mut self, json: &Json, depth: usize) {
        match json {
            Json::Null => {}
            Json::Bool(b) => {
                self.tag(2, 0);
                self.0.push(u8::from(*b));
            }
            Json::Number(n) => match n.as_i64() {
                Some(n) => {
                    self.tag(3, 0);
                    self.varint(n.cast_unsigned());
                }
                None => self.double(4, n.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => self.delimited(1, text.as_bytes()),
            nested if depth >= MAX_DEPTH => self.delimited(1, nested.to_string().as_bytes()),
            Json::Array(list) => self.message(5, |out| {
                for one in list {
                    out.message(1, |out| out.json_value(one, depth + 1));
                }
            }),
            Json::Object(map) => self.message(6, |out| {
                for (key, one) in map {
                    out.json_pair(1, key, one, depth + 1);
                }
            }),
        }
    }
}
