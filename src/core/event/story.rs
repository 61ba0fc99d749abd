//! A story: events that belong together, with root causes, impact and actions.

use rkyv::{Archive, Deserialize, Serialize};

use super::id::{EventId, TraceId};
use super::incident::Incident;
use super::severity::Severity;

/// State of a story. Every story ends as `Closed`, `Expired` or `Retracted`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum StoryState {
    /// Emitted for the first time.
    #[default]
    Opened,
    /// Emitted again, with more members.
    Updated,
    /// Complete: no member was added for the rule's idle time.
    Closed,
    /// Ended by age or for lack of room.
    Expired,
    /// The arrival lane emitted it, and the event-time lane doesn't confirm it.
    Retracted,
}

impl StoryState {
    /// Whether the state is final.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Self::Closed | Self::Expired | Self::Retracted)
    }

    /// The state with this number: its position in the list above.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        let all = [Self::Opened, Self::Updated, Self::Closed, Self::Expired, Self::Retracted];
        all.into_iter().find(|state| *state as u32 == number)
    }

    /// Its name in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Updated => "updated",
            Self::Closed => "closed",
            Self::Expired => "expired",
            Self::Retracted => "retracted",
        }
    }
}

/// An event as a member of a story.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Member {
    /// The event's id.
    pub id: EventId,
    /// The id that the source gave the event; empty for none.
    pub label: String,
    /// Event time, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// The type of the event.
    pub kind: String,
    /// The collector that emitted it.
    pub source: String,
    /// Severity of the event by itself.
    pub severity: Severity,
    /// The event's role by the rule: cause, effect, symptom …
    pub role: String,
    /// The rule's name for what this member shows (`service-failure`); empty for none.
    pub pattern: String,
    /// One line of text: the event and its entity.
    pub summary: String,
}

/// One part of a candidate's score.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize, serde::Serialize)]
pub struct Term {
    /// The name of the term.
    pub name: String,
    /// Its contribution to the score, in natural log-odds.
    pub weight: f64,
    /// Its evidence in the unit of the term: the contribution without the weight of the term. 0
    /// where the story was ranked by a version that doesn't record it.
    pub value: f64,
    /// The evidence as text; empty where the name suffices.
    pub because: String,
}

/// The entity that a possible root cause is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CauseEntity {
    /// Its kind: `pod`, `unit`, `process`, `service` …
    pub kind: String,
    /// Its name for people: `namespace/name` of a pod, `nginx.service`.
    pub name: String,
    /// Its id among those of its kind on its node: a pod's uid, a container's id.
    pub id: String,
    /// The node that it is on; empty where its id is unique in the cluster.
    pub node: String,
}

/// A possible root cause.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Candidate {
    /// Its description.
    pub cause: String,
    /// The entity; `None` for a cause that is about none, or not about one alone.
    pub entity: Option<CauseEntity>,
    /// The events that support it.
    pub evidence: Vec<EventId>,
    /// The ids that the sources gave these events.
    pub labels: Vec<String>,
    /// The sum of the terms.
    pub score: f64,
    /// The parts of the score.
    pub terms: Vec<Term>,
}

/// Consequences of a story for the users of the node.
#[derive(Clone, Debug, PartialEq, Default, Archive, Serialize, Deserialize, serde::Serialize)]
pub struct Impact {
    /// 0 (none) to 1 (everything).
    pub business: f64,
    /// Whether customers notice it.
    pub customer_facing: bool,
    /// Whether a service level objective is at risk.
    pub slo_impact: bool,
    /// Affected entities: units, pods, services, processes.
    pub affected: Vec<String>,
    /// The facts from which it is computed.
    pub evidence: Vec<String>,
}

/// A story: events that belong together, under one trace.
#[derive(Clone, Debug, Default, PartialEq, Archive, Serialize, Deserialize)]
pub struct Story {
    /// Identifies the story: a hash of cluster, rule, join key and first member.
    pub id: TraceId,
    /// Its trace, which its members have too unless an earlier story has them. Stories that begin
    /// with the same event share a trace.
    pub trace_id: TraceId,
    /// The rule that found it.
    pub rule: String,
    /// The type of the story.
    pub pattern: String,
    /// Its title.
    pub name: String,
    /// The rule's description of the story.
    pub intent: String,
    /// Its state.
    pub state: StoryState,
    /// How often it was emitted before.
    pub revision: u32,
    /// The join key: names and values.
    pub key: Vec<(String, String)>,
    /// The kept members, in order: the first and the latest where a story has more than it keeps.
    pub members: Vec<Member>,
    /// Number of all members, kept or not.
    pub members_total: u64,
    /// The first member's time.
    pub first_ns: u64,
    /// The last member's time.
    pub last_ns: u64,
    /// The worst of the rule's and the members' severities.
    pub severity: Severity,
    /// Possible causes, most likely first.
    pub root_cause: Vec<Candidate>,
    /// Its impact.
    pub impact: Impact,
    /// Recommended steps.
    pub actions: Vec<String>,
    /// Confidence of the engine in the story, 0 to 1.
    pub confidence: f64,
    /// The story of the same rule and key that this one continues.
    pub continues: Option<TraceId>,
    /// The id under which the arrival lane emitted the story and which its members have in the
    /// stream. Set where event time begins the story with another event.
    pub provisional: Option<TraceId>,
    /// The incident that it belongs to, unless it is the first one of it.
    pub incident: Option<Incident>,
}

impl Story {
    /// Whether it is the lifecycle of one entity, which is tracked without a rule.
    #[must_use]
    pub fn is_lifecycle(&self) -> bool {
        self.rule.ends_with("-lifecycle")
    }

    /// The time from the first member to the last.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.last_ns.saturating_sub(self.first_ns)
    }
}
