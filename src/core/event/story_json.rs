//! The JSON form of a story, as `tapio replay` and `tapio tail` print it: parsed and rendered.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::id::{EventId, TraceId};
use super::incident::{Incident, IncidentRole};
use super::json::{EventParseError, rfc3339, rounded};
use super::severity::Severity;
use super::story::{Candidate, CauseEntity, Impact, Member, Story, StoryState, Term};

#[derive(Deserialize)]
struct Line {
    id: String,
    trace_id: String,
    rule: String,
    pattern: String,
    name: String,
    #[serde(default)]
    intent: String,
    state: String,
    #[serde(default)]
    revision: u32,
    #[serde(default)]
    key: Map<String, Json>,
    severity: String,
    first: String,
    last: String,
    members: Vec<MemberLine>,
    members_total: u64,
    root_causes: Vec<CandidateLine>,
    impact: ImpactLine,
    #[serde(default)]
    actions: Vec<String>,
    #[serde(default)]
    confidence: f64,
    #[serde(default)]
    continues: Option<String>,
    provisional: Option<String>,
    incident: Option<IncidentLine>,
}

#[derive(Deserialize)]
struct IncidentLine {
    id: String,
    role: String,
    #[serde(default)]
    because: String,
}

#[derive(Deserialize)]
struct MemberLine {
    id: Json,
    time: String,
    kind: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    severity: String,
    #[serde(default)]
    role: String,
    #[serde(default)]
    pattern: String,
    #[serde(default)]
    summary: String,
}

#[derive(Deserialize)]
struct CandidateLine {
    cause: String,
    entity: Option<EntityLine>,
    #[serde(default)]
    evidence: Vec<Json>,
    #[serde(default)]
    score: f64,
    #[serde(default)]
    terms: Vec<TermLine>,
}

#[derive(Deserialize)]
struct EntityLine {
    kind: String,
    name: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    node: String,
}

#[derive(Deserialize)]
struct TermLine {
    name: String,
    #[serde(default)]
    weight: f64,
    #[serde(default)]
    value: f64,
    #[serde(default)]
    because: String,
}

#[derive(Deserialize)]
struct ImpactLine {
    business: f64,
    customer_facing: bool,
    slo_impact: bool,
    #[serde(default)]
    affected: Vec<String>,
    #[serde(default)]
    evidence: Vec<String>,
}

fn bad(cause: String) -> EventParseError {
    EventParseError::whole_line(cause)
}

fn parse_trace_id(text: &str) -> Result<TraceId, EventParseError> {
    text.parse().map_err(|e| bad(format!("id: {e}")))
}

/// Parses an event's id. The form may have the source's own id instead: then that is the label, and
/// the id is derived from it.
fn parse_event_id(value: &Json) -> (EventId, String) {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.parse::<TraceId>() {
        Ok(id) => (EventId(id.0), String::new()),
        Err(_) => (EventId::from_natural("", &text), text),
    }
}

fn parse_time(text: &str) -> Result<u64, EventParseError> {
    let time: Timestamp = text.parse().map_err(|e| bad(format!("time {text:?}: {e}")))?;
    u64::try_from(time.as_nanosecond()).map_err(|_| bad(format!("time {text:?}: before 1970")))
}

fn parse_severity(text: &str) -> Severity {
    Severity::parse(text).unwrap_or_default()
}

impl CandidateLine {
    fn candidate(self) -> Candidate {
        let (evidence, labels) = self.evidence.iter().map(parse_event_id).unzip();
        let terms = self.terms.into_iter();
        let terms = terms.map(|TermLine { name, weight, value, because }| Term {
            name,
            weight,
            value,
            because,
        });
        let entity = self.entity.map(|EntityLine { kind, name, id, node }| CauseEntity {
            kind,
            name,
            id,
            node,
        });
        Candidate {
            cause: self.cause,
            entity,
            evidence,
            labels,
            score: self.score,
            terms: terms.collect(),
        }
    }
}

impl IncidentLine {
    fn incident(self) -> Result<Incident, EventParseError> {
        let role = IncidentRole::parse(&self.role)
            .ok_or_else(|| bad(format!("incident: role {:?}", self.role)))?;
        Ok(Incident { id: parse_trace_id(&self.id)?, role, because: self.because })
    }
}

