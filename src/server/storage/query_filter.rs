//! Selects events and stories.

use std::borrow::Cow;

use super::entity_key::key_names;
use super::story_entity;
use tapio_core::event::{Severity, Story, StoryState, TraceId, Value};
use tapio_wire::{Batch, Item, RawEvent};

/// End of the rules and patterns of lifecycles: each unit and pod has one, without a rule.
pub(crate) const LIFECYCLE: &str = "-lifecycle";
/// Longest text of a filter, in characters.
const MAX_TEXT_CHARS: usize = 256;
/// Entities of a filter.
const MAX_ENTITIES: usize = 8;

/// A parameter of a query that is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {cause}")]
pub struct InvalidParameter {
    /// Its name.
    pub name: &'static str,
    /// Why it is invalid.
    pub cause: String,
}

/// The states of stories that a filter can select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFilter {
    /// It may still grow.
    Open,
    /// It has ended.
    Closed,
    /// It was withdrawn.
    Retracted,
}

impl StateFilter {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Open, Self::Closed, Self::Retracted];

    /// Its name in queries.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Retracted => "retracted",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    fn matches(self, state: StoryState) -> bool {
        match self {
            Self::Open => !state.is_end(),
            Self::Closed => matches!(state, StoryState::Closed | StoryState::Expired),
            Self::Retracted => state == StoryState::Retracted,
        }
    }
}

/// Selects events, or stories. The default selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The time: of an event; of a story, one of its members may have. Nanoseconds since the Unix
    /// epoch, from this one on; 0 for any.
    pub since_ns: u64,
    /// The time: before this one; 0 for any.
    pub until_ns: u64,
    /// The least severity.
    pub severity: Severity,
    /// The pattern: of a story; of an event, one of its stories has it, or the event has it in a
    /// story. Empty for any.
    pub pattern: String,
    /// The rules whose stories have the pattern, by which events are found whose stories have it;
    /// empty where they aren't known.
    pub rules: Vec<String>,
    /// The 16 bytes of a trace id; empty for any.
    pub trace_id: Vec<u8>,
    /// The node; empty for any.
    pub node: String,
    /// A glob for the kind: of an event; of a story, one of its kept members has it. Empty for any.
    pub kind: String,
    /// Entities, as `key=value`, each of which an event has (`container`: by its name or its id);
    /// of a story, its key, or it is one of its possible root causes or affected.
    pub entities: Vec<String>,
    /// The state of a story; `None` for any. Not for events.
    pub state: Option<StateFilter>,
    /// A part, in upper or lower case: of an event's message; of a story's name or of a kept
    /// member's summary. Empty for any.
    pub text: String,
    /// The first hexadecimal digits of a story's id; empty for any. Not for events.
    pub id_prefix: String,
    /// Whether lifecycles of pods, units and processes are left out. Not for events.
    pub no_lifecycles: bool,
}

