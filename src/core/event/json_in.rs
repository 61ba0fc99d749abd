//! The JSON form of an event, one object per line:
//! `{"id"?, "time", "kind", "source", "severity"?, "entity"?, "message"?, "attributes"?, "trace_id"?, "span_id"?}`.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::{ClockQuality, Event, EventId, Field, Name, Severity, TraceId, Value, names};

/// Why a line is no event. `column` counts from 1, which also stands for the whole line.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{cause}")]
pub struct BadEvent {
    /// Where in the line.
    pub column: usize,
    /// What is wrong.
    pub cause: String,
}

fn bad(cause: impl Into<String>) -> BadEvent {
    BadEvent { column: 1, cause: cause.into() }
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

enum Owned {
    Plain(Value<'static>),
    Str(String),
    Json(String),
}

/// A parsed line, owning what [`JsonEvent::event`] borrows.
pub struct JsonEvent {
    id: EventId,
    time_ns: u64,
    clock: ClockQuality,
    kind: Name,
    source: Name,
    severity: Severity,
    entities: u8,
    fields: Vec<(Name, Owned)>,
    message: String,
    trace_id: TraceId,
    span_id: [u8; 8],
}

fn time_of(time: &Json) -> Result<(u64, ClockQuality), BadEvent> {
    match time {
        Json::Number(n) => {
            let ns = n
                .as_u64()
                .ok_or_else(|| bad(format!("time: {n} isn't a whole number of nanoseconds")))?;
            Ok((ns, clock_of(ns)))
        }
        Json::String(s) => {
            let t: Timestamp = s.parse().map_err(|e| bad(format!("time: {e}")))?;
            let ns = u64::try_from(t.as_nanosecond())
                .map_err(|_| bad(format!("time: {s:?} is before 1970")))?;
            Ok((ns, clock_of(ns)))
        }
        other => Err(bad(format!("time: expected RFC 3339 or nanoseconds, found {other}"))),
    }
}

/// A time that falls on a whole second most likely comes from a clock that ticks once a second.
fn clock_of(ns: u64) -> ClockQuality {
    if ns.is_multiple_of(1_000_000_000) { ClockQuality::Seconds } else { ClockQuality::Micros }
}

fn severity_of(severity: Option<&Json>) -> Result<Severity, BadEvent> {
    let parsed = match severity {
        None | Some(Json::Null) => Some(Severity::INFO),
        Some(Json::String(s)) => Severity::parse(s),
        Some(Json::Number(n)) => Severity::parse(&n.to_string()),
        Some(_) => None,
    };
    parsed
        .ok_or_else(|| bad("severity: expected a word such as \"error\" or a number from 0 to 24"))
}

fn span_id_of(text: &str) -> Result<u64, BadEvent> {
    // The length too: from_str_radix takes a sign and any number of digits.
    Some(text)
        .filter(|s| s.len() == 16 && !s.starts_with('+'))
        .and_then(|s| u64::from_str_radix(s, 16).ok())
        .ok_or_else(|| bad(format!("span_id: {text:?} isn't 16 hex digits")))
}

fn push(fields: &mut Vec<(Name, Owned)>, key: &str, value: Json) -> Result<(), BadEvent> {
    let owned = match value {
        Json::Null => Owned::Plain(Value::Null),
        Json::Bool(b) => Owned::Plain(Value::Bool(b)),
        Json::Number(n) => Owned::Plain(match n.as_i64() {
            Some(i) => Value::Int(i),
            None => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        }),
        Json::String(s) => Owned::Str(s),
        Json::Object(map) if !map.is_empty() => {
            // {"http": {"method": …}} says the same as {"http.method": …}.
            return map.into_iter().try_for_each(|(k, v)| push(fields, &format!("{key}.{k}"), v));
        }
        list => Owned::Json(list.to_string()),
    };
    let name = Name::intern(names::canonical(key)).map_err(|e| bad(e.to_string()))?;
    fields.push((name, owned));
    Ok(())
}

impl JsonEvent {
    /// Parses one line. `natural` names the line (file and line number) where it has no `id`.
    ///
    /// # Errors
    /// When the line isn't an event: broken JSON, a missing or unknown key, a value of another type.
    pub fn parse(line: &str, natural: &str) -> Result<Self, BadEvent> {
        if !line.trim_start().starts_with('{') {
            // serde would take a list for the fields in their order.
            return Err(BadEvent { column: 1, cause: "expected a JSON object".into() });
        }
        let line: Line<'_> = serde_json::from_str(line).map_err(|e| {
            let text = e.to_string();
            let cause = text.rsplit_once(" at line ").map_or(text.as_str(), |(cause, _)| cause);
            BadEvent { column: e.column(), cause: cause.to_owned() }
        })?;
        if line.kind.is_empty() || line.kind.len() > 256 {
            return Err(bad("kind: expected a dotted name of 1 to 256 characters"));
        }
        let (time_ns, clock) = time_of(&line.time)?;
        let severity = severity_of(line.severity.as_ref())?;
        let source = line.source.as_deref().unwrap_or("jsonl");
        let mut fields = Vec::with_capacity(line.entity.len() + line.attributes.len() + 1);
        for (key, value) in line.entity {
            push(&mut fields, &key, value)?;
        }
        let entities = u8::try_from(fields.len()).map_err(|_| bad("entity: more than 255 keys"))?;
        for (key, value) in line.attributes {
            push(&mut fields, &key, value)?;
        }
        let id = match line.id {
            None | Some(Json::Null) => EventId::from_natural(source, natural),
            Some(Json::String(s)) => {
                let id = EventId::from_natural(source, &s);
                fields.push((names::TAPIO_EVENT_ID, Owned::Str(s)));
                id
            }
            Some(Json::Number(n)) => {
                let id = EventId::from_natural(source, &n.to_string());
                push(&mut fields, "tapio.event.id", Json::Number(n))?;
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
        let span_id = line.span_id.as_deref().map_or(Ok(0), span_id_of)?;
        let name =
            |key: &str, text: &str| Name::intern(text).map_err(|e| bad(format!("{key}: {e}")));
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

    /// When the event happened, nanoseconds since the Unix epoch.
    #[must_use]
    pub fn time_ns(&self) -> u64 {
        self.time_ns
    }

    /// The event, with its fields in `fields`.
    pub fn event<'a>(&'a self, observed_ns: u64, fields: &'a mut Vec<Field<'a>>) -> Event<'a> {
        fields.clear();
        fields.extend(self.fields.iter().map(|(key, value)| Field {
            key: *key,
            value: match value {
                Owned::Plain(v) => *v,
                Owned::Str(s) => Value::Str(s),
                Owned::Json(s) => Value::Json(s),
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

#[cfg(test)]
mod tests {
    use super::super::event_json;
    use super::*;

    fn parse(line: &str) -> Result<JsonEvent, BadEvent> {
        JsonEvent::parse(line, "test:1")
    }

    #[test]
    fn a_line_survives_the_round_trip() {
        let line = r#"{"id":"a-1","time":"2026-01-02T03:04:05.000001Z","kind":"k8s.pod.running","source":"k8s","severity":"error","entity":{"node":"n1","k8s.pod.uid":"u"},"message":"hi","attributes":{"n":3,"f":1.5,"b":true,"l":[1,"x"],"http.method":"GET","z":null}}"#;
        let parsed = parse(line).unwrap();
        let mut fields = Vec::new();
        let json = event_json(&parsed.event(7, &mut fields)).to_string();
        assert_eq!(json, line);
    }

    #[test]
    fn nested_objects_are_dotted() {
        let parsed =
            parse(r#"{"time":1,"kind":"t.a","attributes":{"http":{"method":"GET"}}}"#).unwrap();
        let mut fields = Vec::new();
        let event = parsed.event(1, &mut fields);
        assert_eq!(event.attributes()[0].key.text(), "http.method");
    }

    #[test]
    fn a_bad_line_says_where_and_why() {
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
}
