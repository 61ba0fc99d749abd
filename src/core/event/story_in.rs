//! Stories from their JSON form, as `tapio replay` and `tapio tail` print them.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::{
    BadEvent, Candidate, EventId, Impact, Member, Severity, Story, StoryState, Term, TraceId,
};

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
    root_cause: Vec<CandidateLine>,
    impact: ImpactLine,
    #[serde(default)]
    actions: Vec<String>,
    #[serde(default)]
    confidence: f64,
    #[serde(default)]
    continues: Option<String>,
    provisional: Option<String>,
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
    #[serde(default)]
    evidence: Vec<Json>,
    #[serde(default)]
    score: f64,
    #[serde(default)]
    terms: Map<String, Json>,
    #[serde(default)]
    because: Map<String, Json>,
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

fn bad(cause: String) -> BadEvent {
    BadEvent { column: 1, cause }
}

fn id(text: &str) -> Result<TraceId, BadEvent> {
    text.parse().map_err(|e| bad(format!("id: {e}")))
}

/// An event's id: as it stands, or, where the source's own word for it stands there, that word with
/// an id made of it.
fn named(value: &Json) -> (EventId, String) {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.parse::<TraceId>() {
        Ok(id) => (EventId(id.0), String::new()),
        Err(_) => (EventId::from_natural("", &text), text),
    }
}

fn time(text: &str) -> Result<u64, BadEvent> {
    let time: Timestamp = text.parse().map_err(|e| bad(format!("time {text:?}: {e}")))?;
    u64::try_from(time.as_nanosecond()).map_err(|_| bad(format!("time {text:?}: before 1970")))
}

fn severity(text: &str) -> Severity {
    Severity::parse(text).unwrap_or_default()
}

impl CandidateLine {
    fn candidate(self) -> Candidate {
        let (evidence, labels) = self.evidence.iter().map(named).unzip();
        let because =
            |name: &str| self.because.get(name).and_then(Json::as_str).unwrap_or("").to_owned();
        let terms = self.terms.iter().map(|(name, weight)| Term {
            name: name.clone(),
            weight: weight.as_f64().unwrap_or(0.0),
            because: because(name),
        });
        let terms = terms.collect();
        Candidate { cause: self.cause, evidence, labels, score: self.score, terms }
    }
}

impl MemberLine {
    fn member(self) -> Result<Member, BadEvent> {
        let (id, label) = named(&self.id);
        Ok(Member {
            id,
            label,
            time_ns: time(&self.time)?,
            kind: self.kind,
            source: self.source,
            severity: severity(&self.severity),
            role: self.role,
            pattern: self.pattern,
            summary: self.summary,
        })
    }
}

impl Story {
    /// Reads a story's JSON form. Ids that sources gave their events take the place of the events'
    /// own ids, which the form doesn't hold then.
    ///
    /// # Errors
    /// When the line isn't a story: broken JSON, a missing key, a value of another type.
    pub fn from_json(line: &str) -> Result<Self, BadEvent> {
        let line: Line = serde_json::from_str(line).map_err(|e| {
            let text = e.to_string();
            let cause = text.rsplit_once(" at line ").map_or(text.as_str(), |(cause, _)| cause);
            BadEvent { column: e.column().max(1), cause: cause.to_owned() }
        })?;
        let states = [
            StoryState::Opened,
            StoryState::Updated,
            StoryState::Closed,
            StoryState::Expired,
            StoryState::Retracted,
        ];
        let state = states.into_iter().find(|s| s.word() == line.state);
        let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let ImpactLine { business, customer_facing, slo_impact, affected, evidence } = line.impact;
        Ok(Self {
            id: id(&line.id)?,
            trace_id: id(&line.trace_id)?,
            rule: line.rule,
            pattern: line.pattern,
            name: line.name,
            intent: line.intent,
            state: state.ok_or_else(|| bad(format!("state: {:?}", line.state)))?,
            revision: line.revision,
            key: line.key.iter().map(|(k, v)| (k.clone(), text(v))).collect(),
            members: line.members.into_iter().map(MemberLine::member).collect::<Result<_, _>>()?,
            members_total: line.members_total,
            first_ns: time(&line.first)?,
            last_ns: time(&line.last)?,
            severity: severity(&line.severity),
            root_cause: line.root_cause.into_iter().map(CandidateLine::candidate).collect(),
            impact: Impact { business, customer_facing, slo_impact, affected, evidence },
            actions: line.actions,
            confidence: line.confidence,
            continues: line.continues.as_deref().map(id).transpose()?,
            provisional: line.provisional.as_deref().map(id).transpose()?,
        })
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
                evidence: vec![id(3)],
                labels: vec![String::new()],
                score: 1.25,
                terms: vec![Term { name: "onset".into(), weight: 1.25, because: "first".into() }],
            }],
            impact: Impact { business: 0.5, affected: vec!["x".into()], ..Impact::default() },
            actions: vec!["do".into()],
            confidence: 0.75,
            continues: Some(TraceId([9; 16])),
            provisional: Some(TraceId([8; 16])),
        }
    }

    #[test]
    fn a_story_survives_the_round_trip() {
        let story = story();
        assert_eq!(Story::from_json(&story.json().to_string()), Ok(story));
    }

    #[test]
    fn ids_of_sources_still_join_evidence_to_members() {
        let mut story = story();
        story.members[0].label = "line-7".into();
        story.root_cause[0].labels[0] = "line-7".into();
        let read = Story::from_json(&story.json().to_string()).unwrap();
        assert_eq!(read.members[0].label, "line-7");
        assert_eq!(read.root_cause[0].evidence, [read.members[0].id]);
    }

    #[test]
    fn what_is_no_story_says_why() {
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