impl MemberLine {
    fn member(self) -> Result<Member, EventParseError> {
        let (id, label) = parse_event_id(&self.id);
        Ok(Member {
            id,
            label,
            time_ns: parse_time(&self.time)?,
            kind: self.kind,
            source: self.source,
            severity: parse_severity(&self.severity),
            role: self.role,
            pattern: self.pattern,
            summary: self.summary,
        })
    }
}

impl Story {
    /// Parses a story's JSON form. Where a source gave its event an id, the form has that id and
    /// not the event's own.
    ///
    /// # Errors
    /// When the line isn't a story: invalid JSON, a missing key, or a value of another type.
    pub fn from_json(line: &str) -> Result<Self, EventParseError> {
        let line: Line = serde_json::from_str(line)?;
        let states = [
            StoryState::Opened,
            StoryState::Updated,
            StoryState::Closed,
            StoryState::Expired,
            StoryState::Retracted,
        ];
        let state = states.into_iter().find(|s| s.as_str() == line.state);
        let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let ImpactLine { business, customer_facing, slo_impact, affected, evidence } = line.impact;
        Ok(Self {
            id: parse_trace_id(&line.id)?,
            trace_id: parse_trace_id(&line.trace_id)?,
            rule: line.rule,
            pattern: line.pattern,
            name: line.name,
            intent: line.intent,
            state: state.ok_or_else(|| bad(format!("state: {:?}", line.state)))?,
            revision: line.revision,
            key: line.key.iter().map(|(k, v)| (k.clone(), text(v))).collect(),
            members: line.members.into_iter().map(MemberLine::member).collect::<Result<_, _>>()?,
            members_total: line.members_total,
            first_ns: parse_time(&line.first)?,
            last_ns: parse_time(&line.last)?,
            severity: parse_severity(&line.severity),
            root_cause: line.root_causes.into_iter().map(CandidateLine::candidate).collect(),
            impact: Impact { business, customer_facing, slo_impact, affected, evidence },
            actions: line.actions,
            confidence: line.confidence,
            continues: line.continues.as_deref().map(parse_trace_id).transpose()?,
            provisional: line.provisional.as_deref().map(parse_trace_id).transpose()?,
            incident: line.incident.map(IncidentLine::incident).transpose()?,
        })
    }
}

/// The id that the source gave the event, or the event's own id.
fn event_id_json(label: &str, id: impl ToString) -> Json {
    if label.is_empty() { id.to_string().into() } else { label.into() }
}

fn member_json(member: &Member) -> Json {
    let mut out = Map::new();
    out.insert("id".into(), event_id_json(&member.label, member.id));
    out.insert("time".into(), rfc3339(member.time_ns).into());
    out.insert("kind".into(), member.kind.as_str().into());
    out.insert("source".into(), member.source.as_str().into());
    out.insert("severity".into(), member.severity.as_str().into());
    for (key, text) in
        [("role", &member.role), ("pattern", &member.pattern), ("summary", &member.summary)]
    {
        if !text.is_empty() {
            out.insert(key.into(), text.as_str().into());
        }
    }
    Json::Object(out)
}

/// Terms and entities have only those parts that aren't empty.
fn candidate_json(candidate: &Candidate) -> Json {
    let evidence: Vec<Json> = candidate
        .evidence
        .iter()
        .enumerate()
        .map(|(i, id)| event_id_json(candidate.labels.get(i).map_or("", String::as_str), id))
        .collect();
    let term = |term: &Term| {
        let mut json = json!({"name": term.name, "weight": rounded(term.weight)});
        if term.value != 0.0 {
            json["value"] = rounded(term.value);
        }
        if !term.because.is_empty() {
            json["because"] = term.because.as_str().into();
        }
        json
    };
    let mut json = json!({
        "cause": candidate.cause,
        "evidence": evidence,
        "score": rounded(candidate.score),
        "terms": candidate.terms.iter().map(term).collect::<Vec<_>>(),
    });
    if let Some(CauseEntity { kind, name, id, node }) = &candidate.entity {
        json["entity"] = json!({"kind": kind, "name": name});
        for (key, value) in [("id", id), ("node", node)] {
            if !value.is_empty() {
                json["entity"][key] = value.as_str().into();
            }
        }
    }
    json
}

