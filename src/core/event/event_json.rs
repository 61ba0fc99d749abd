//! The JSON form of an event, parsed and rendered. One object per line:
//! `{"id"?, "time", "kind", "source", "severity"?, "entity"?, "message"?, "attributes"?,
//! "trace_id"?, "span_id"?}`.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::id::{EventId, TraceId};
use super::interner::{NameError, NameSource};
use super::json::{EventParseError, rfc3339, value_json};
use super::name::Name;
use super::record::{ClockQuality, Event, Field, Value};
use super::severity::Severity;
use super::well_known_names as names;

fn bad(cause: impl Into<String>) -> EventParseError {
    EventParseError::whole_line(cause)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(default)]
    id: Option<Json>,
    time: Json,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    source: Option<Cow<'a, str>>,
    #[serde(default)]
    severity: Option<Json>,
    #[serde(default)]
    entity: Map<String, Json>,
    #[serde(borrow, default)]
    message: Option<Cow<'a, str>>,
    #[serde(default)]
    attributes: Map<String, Json>,
    #[serde(borrow, default)]
    trace_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    span_id: Option<Cow<'a, str>>,
}

/// A value that owns its text.
enum OwnedValue {
    Plain(Value<'static>),
    Str(String),
    Json(String),
}

/// A parsed line. It owns the data that [`JsonEvent::event`] borrows.
pub struct JsonEvent {
    id: EventId,
    time_ns: u64,
    clock: ClockQuality,
    kind: Name,
    source: Name,
    severity: Severity,
    entities: u8,
    fields: Vec<(Name, OwnedValue)>,
    message: String,
    trace_id: TraceId,
    span_id: [u8; 8],
}

fn parse_time(time: &Json) -> Result<(u64, ClockQuality), EventParseError> {
    match time {
        Json::Number(n) => {
            let ns = match n.as_u64() {
                Some(whole) => Some(whole.saturating_mul(unit_ns(whole))),
                // Seconds or milliseconds with a fraction.
                None => n.as_f64().filter(|t| *t >= 0.0).and_then(fraction_ns),
            };
            let ns = ns.ok_or_else(|| {
                bad(format!(
                    "time: {n} are no nanoseconds, nor seconds or milliseconds of this time"
                ))
            })?;
            Ok((ns, clock_quality(ns)))
        }
        Json::String(s) if !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()) => {
            let number: u64 =
                s.parse().map_err(|_| bad(format!("time: {s:?} isn't between 1970 and 2554")))?;
            parse_time(&number.into())
        }
        Json::String(s) => {
            let t: Timestamp = s.parse().map_err(|e| bad(format!("time: {e}")))?;
            let ns = u64::try_from(t.as_nanosecond())
                .map_err(|_| bad(format!("time: {s:?} isn't between 1970 and 2554")))?;
            Ok((ns, clock_quality(ns)))
        }
        other => Err(bad(format!(
            "time: expected RFC 3339 or a number of seconds, milliseconds, microseconds or \
             nanoseconds since 1970, found {other}"
        ))),
    }
}

/// Seconds since 1970 from 2008 to 2071. A number in this range, or a thousand or a million times
/// as large, is a date in seconds, milliseconds or microseconds: in nanoseconds it would be at most
/// 37 days after 1970.
const SECONDS: std::ops::Range<u64> = 1_200_000_000..3_200_000_000;

/// The unit of a time, in nanoseconds.
fn unit_ns(time: u64) -> u64 {
    [1, 1_000, 1_000_000]
        .into_iter()
        .find(|per_second| SECONDS.contains(&(time / per_second)))
        .map_or(1, |per_second| 1_000_000_000 / per_second)
}

/// A time with a fraction, to the microsecond, which is as exact as the number.
fn fraction_ns(time: f64) -> Option<u64> {
    let per_second = [1.0, 1_000.0].into_iter().find(|n| SECONDS.contains(&((time / n) as u64)))?;
    Some((time * (1_000_000.0 / per_second)).round() as u64 * 1_000)
}

/// Whether a time is one that nobody means: neither of the last decades nor one of the small
/// numbers that tests have.
fn is_implausible(ns: u64) -> bool {
    const FIRST_DAYS: std::ops::Range<u64> = 10_000_000_000..100_000_000_000_000_000;
    FIRST_DAYS.contains(&ns)
}

/// Infers the clock: a time at a whole second most likely comes from a clock with that resolution.
fn clock_quality(ns: u64) -> ClockQuality {
    if ns.is_multiple_of(1_000_000_000) { ClockQuality::Seconds } else { ClockQuality::Micros }
}

