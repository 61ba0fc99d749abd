//! Decodes OTLP export requests into records that borrow from the bytes (opentelemetry-proto 1.x:
//! collector/logs/v1, collector/trace/v1, logs/v1, trace/v1, common/v1). Decoded by hand: a request
//! of hundreds of records allocates two lists, whatever it contains.

use super::reader::{FIXED64, LEN, Reader, VARINT, WireCause, WireError};

/// Attributes kept of a resource or record; more are counted.
const MAX_ATTRIBUTES: usize = 256;
/// Nesting depth of a value, so that hostile bytes can't exhaust the stack.
const MAX_DEPTH: usize = 16;

/// The signal of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpSignal {
    /// `ExportLogsServiceRequest`
    Logs,
    /// `ExportTraceServiceRequest`
    Traces,
}

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

/// A log record or a span, with its resource's attributes.
#[derive(Debug, Default)]
pub struct OtlpRecord<'a> {
    /// Time of the record or start of the span, nanoseconds since the Unix epoch; 0: unset.
    pub time_ns: u64,
    /// Time of observation; 0: unset.
    pub observed_ns: u64,
    /// End of the span; 0 for a log record.
    pub end_ns: u64,
    /// OpenTelemetry's severity number; 0: unset.
    pub severity: u8,
    /// A span's name, or a log record's `event_name`.
    pub name: &'a str,
    /// A log record's body, or the message of a span's status.
    pub body: OtlpValue<'a>,
    /// Whether a span's status is an error.
    pub failed: bool,
    /// Its trace; zeros for none.
    pub trace_id: [u8; 16],
    /// The span itself, or the log record's span; zeros for none.
    pub span_id: [u8; 8],
    /// Its own attributes.
    pub attributes: OtlpAttributes<'a>,
}

/// The attributes of a resource or record.
#[derive(Debug, Default)]
pub struct OtlpAttributes<'a> {
    /// Keys and values, in the order of the request.
    pub list: Vec<(&'a str, OtlpValue<'a>)>,
    /// Attributes dropped here or by the sender.
    pub dropped: u32,
}

/// Decodes a request and passes each record to `visit`, with its resource's attributes. Returns the
/// number of records that can't be decoded and were skipped.
///
/// # Errors
/// When the request's outline is invalid; some records may have been visited.
pub fn otlp_records<'a>(
    signal: OtlpSignal,
    bytes: &'a [u8],
    mut visit: impl FnMut(&OtlpAttributes<'a>, &OtlpRecord<'a>),
) -> Result<u64, WireError> {
    let (mut request, mut invalid) = (Reader::new(bytes), 0);
    let mut record = OtlpRecord::default();
    while !request.is_empty() {
        let (1, LEN) = request.tag()? else {
            return Err(request.error(WireCause::FieldType(1)));
        };
        // ResourceLogs and ResourceSpans: the resource may follow its records.
        let of_resource = request.message()?;
        let resource = resource_attributes(of_resource)?;
        let mut parts = of_resource;
        while !parts.is_empty() {
            let (2, LEN) = parts.tag_or_skip(2)? else { continue };
            let mut scope = parts.message()?;
            while !scope.is_empty() {
                let (2, LEN) = scope.tag_or_skip(2)? else { continue };
                let one = scope.message()?;
                record.clear();
                let read = match signal {
                    OtlpSignal::Logs => record.log(one),
                    OtlpSignal::Traces => record.span(one),
                };
                match read {
                    Ok(()) => visit(&resource, &record),
                    Err(_) => invalid += 1,
                }
            }
        }
    }
    Ok(invalid)
}