impl Filter {
    /// Validates the values.
    ///
    /// # Errors
    /// The parameter, and why it is invalid.
    pub fn check(&self) -> Result<(), InvalidParameter> {
        let texts = [
            ("pattern", &self.pattern),
            ("node", &self.node),
            ("kind", &self.kind),
            ("text", &self.text),
        ];
        let entities = self.entities.iter().map(|entity| ("entity", entity));
        for (name, text) in texts.into_iter().chain(entities) {
            let chars = text.chars().count();
            if chars > MAX_TEXT_CHARS {
                return invalid(name, format!("{chars} characters, at most {MAX_TEXT_CHARS}"));
            }
        }
        if !matches!(self.trace_id.len(), 0 | 16) {
            return invalid("trace_id", format!("{} bytes instead of 16", self.trace_id.len()));
        }
        let is_part_missing = |entity: &&String| {
            let (key, value) = parts(entity);
            key.is_empty() || value.is_empty()
        };
        if let Some(entity) = self.entities.iter().find(is_part_missing) {
            let cause = format!("{entity:?} isn't key=value, neither of them empty");
            return invalid("entity", cause);
        }
        if self.entities.len() > MAX_ENTITIES {
            let number = self.entities.len();
            return invalid("entity", format!("{number} entities, at most {MAX_ENTITIES}"));
        }
        if self.severity > Severity(24) {
            let number = self.severity.0;
            return invalid("severity", format!("{number} isn't a number from 0 to 24"));
        }
        if self.id_prefix.len() > 32 || !self.id_prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
            return invalid("id_prefix", "isn't up to 32 hexadecimal digits".into());
        }
        Ok(())
    }

    pub(super) fn kind_matches(&self, kind: &str) -> bool {
        self.kind.is_empty() || tapio_core::glob::matches(&self.kind, kind)
    }

    /// Whether a range of times, from the first to the last, has one that matches. No time is from
    /// one on and before an earlier one.
    pub(super) fn times_match(&self, first_ns: u64, last_ns: u64) -> bool {
        let is_before_end =
            self.until_ns == 0 || first_ns < self.until_ns && self.since_ns < self.until_ns;
        last_ns >= self.since_ns && is_before_end
    }

    fn severity_matches(&self, severity: u8) -> bool {
        self.severity == Severity(0) || (self.severity.0..=24).contains(&severity)
    }

    /// The keys and the values of the entities. The key of an invalid one is empty.
    pub(super) fn entities(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entities.iter().map(|entity| parts(entity))
    }

    /// Whether every event of a matching kind and node matches.
    fn is_by_kind_only(&self) -> bool {
        let Self { kind, node, .. } = self.clone();
        *self == Self { kind, node, ..Self::default() }
    }

    /// The positions of matching events among the batch's events, ascending.
    #[must_use]
    pub fn positions(&self, batch: &Batch<'_>) -> Vec<usize> {
        if !self.node.is_empty() && self.node != batch.head.node {
            return Vec::new();
        }
        let kinds: Vec<bool> = batch.names().iter().map(|n| self.kind_matches(n)).collect();
        if !kinds.contains(&true) {
            return Vec::new();
        }
        let text = self.text.to_lowercase();
        let is_by_kind_only = self.is_by_kind_only();
        let matches = |event: RawEvent<'_>| {
            event.kind_index().is_some_and(|index| kinds.get(index) == Some(&true))
                && (is_by_kind_only || self.event_matches(batch, event, &text))
        };
        batch
            .items()
            .filter_map(|item| match item {
                Item::Event(event) => Some(event),
                Item::Story(_) | Item::LogBlock(_) => None,
            })
            .enumerate()
            .filter_map(|(position, event)| matches(event).then_some(position))
            .collect()
    }

    /// Whether everything but kind and node of an event matches; `text` is in lower case.
    fn event_matches(&self, batch: &Batch<'_>, event: RawEvent<'_>, text: &str) -> bool {
        let is_name = |index: usize, wanted: &str| batch.names().get(index) == Some(&wanted);
        // Bit n: the event has the entity with this number.
        let (mut found, all) = (0u32, (1u32 << self.entities.len().min(MAX_ENTITIES)) - 1);
        let keys = event.keys(|key, value| {
            for (number, (wanted_key, wanted)) in self.entities().take(MAX_ENTITIES).enumerate() {
                let has = key_names(wanted_key).any(|name| is_name(key, name))
                    && entity_text(value).is_some_and(|text| text == wanted);
                found |= u32::from(has) << number;
            }
        });
        let Some(keys) = keys else { return false };
        found == all
            && (self.trace_id.is_empty() || keys.trace == self.trace_id)
            && self.times_match(keys.time_ns, keys.time_ns)
            && self.severity_matches(keys.severity)
            && (self.pattern.is_empty()
                || event.roles().any(|role| {
                    is_name(role.pattern, &self.pattern)
                        || self.rules.iter().any(|rule| is_name(role.rule, rule))
                }))
            && (text.is_empty()
                || String::from_utf8_lossy(keys.message).to_lowercase().contains(text))
    }

    /// Whether a story of a node matches.
    #[must_use]
    pub fn story_matches(&self, story: &Story, node: &str) -> bool {
        let outline = StoryOutline {
            id: story.id,
            replaces: story.provisional.unwrap_or_default(),
            trace_id: story.trace_id,
            node,
            pattern: &story.pattern,
            state: story.state,
            severity: story.severity.0,
            first_ns: story.first_ns,
            last_ns: story.last_ns,
        };
        self.story_outline_matches(&outline) && self.story_contents_match(story)
    }

    /// Whether a story's times, severity, state, pattern, trace and id match.
    pub(super) fn story_outline_matches(&self, story: &StoryOutline<'_>) -> bool {
        self.times_match(story.first_ns, story.last_ns)
            && self.severity_matches(story.severity)
            && self.state.is_none_or(|state| state.matches(story.state))
            && (self.pattern.is_empty() || story.pattern == self.pattern)
            && !(self.no_lifecycles && story.pattern.ends_with(LIFECYCLE))
            && (self.node.is_empty() || story.node == self.node)
            && (self.trace_id.is_empty() || story.trace_id.0[..] == self.trace_id[..])
            && self.id_matches(story.id, story.replaces)
    }

    /// Whether a story is found by its id, or by that of the story that it replaces.
    fn id_matches(&self, id: TraceId, replaces: TraceId) -> bool {
        let prefix = self.id_prefix.to_ascii_lowercase();
        let has_prefix = |id: TraceId| id.to_string().starts_with(&prefix);
        prefix.is_empty() || has_prefix(id) || (replaces.is_some() && has_prefix(replaces))
    }

    /// Whether [`Filter::story_contents_match`] is needed.
    pub(super) fn reads_story_contents(&self) -> bool {
        !(self.kind.is_empty() && self.entities.is_empty() && self.text.is_empty())
    }

    /// Whether a story's members and its entities match.
    pub(super) fn story_contents_match(&self, story: &Story) -> bool {
        let text = self.text.to_lowercase();
        let has_text = |part: &str| part.to_lowercase().contains(&text);
        (self.kind.is_empty() || story.members.iter().any(|m| self.kind_matches(&m.kind)))
            && self.entities().all(|(key, value)| story_entity::concerns(story, key, value))
            && (text.is_empty()
                || has_text(&story.name)
                || story.members.iter().any(|m| has_text(&m.summary)))
    }
}

/// The parts of a story by which it is found without reading it.
pub(super) struct StoryOutline<'a> {
    pub(super) id: TraceId,
    /// The story that it replaces; zero for none.
    pub(super) replaces: TraceId,
    pub(super) trace_id: TraceId,
    pub(super) node: &'a str,
    pub(super) pattern: &'a str,
    pub(super) state: StoryState,
    pub(super) severity: u8,
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
}

fn invalid(name: &'static str, cause: String) -> Result<(), InvalidParameter> {
    Err(InvalidParameter { name, cause })
}

/// The key and the value of an entity; both are empty for a text without `=`.
fn parts(entity: &str) -> (&str, &str) {
    entity.split_once('=').unwrap_or_default()
}

/// The value of an entity as text; `None` for values that no entity has.
pub(super) fn entity_text(value: Value<'_>) -> Option<Cow<'_, str>> {
    match value {
        Value::Str(text) => Some(Cow::Borrowed(text)),
        Value::Int(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}