fn parse_severity(severity: Option<&Json>) -> Result<Severity, EventParseError> {
    let parsed = match severity {
        None | Some(Json::Null) => Some(Severity::INFO),
        Some(Json::String(s)) => Severity::parse(s),
        Some(Json::Number(n)) => Severity::parse(&n.to_string()),
        Some(_) => None,
    };
    parsed
        .ok_or_else(|| bad("severity: expected a name such as \"error\" or a number from 0 to 24"))
}

/// The id that an event has already: 32 hexadecimal digits, as every output of tapio has it.
fn own_id(text: &str) -> Option<EventId> {
    text.parse().ok().filter(|id: &EventId| id.to_string() == text)
}

fn parse_span_id(text: &str) -> Result<u64, EventParseError> {
    // from_str_radix accepts a sign and any number of digits, so the length is checked too.
    Some(text)
        .filter(|s| s.len() == 16 && !s.starts_with('+'))
        .and_then(|s| u64::from_str_radix(s, 16).ok())
        .ok_or_else(|| bad(format!("span_id: {text:?} isn't 16 hex digits")))
}

fn push_field(
    fields: &mut Vec<(Name, OwnedValue)>,
    key: &str,
    value: Json,
) -> Result<(), EventParseError> {
    let owned = match value {
        Json::Null => OwnedValue::Plain(Value::Null),
        Json::Bool(b) => OwnedValue::Plain(Value::Bool(b)),
        Json::Number(n) => OwnedValue::Plain(match n.as_i64() {
            Some(i) => Value::Int(i),
            None => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        }),
        Json::String(s) => OwnedValue::Str(s),
        Json::Object(map) if !map.is_empty() => {
            // {"http": {"method": …}} is equivalent to {"http.method": …}.
            return map
                .into_iter()
                .try_for_each(|(k, v)| push_field(fields, &format!("{key}.{k}"), v));
        }
        list => OwnedValue::Json(list.to_string()),
    };
    match Name::intern_from(names::canonical(key), NameSource::JsonLines) {
        Ok(name) => fields.push((name, owned)),
        Err(NameError::TooLong { bytes }) => {
            return Err(bad(NameError::TooLong { bytes }.to_string()));
        }
        Err(_) => add_unnamed(fields, key, &owned),
    }
    Ok(())
}

/// Keeps a field whose name can't be added, as text.
fn add_unnamed(fields: &mut Vec<(Name, OwnedValue)>, key: &str, value: &OwnedValue) {
    let json = match value {
        OwnedValue::Plain(value) => value_json(*value),
        OwnedValue::Str(text) => text.as_str().into(),
        OwnedValue::Json(text) => value_json(Value::Json(text)),
    };
    let at = fields.iter().position(|(name, _)| *name == names::TAPIO_UNNAMED);
    let mut all = match at.map(|at| fields.remove(at)) {
        Some((_, OwnedValue::Json(text))) => serde_json::from_str(&text).unwrap_or_default(),
        _ => Map::new(),
    };
    all.insert(key.to_owned(), json);
    fields.push((names::TAPIO_UNNAMED, OwnedValue::Json(Json::Object(all).to_string())));
}

/// The events of a line in any format, and what is wrong with it: column, from 1, and cause.
pub type ParsedLine = (Vec<JsonEvent>, Option<(usize, String)>);

impl JsonEvent {
    /// Parses a line of events that were observed. Besides what [`JsonEvent::parse`] refuses, a
    /// time in the first years after 1970 is no event: its unit is unknown.
    ///
    /// # Errors
    /// When the line isn't such an event.
    pub fn parse_observed(line: &str, natural: &str) -> Result<Self, EventParseError> {
        let event = Self::parse(line, natural)?;
        let time = event.time_ns();
        if is_implausible(time) {
            return Err(bad(format!(
                "time: {time} ns is {}; expected RFC 3339, or seconds, milliseconds, microseconds \
                 or nanoseconds since 1970",
                rfc3339(time)
            )));
        }
        Ok(event)
    }