fn resource_attributes(mut part: Reader<'_>) -> Result<OtlpAttributes<'_>, WireError> {
    let mut attributes = OtlpAttributes::default();
    while !part.is_empty() {
        let (1, LEN) = part.tag_or_skip(1)? else { continue };
        let mut resource = part.message()?;
        while !resource.is_empty() {
            match resource.tag()? {
                (1, LEN) => attributes.add(resource.message()?),
                (2, VARINT) => attributes.add_dropped(resource.varint()?),
                (number, wire_type) => resource.skip_unknown(number, 2, wire_type)?,
            }
        }
    }
    Ok(attributes)
}

impl<'a> OtlpAttributes<'a> {
    /// Adds a `KeyValue`. One that can't be decoded costs itself only.
    fn add(&mut self, pair: Reader<'a>) {
        match key_value(pair) {
            Ok(("", _)) => {}
            Ok(decoded) if self.list.len() < MAX_ATTRIBUTES => self.list.push(decoded),
            Ok(_) | Err(_) => self.dropped = self.dropped.saturating_add(1),
        }
    }

    /// Adds a `dropped_attributes_count`.
    fn add_dropped(&mut self, attributes: u64) {
        let more = u32::try_from(attributes).unwrap_or(u32::MAX);
        self.dropped = self.dropped.saturating_add(more);
    }
}

/// Decodes a `KeyValue`.
fn key_value(mut pair: Reader<'_>) -> Result<(&str, OtlpValue<'_>), WireError> {
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
fn value(mut any: Reader<'_>) -> Result<OtlpValue<'_>, WireError> {
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
    fn tag_or_skip(&mut self, expected: u32) -> Result<(u32, u8), WireError> {
        let (number, wire_type) = self.tag()?;
        if number == expected && wire_type == LEN {
            return Ok((number, wire_type));
        }
        self.skip(wire_type)?;
        Ok((0, wire_type))
    }
}

impl<'a> OtlpRecord<'a> {
    fn clear(&mut self) {
        let mut attributes = std::mem::take(&mut self.attributes);
        attributes.list.clear();
        attributes.dropped = 0;
        *self = Self { attributes, ..Self::default() };
    }

    /// Decodes a `LogRecord`.
    fn log(&mut self, mut r: Reader<'a>) -> Result<(), WireError> {
        while !r.is_empty() {
            match r.tag()? {
                (1, FIXED64) => self.time_ns = r.fixed64()?,
                (2, VARINT) => self.severity = u8::try_from(r.varint()?).unwrap_or(0),
                (5, LEN) => self.body = value(r.message()?)?,
                (6, LEN) => self.attributes.add(r.message()?),
                (7, VARINT) => self.attributes.add_dropped(r.varint()?),
                (9, LEN) => self.trace_id = r.id()?,
                (10, LEN) => self.span_id = r.id()?,
                (11, FIXED64) => self.observed_ns = r.fixed64()?,
                (12, LEN) => self.name = r.text()?,
                (3 | 8, wire_type) => r.skip(wire_type)?,
                (number, wire_type) => r.skip_unknown(number, 12, wire_type)?,
            }
        }
        Ok(())
    }

    /// Decodes a `Span`.
    fn span(&mut self, mut r: Reader<'a>) -> Result<(), WireError> {
        while !r.is_empty() {
            match r.tag()? {
                (1, LEN) => self.trace_id = r.id()?,
                (2, LEN) => self.span_id = r.id()?,
                (5, LEN) => self.name = r.text()?,
                (7, FIXED64) => self.time_ns = r.fixed64()?,
                (8, FIXED64) => self.end_ns = r.fixed64()?,
                (9, LEN) => self.attributes.add(r.message()?),
                (10, VARINT) => self.attributes.add_dropped(r.varint()?),
                (15, LEN) => self.status(r.message()?)?,
                (_, wire_type) => r.skip(wire_type)?,
            }
        }
        Ok(())
    }

    fn status(&mut self, mut r: Reader<'a>) -> Result<(), WireError> {
        while !r.is_empty() {
            match r.tag()? {
                (2, LEN) => self.body = OtlpValue::Text(r.text()?),
                // STATUS_CODE_ERROR
                (3, VARINT) => self.failed = r.varint()? == 2,
                (_, wire_type) => r.skip(wire_type)?,
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A length-delimited field.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | LEN];
        let mut len = bytes.len();
        while len >= 0x80 {
            out.push(len as u8 | 0x80);
            len >>= 7;
        }
        out.push(len as u8);
        out.extend_from_slice(bytes);
        out
    }

    fn pair(key: &str, value: &[u8]) -> Vec<u8> {
        [field(1, key.as_bytes()), field(2, value)].concat()
    }

    fn text(text: &str) -> Vec<u8> {
        field(1, text.as_bytes())
    }

    fn fixed(number: u8, n: u64) -> Vec<u8> {
        [vec![number << 3 | FIXED64], n.to_le_bytes().to_vec()].concat()
    }

    /// A request with one resource.
    fn request(records: &[Vec<u8>]) -> Vec<u8> {
        let resource = field(1, &field(1, &pair("service.name", &text("shop"))));
        let scope: Vec<u8> = records.iter().flat_map(|r| field(2, r)).collect();
        field(1, &[field(2, &scope), resource].concat())
    }

    #[test]
    fn log_record_is_decoded_with_its_resource() {
        let list = field(5, &[field(1, &text("a")), field(1, &[3 << 3, 7])].concat());
        let log = [
            fixed(1, 1_000),
            vec![2 << 3, 17],
            field(5, &text("it broke")),
            field(6, &pair("n", &[3 << 3, 42])),
            field(6, &pair("l", &list)),
            field(6, &pair("not text", &field(1, &[0xff]))),
            field(9, &[1; 16]),
            field(10, &[2; 8]),
            field(12, b"app.broke"),
        ]
        .concat();
        let mut seen = 0;
        let invalid =
            otlp_records(OtlpSignal::Logs, &request(&[log, vec![0xff]]), |resource, r| {
                seen += 1;
                assert!(matches!(resource.list[..], [("service.name", OtlpValue::Text("shop"))]));
                assert_eq!((r.time_ns, r.severity, r.name), (1_000, 17, "app.broke"));
                assert!(matches!(r.body, OtlpValue::Text("it broke")));
                assert_eq!((r.trace_id, r.span_id), ([1; 16], [2; 8]));
                let json: Vec<String> =
                    r.attributes.list.iter().map(|(k, v)| format!("{k}={}", v.json())).collect();
                assert_eq!(json, ["n=42", r#"l=["a",7]"#]);
                assert_eq!(r.attributes.dropped, 1);
            });
        assert_eq!((invalid, seen), (Ok(1), 1));
    }

    #[test]
    fn span_is_decoded() {
        let span = [
            field(1, &[3; 16]),
            field(2, &[4; 8]),
            field(5, b"GET /"),
            fixed(7, 5),
            fixed(8, 9),
            field(15, &[field(2, b"no"), vec![3 << 3, 2]].concat()),
        ]
        .concat();
        let mut seen = 0;
        let invalid = otlp_records(OtlpSignal::Traces, &request(&[span]), |_, r| {
            seen += 1;
            assert_eq!((r.name, r.time_ns, r.end_ns, r.failed), ("GET /", 5, 9, true));
        });
        assert_eq!((invalid, seen), (Ok(0), 1));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_decoded_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..300), traces in any::<bool>(),
        ) {
            let signal = if traces { OtlpSignal::Traces } else { OtlpSignal::Logs };
            // As a request, as a record, and as a field of a record.
            for bytes in [bytes.clone(), request(std::slice::from_ref(&bytes)), request(&[field(5, &bytes)])] {
                let _ = otlp_records(signal, &bytes, |_, r| {
                    let _ = r.body.json();
                    r.attributes.list.iter().for_each(|(_, v)| drop(v.json()));
                });
            }
        }
    }
}
