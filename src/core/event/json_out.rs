//! Events and stories as JSON.

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};

use super::{Event, Field, Member, Story, TraceId, Value, names};

/// A time as RFC 3339 with nanoseconds.
pub(crate) fn rfc3339(time_ns: u64) -> String {
    Timestamp::from_nanosecond(i128::from(time_ns))
        .map_or_else(|_| time_ns.to_string(), |t| t.to_string())
}

/// A value as JSON. A float JSON can't hold (NaN, infinity) becomes null.
#[must_use]
pub fn value_json(value: Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(b) => b.into(),
        Value::Int(n) => n.into(),
        Value::Float(n) => serde_json::Number::from_f64(n).map_or(Json::Null, Json::Number),
        Value::Str(s) => s.into(),
        Value::Json(s) => serde_json::from_str(s).unwrap_or_else(|_| s.into()),
    }
}

fn fields_json(fields: &[Field<'_>]) -> Map<String, Json> {
    fields
        .iter()
        .filter(|f| f.key != names::TAPIO_EVENT_ID)
        .map(|f| {
            let name = if f.key == names::HOST_NAME { "node" } else { f.key.text() };
            (name.to_owned(), value_json(f.value))
        })
        .collect()
}

/// An event in the JSON form.
#[must_use]
pub fn event_json(event: &Event<'_>) -> Json {
    event_json_with(event, Map::new())
}

/// An event in the JSON form, with more members at the end (what the correlator added).
#[must_use]
pub fn event_json_with(event: &Event<'_>, more: Map<String, Json>) -> Json {
    let given = event.attributes().iter().find(|f| f.key == names::TAPIO_EVENT_ID);
    let mut out = Map::new();
    out.insert(
        "id".into(),
        given.map_or_else(|| event.id.to_string().into(), |f| value_json(f.value)),
    );
    out.insert("time".into(), rfc3339(event.time_ns).into());
    out.insert("kind".into(), event.kind.text().into());
    out.insert("source".into(), event.source.text().into());
    out.insert("severity".into(), event.severity.word().into());
    out.insert("entity".into(), Json::Object(fields_json(event.entity_fields())));
    if !event.message.is_empty() {
        out.insert("message".into(), event.message.into());
    }
    out.insert("attributes".into(), Json::Object(fields_json(event.attributes())));
    if event.trace_id.is_some() && !more.contains_key("trace_id") {
        out.insert("trace_id".into(), event.trace_id.to_string().into());
        out.insert("span_id".into(), format!("{:016x}", u64::from_be_bytes(event.span_id)).into());
    }
    out.extend(more);
    Json::Object(out)
}

fn named(label: &str, id: impl ToString) -> Json {
    if label.is_empty() { id.to_string().into() } else { label.into() }
}

fn member_json(member: &Member) -> Json {
    let mut out = Map::new();
    out.insert("id".into(), named(&member.label, member.id));
    out.insert("time".into(), rfc3339(member.time_ns).into());
    out.insert("kind".into(), member.kind.as_str().into());
    out.insert("source".into(), member.source.as_str().into());
    out.insert("severity".into(), member.severity.word().into());
    for (key, text) in
        [("role", &member.role), ("pattern", &member.pattern), ("summary", &member.summary)]
    {
        if !text.is_empty() {
            out.insert(key.into(), text.as_str().into());
        }
    }
    Json::Object(out)
}

/// Four decimals are what a score or a share can honestly claim; it also keeps output stable.
pub(super) fn rounded(n: f64) -> Json {
    json!((n * 10_000.0).round() / 10_000.0)
}

impl Story {
    /// The story in its JSON form.
    #[must_use]
    pub fn json(&self) -> Json {
        let causes: Vec<Json> = self
            .root_cause
            .iter()
            .map(|c| {
                let evidence: Vec<Json> = c
                    .evidence
                    .iter()
                    .enumerate()
                    .map(|(i, id)| named(c.labels.get(i).map_or("", String::as_str), id))
                    .collect();
                let terms: Map<String, Json> =
                    c.terms.iter().map(|t| (t.name.clone(), rounded(t.weight))).collect();
                let because = c.terms.iter().filter(|t| !t.because.is_empty());
                let because: Map<String, Json> =
                    because.map(|t| (t.name.clone(), t.because.as_str().into())).collect();
                json!({
                    "cause": c.cause, "evidence": evidence, "score": rounded(c.score),
                    "terms": terms, "because": because,
                })
            })
            .collect();
        let mut json = json!({
            "id": self.id.to_string(),
            "trace_id": self.trace_id.to_string(),
            "rule": self.rule,
            "pattern": self.pattern,
            "name": self.name,
            "intent": self.intent,
            "state": self.state.word(),
            "revision": self.revision,
            "key": self.key.iter().map(|(k, v)| (k.clone(), Json::from(v.as_str()))).collect::<Map<_, _>>(),
            "severity": self.severity.word(),
            "first": rfc3339(self.first_ns),
            "last": rfc3339(self.last_ns),
            "duration_ns": self.duration_ns(),
            "members": self.members.iter().map(member_json).collect::<Vec<_>>(),
            "members_total": self.members_total,
            "root_cause": causes,
            "impact": {
                "business": rounded(self.impact.business),
                "customer_facing": self.impact.customer_facing,
                "slo_impact": self.impact.slo_impact,
                "affected": self.impact.affected,
                "evidence": self.impact.evidence,
            },
            "actions": self.actions,
            "confidence": rounded(self.confidence),
            "continues": self.continues.filter(|t| t.is_some()).map(|t: TraceId| t.to_string()),
        });
        // Only where it differs: it says how the story came, not what it is.
        if let Some(provisional) = self.provisional.filter(|t| t.is_some()) {
            json["provisional"] = provisional.to_string().into();
        }
        json
    }
}