    /// Parses one line. `natural` identifies the line (file and line number) if it has no `id`. An
    /// `id` of 32 hexadecimal digits is the event's own, so that what was dumped is replayed under
    /// the same ids; from any other text the id is derived.
    ///
    /// # Errors
    /// When the line isn't an event: invalid JSON, a missing or unknown key, or a value of another
    /// type.
    pub fn parse(line: &str, natural: &str) -> Result<Self, EventParseError> {
        if !line.trim_start().starts_with('{') {
            // serde would accept a list as the fields in order.
            return Err(bad("expected a JSON object"));
        }
        let line: Line<'_> = serde_json::from_str(line)?;
        if line.kind.is_empty() || line.kind.len() > 256 {
            return Err(bad("kind: expected a dotted name of 1 to 256 characters"));
        }
        let (time_ns, clock) = parse_time(&line.time)?;
        let severity = parse_severity(line.severity.as_ref())?;
        let source = line.source.as_deref().unwrap_or("jsonl");
        let mut fields = Vec::with_capacity(line.entity.len() + line.attributes.len() + 1);
        for (key, value) in line.entity {
            push_field(&mut fields, &key, value)?;
        }
        let entities = u8::try_from(fields.len()).map_err(|_| bad("entity: more than 255 keys"))?;
        for (key, value) in line.attributes {
            push_field(&mut fields, &key, value)?;
        }
        let id = match line.id {
            None | Some(Json::Null) => EventId::from_natural(source, natural),
            Some(Json::String(s)) => own_id(&s).unwrap_or_else(|| {
                let id = EventId::from_natural(source, &s);
                fields.push((names::TAPIO_EVENT_ID, OwnedValue::Str(s)));
                id
            }),
            Some(Json::Number(n)) => {
                let id = EventId::from_natural(source, &n.to_string());
                push_field(&mut fields, "tapio.event.id", Json::Number(n))?;
                id
            }
            Some(other) => {
                return Err(bad(format!("id: expected a string or a number, found {other}")));
            }
        };
        let trace_id = match line.trace_id.as_deref() {
            None => TraceId::NONE,
            Some(t) => t.parse().map_err(|e| bad(format!("trace_id: {e}")))?,
        };
        let span_id = line.span_id.as_deref().map_or(Ok(0), parse_span_id)?;
        let name = |key: &str, text: &str| {
            Name::intern_from(text, NameSource::JsonLines).map_err(|e| bad(format!("{key}: {e}")))
        };
        Ok(Self {
            id,
            time_ns,
            clock,
            kind: name("kind", &line.kind)?,
            source: name("source", source)?,
            severity,
            entities,
            fields,
            message: line.message.map(Cow::into_owned).unwrap_or_default(),
            trace_id,
            span_id: span_id.to_be_bytes(),
        })
    }

    /// Event time, nanoseconds since the Unix epoch.
    #[must_use]
    pub fn time_ns(&self) -> u64 {
        self.time_ns
    }

    /// Returns the event; `fields` holds its fields.
    pub fn event<'a>(&'a self, observed_ns: u64, fields: &'a mut Vec<Field<'a>>) -> Event<'a> {
        fields.clear();
        fields.extend(self.fields.iter().map(|(key, value)| Field {
            key: *key,
            value: match value {
                OwnedValue::Plain(v) => *v,
                OwnedValue::Str(s) => Value::Str(s),
                OwnedValue::Json(s) => Value::Json(s),
            },
        }));
        Event {
            observed_ns,
            severity: self.severity,
            clock: self.clock as u8,
            entities: self.entities,
            trace_id: self.trace_id,
            span_id: self.span_id,
            fields,
            message: &self.message,
            ..Event::new(self.id, self.time_ns, self.kind, self.source)
        }
    }
}

fn fields_json<'t>(fields: &[Field<'_>], text: impl Fn(Name) -> &'t str) -> Map<String, Json> {
    let mut all = Map::new();
    for field in fields.iter().filter(|f| f.key != names::TAPIO_EVENT_ID) {
        let name = if field.key == names::HOST_NAME { "node" } else { text(field.key) };
        // Of two fields with one name the first counts: a record's own, then its resource's.
        all.entry(name).or_insert_with(|| value_json(field.value));
    }
    all
}

/// Renders an event in the JSON form.
#[must_use]
pub fn event_json(event: &Event<'_>) -> Json {
    event_json_with(event, Map::new(), Name::text)
}