impl Story {
    /// Renders the story in its JSON form.
    #[must_use]
    pub fn json(&self) -> Json {
        let causes: Vec<Json> = self.root_cause.iter().map(candidate_json).collect();
        let mut json = json!({
            "id": self.id.to_string(),
            "trace_id": self.trace_id.to_string(),
            "rule": self.rule,
            "pattern": self.pattern,
            "name": self.name,
            "intent": self.intent,
            "state": self.state.as_str(),
            "revision": self.revision,
            "key": self.key.iter().map(|(k, v)| (k.clone(), Json::from(v.as_str()))).collect::<Map<_, _>>(),
            "severity": self.severity.as_str(),
            "first": rfc3339(self.first_ns),
            "last": rfc3339(self.last_ns),
            "duration_ns": self.duration_ns(),
            "members": self.members.iter().map(member_json).collect::<Vec<_>>(),
            "members_total": self.members_total,
            "root_causes": causes,
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
        // Only where it differs: it concerns the story's history, not its content.
        if let Some(provisional) = self.provisional.filter(|t| t.is_some()) {
            json["provisional"] = provisional.to_string().into();
        }
        if let Some(Incident { id, role, because }) = &self.incident {
            json["incident"] =
                json!({"id": id.to_string(), "role": role.as_str(), "because": because});
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story() -> Story {
        let id = |n: u8| EventId([n; 16]);
        Story {
            id: TraceId([1; 16]),
            trace_id: TraceId([1; 16]),
            rule: "r".into(),
            pattern: "p".into(),
            name: "n".into(),
            intent: "i".into(),
            state: StoryState::Closed,
            revision: 2,
            key: vec![("host.name".into(), "h".into())],
            members: vec![Member {
                id: id(3),
                label: String::new(),
                time_ns: 1_700_000_000_123_456_789,
                kind: "t.a".into(),
                source: "s".into(),
                severity: Severity::ERROR,
                role: "cause".into(),
                pattern: "q".into(),
                summary: "said".into(),
            }],
            members_total: 1,
            first_ns: 1_700_000_000_123_456_789,
            last_ns: 1_700_000_001_000_000_000,
            severity: Severity::ERROR,
            root_cause: vec![Candidate {
                cause: "c".into(),
                entity: Some(CauseEntity {
                    kind: "pod".into(),
                    name: "default/web-0".into(),
                    id: "u-1".into(),
                    node: String::new(),
                }),
                evidence: vec![id(3)],
                labels: vec![String::new()],
                score: 1.25,
                terms: vec![Term {
                    name: "onset".into(),
                    weight: 1.25,
                    value: 2.5,
                    because: "first".into(),
                }],
            }],
            impact: Impact { business: 0.5, affected: vec!["x".into()], ..Impact::default() },
            actions: vec!["do".into()],
            confidence: 0.75,
            continues: Some(TraceId([9; 16])),
            provisional: Some(TraceId([8; 16])),
            incident: Some(Incident {
                id: TraceId([7; 16]),
                role: IncidentRole::Effect,
                because: "b".into(),
            }),
        }
    }

    #[test]
    fn story_survives_round_trip() {
        let story = story();
        assert_eq!(Story::from_json(&story.json().to_string()), Ok(story));
    }

    #[test]
    fn source_ids_still_join_evidence_to_members() {
        let mut story = story();
        story.members[0].label = "line-7".into();
        story.root_cause[0].labels[0] = "line-7".into();
        let read = Story::from_json(&story.json().to_string()).unwrap();
        assert_eq!(read.members[0].label, "line-7");
        assert_eq!(read.root_cause[0].evidence, [read.members[0].id]);
    }

    #[test]
    fn parse_error_names_cause() {
        for (line, cause) in [
            ("{", "EOF"),
            ("{}", "missing field `id`"),
            (r#"{"id":"x"}"#, "missing field"),
            (&story().json().to_string().replace("closed", "asleep"), "state: \"asleep\""),
            (&story().json().to_string().replace("2023-11-14T", "yesterday"), "time"),
        ] {
            let error = Story::from_json(line).unwrap_err();
            assert!(error.cause.contains(cause), "{line}: {error}");
        }
    }
}
