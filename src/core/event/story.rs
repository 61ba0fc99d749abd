//! A story: one story, with its members, cause, impact and what to do.

use rkyv::{Archive, Deserialize, Serialize};

use super::{EventId, Severity, TraceId};

/// Where a story is in its life. Every story ends as `Closed`, `Expired` or `Retracted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum StoryState {
    /// First told.
    Opened,
    /// Told again, with more members.
    Updated,
    /// Complete: nothing came for the rule's idle time.
    Closed,
    /// Ended by age or for room.
    Expired,
    /// The order of arrival suggested it; the order of the events' own times doesn't bear it out.
    Retracted,
}

impl StoryState {
    /// Whether the story is told to its end.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Self::Closed | Self::Expired | Self::Retracted)
    }

    /// The word used in output.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Updated => "updated",
            Self::Closed => "closed",
            Self::Expired => "expired",
            Self::Retracted => "retracted",
        }
    }
}

/// An event's part in a story.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Member {
    /// The event.
    pub id: EventId,
    /// The event's id as its source wrote it; empty where it gave none.
    pub label: String,
    /// When it happened, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// What happened.
    pub kind: String,
    /// Which collector says so.
    pub source: String,
    /// How bad it is, for itself.
    pub severity: Severity,
    /// The rule's word for the event's part: cause, effect, symptom …
    pub role: String,
    /// The rule's name for what this member shows (`service-failure`); empty where it gives none.
    pub pattern: String,
    /// A line for a person: what happened to whom.
    pub summary: String,
}

/// One reason for a score.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize, serde::Serialize)]
pub struct Term {
    /// What was looked at.
    pub name: String,
    /// How much it added, in natural log-odds.
    pub weight: f64,
    /// The evidence, in words; empty where the name says it all.
    pub because: String,
}

/// A possible root cause.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Candidate {
    /// What a person would call it.
    pub cause: String,
    /// The events that say so.
    pub evidence: Vec<EventId>,
    /// The evidence's ids as their sources wrote them.
    pub labels: Vec<String>,
    /// The sum of the terms.
    pub score: f64,
    /// Why the score is what it is.
    pub terms: Vec<Term>,
}

/// What a story means for those who use the node.
#[derive(Clone, Debug, PartialEq, Default, Archive, Serialize, Deserialize, serde::Serialize)]
pub struct Impact {
    /// 0 (none) to 1 (everything).
    pub business: f64,
    /// Whether somebody outside noticed.
    pub customer_facing: bool,
    /// Whether a service level objective is burning.
    pub slo_impact: bool,
    /// The entities touched: units, pods, services, processes.
    pub affected: Vec<String>,
    /// The facts it was computed from.
    pub evidence: Vec<String>,
}

/// A story: events that belong together, under one trace.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Story {
    /// Identifies the story: a hash of cluster, rule, join key and first member.
    pub id: TraceId,
    /// Its trace, which members carry unless they are in a story that comes before it. Stories that begin with the same
    /// event share one.
    pub trace_id: TraceId,
    /// The rule that found it.
    pub rule: String,
    /// What kind of story it is.
    pub pattern: String,
    /// A title for a person.
    pub name: String,
    /// What the story is about, in the rule's words.
    pub intent: String,
    /// Where it is in its life.
    pub state: StoryState,
    /// How often it was told before.
    pub revision: u32,
    /// The join key: names and values.
    pub key: Vec<(String, String)>,
    /// The members kept, in order; the first and the latest when there are more than a story keeps.
    pub members: Vec<Member>,
    /// All members, kept or not.
    pub members_total: u64,
    /// The first member's time.
    pub first_ns: u64,
    /// The last member's time.
    pub last_ns: u64,
    /// The worst of the rule's and the members' severities.
    pub severity: Severity,
    /// Possible causes, most likely first.
    pub root_cause: Vec<Candidate>,
    /// What it means.
    pub impact: Impact,
    /// What to do.
    pub actions: Vec<String>,
    /// How sure the engine is, 0 to 1.
    pub confidence: f64,
    /// The story of the same rule and key that this one continues.
    pub continues: Option<TraceId>,
    /// The id under which the story was told at first and which its members name in the stream,
    /// where the order of arrival began it with another event than the order of their times does.
    pub provisional: Option<TraceId>,
}

impl Story {
    /// Whether it is one entity's life, which no rule looks for.
    #[must_use]
    pub fn is_life(&self) -> bool {
        self.rule.ends_with("-lifecycle")
    }

    /// The time from the first member to the last.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.last_ns.saturating_sub(self.first_ns)
    }
}