/// Renders an event in the JSON form, with more members at the end, such as those that correlation
/// adds. `text` returns the text of a name.
#[must_use]
pub fn event_json_with<'t>(
    event: &Event<'_>,
    more: Map<String, Json>,
    text: impl Fn(Name) -> &'t str,
) -> Json {
    let given = event.attributes().iter().find(|f| f.key == names::TAPIO_EVENT_ID);
    let mut out = Map::new();
    out.insert(
        "id".into(),
        given.map_or_else(|| event.id.to_string().into(), |f| value_json(f.value)),
    );
    out.insert("time".into(), rfc3339(event.time_ns).into());
    out.insert("kind".into(), text(event.kind).into());
    out.insert("source".into(), text(event.source).into());
    out.insert("severity".into(), event.severity.as_str().into());
    out.insert("entity".into(), Json::Object(fields_json(event.entity_fields(), &text)));
    if !event.message.is_empty() {
        out.insert("message".into(), event.message.into());
    }
    out.insert("attributes".into(), Json::Object(fields_json(event.attributes(), &text)));
    if event.trace_id.is_some() && !more.contains_key("trace_id") {
        out.insert("trace_id".into(), event.trace_id.to_string().into());
        out.insert("span_id".into(), format!("{:016x}", u64::from_be_bytes(event.span_id)).into());
    }
    out.extend(more);
    Json::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<JsonEvent, EventParseError> {
        JsonEvent::parse(line, "test:1")
    }

    #[test]
    fn line_survives_round_trip() {
        let line = r#"{"id":"a-1","time":"2026-01-02T03:04:05.000001Z","kind":"k8s.pod.running","source":"k8s","severity":"error","entity":{"node":"n1","k8s.pod.uid":"u"},"message":"hi","attributes":{"n":3,"f":1.5,"b":true,"l":[1,"x"],"http.method":"GET","z":null}}"#;
        let parsed = parse(line).unwrap();
        let mut fields = Vec::new();
        let json = event_json(&parsed.event(7, &mut fields)).to_string();
        assert_eq!(json, line);
    }

    #[test]
    fn printed_event_keeps_its_id() {
        let event = Event::new(EventId::from_sequence(9, 3, 77), 1, names::OTLP_LOG, names::EBPF);
        let parsed = parse(&event_json(&event).to_string()).unwrap();
        let mut fields = Vec::new();
        let read = parsed.event(7, &mut fields);
        assert_eq!((read.id, event_json(&read)), (event.id, event_json(&event)));
        // Digits in upper case would be printed in lower case.
        for other in ["0AF7651916CD43DD8448EB211C80319C", "0af7", "a-1"] {
            let parsed = parse(&format!(r#"{{"id":"{other}","time":1,"kind":"t.a"}}"#)).unwrap();
            let mut fields = Vec::new();
            let event = parsed.event(7, &mut fields);
            assert_eq!(event.id, EventId::from_natural("jsonl", other));
            assert_eq!(event_json(&event)["id"], other);
        }
    }

    #[test]
    fn nested_objects_become_dotted_names() {
        let parsed =
            parse(r#"{"time":1,"kind":"t.a","attributes":{"http":{"method":"GET"}}}"#).unwrap();
        let mut fields = Vec::new();
        let event = parsed.event(1, &mut fields);
        assert_eq!(event.attributes()[0].key.text(), "http.method");
    }

    #[test]
    fn parse_error_names_cause() {
        for (line, cause) in [
            (r#"{"time":1,"kind":"a","attribute":{}}"#, "unknown field `attribute`"),
            (r#"{"time":1,"kind":"a""#, "EOF"),
            (r#"{"kind":"a"}"#, "missing field `time`"),
            (r#"[null,1,"a",null,null,{},null,{},null,null]"#, "expected a JSON object"),
            (r#"{"time":-1,"kind":"a"}"#, "nanoseconds"),
            (r#"{"time":"yesterday","kind":"a"}"#, "time:"),
            (r#"{"time":1,"kind":""}"#, "kind:"),
            (r#"{"time":1,"kind":"a","severity":"awful"}"#, "severity:"),
            (r#"{"time":1,"kind":"a","id":[]}"#, "id:"),
            (r#"{"time":1,"kind":"a","trace_id":"xyz"}"#, "trace_id:"),
            (r#"{"time":1,"kind":"a","span_id":"ff"}"#, "span_id:"),
            (r#"{"time":1,"kind":"a","span_id":"+00000000000000f"}"#, "span_id:"),
        ] {
            let error = parse(line).err().unwrap();
            assert!(error.cause.contains(cause), "{line}: {error}");
        }
    }

    #[test]
    fn unit_of_a_time_is_recognised() {
        let time =
            |text: &str| parse(&format!(r#"{{"time":{text},"kind":"a"}}"#)).map(|e| e.time_ns());
        const NS: u64 = 1_700_000_000_123_456_000;
        for (text, ns) in [
            ("1700000000", 1_700_000_000_000_000_000),
            ("1700000000.123456", NS),
            ("1700000000123", 1_700_000_000_123_000_000),
            ("1700000000123.456", NS),
            ("1700000000123456", NS),
            ("1700000000123456000", NS),
            ("\"1700000000123456\"", NS),
            ("\"1700000000\"", 1_700_000_000_000_000_000),
            ("1", 1),
        ] {
            let found = time(text).map_err(|e| e.to_string());
            assert!(
                found.as_ref().is_ok_and(|found| found.abs_diff(ns) <= 1_000),
                "{text} {found:?}"
            );
        }
        for refused in ["1.5", "-1700000000", "\"99999999999999999999\"", "true"] {
            assert!(time(refused).is_err_and(|e| e.cause.starts_with("time: ")), "{refused}");
        }
        for implausible in ["170000000000", "17000000000000"] {
            let line = format!(r#"{{"time":{implausible},"kind":"a"}}"#);
            let error = JsonEvent::parse_observed(&line, "test:1").err().unwrap();
            assert!(error.cause.contains("is 1970-01-01T"), "{error}");
        }
    }
}
