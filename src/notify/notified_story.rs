//! Stories that a receiver was notified about, or will be.

use serde::{Deserialize, Serialize};

use super::feed::Revision;
use tapio_core::event::{Story, StoryState, TraceId, stable_hash};

/// Most kept stories. Those that ended longest ago are forgotten first.
const MAX_STORIES: usize = 4_096;

/// How far the receiver was notified about a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// It is silenced, and nothing was sent.
    Silenced,
    /// A digest counts it.
    Digested,
    /// It was announced and hasn't ended.
    Open,
    /// Its end was announced.
    Closed,
    /// Its retraction was announced.
    Retracted,
}

/// The story as one node has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) node: String,
    /// The story's id in hexadecimal.
    pub(super) id: String,
    /// The last revision.
    pub(super) epoch: u64,
    pub(super) revision: u32,
    pub(super) is_open: bool,
    pub(super) is_retracted: bool,
}

/// One story, with the parts that several nodes have of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct NotifiedStory {
    /// Names the story to the receiver: the id of its first part.
    pub(super) key: String,
    pub(super) trace_id: String,
    pub(super) rule: String,
    /// The id of its incident's first story.
    pub(super) incident: String,
    pub(super) phase: Phase,
    pub(super) parts: Vec<Part>,
    /// Hash of what an update is sent for.
    pub(super) content: String,
    /// The last revision, while it is open or silenced.
    #[serde(with = "story_json", default)]
    pub(super) story: Option<Box<Story>>,
    /// Whether `story` differs from what was sent.
    pub(super) is_changed: bool,
    /// When a notification was last sent, nanoseconds since the Unix epoch.
    pub(super) sent_ns: u64,
    /// The receiver's own reference: the time stamp of a message, the labels of an alert.
    #[serde(default)]
    pub(super) reference: Option<String>,
}

/// A story as a text of JSON.
mod story_json {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use tapio_core::event::Story;

    #[expect(clippy::ref_option, reason = "serde passes the field")]
    pub(super) fn serialize<S: Serializer>(
        story: &Option<Box<Story>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        story.as_ref().map(|story| story.json().to_string()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Box<Story>>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        let story = text.map(|text| Story::from_json(&text).map_err(serde::de::Error::custom));
        Ok(story.transpose()?.map(Box::new))
    }
}

impl NotifiedStory {
    pub(super) fn new(revision: &Revision, phase: Phase) -> Self {
        let story = &revision.story;
        let incident = story.incident.as_ref().map_or(story.id, |incident| incident.id);
        Self {
            key: story.id.to_string(),
            trace_id: story.trace_id.to_string(),
            rule: story.rule.clone(),
            incident: incident.to_string(),
            phase,
            parts: vec![Part::new(revision)],
            content: content(story),
            story: Some(Box::new(story.clone())),
            is_changed: false,
            sent_ns: 0,
            reference: None,
        }
    }

    /// The node whose part opened first.
    pub(super) fn node(&self) -> &str {
        self.parts.first().map_or("", |part| &part.node)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.parts.iter().all(|part| !part.is_open)
    }

    /// Whether it ended because event time confirms no part of it.
    pub(super) fn is_retracted(&self) -> bool {
        self.has_ended() && self.parts.iter().all(|part| part.is_retracted)
    }

    /// Takes a revision of one part. Returns whether it is newer than what is known.
    pub(super) fn take(&mut self, revision: &Revision) -> bool {
        let new = Part::new(revision);
        let story = &revision.story;
        let replaced = story.provisional.filter(|id| id.is_some()).map(|id| id.to_string());
        let is_same = |part: &&mut Part| {
            part.node == new.node && (part.id == new.id || Some(&part.id) == replaced.as_ref())
        };
        match self.parts.iter_mut().find(is_same) {
            Some(part) if part.id == new.id => {
                if (part.epoch, part.revision) >= (new.epoch, new.revision) {
                    return false;
                }
                *part = new;
            }
            Some(part) => *part = new,
            None => self.parts.push(new),
        }
        // The story of the part that opened first describes all of them.
        let is_first = self.parts.first().is_some_and(|part| part.id == story.id.to_string());
        if is_first || self.story.is_none() {
            let content = content(story);
            self.is_changed |= content != self.content;
            self.content = content;
            self.story = Some(Box::new(story.clone()));
        }
        true
    }
}

impl Part {
    fn new(revision: &Revision) -> Self {
        let Story { id, state, revision: number, .. } = &revision.story;
        Self {
            node: revision.node.clone(),
            id: id.to_string(),
            epoch: revision.epoch,
            revision: *number,
            is_open: !state.is_end(),
            is_retracted: *state == StoryState::Retracted,
        }
    }
}

/// Hash of what an update is sent for: severity, title, first cause, impact, actions.
fn content(story: &Story) -> String {
    let impact = &story.impact;
    let business = format!("{:.1}", impact.business);
    let flags = [story.severity.0, u8::from(impact.customer_facing), u8::from(impact.slo_impact)];
    let cause = story.root_cause.first().map_or("", |candidate| &candidate.cause);
    let mut parts: Vec<&[u8]> =
        vec![&flags, business.as_bytes(), story.name.as_bytes(), cause.as_bytes()];
    parts.extend(story.actions.iter().map(String::as_bytes));
    TraceId(stable_hash(&parts)).to_string()
}

/// The kept stories, in the order of their first revisions.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct KnownStories(Vec<NotifiedStory>);

impl KnownStories {
    /// The story that a revision is of.
    pub(super) fn find(&mut self, revision: &Revision) -> Option<&mut NotifiedStory> {
        let Revision { node, story, .. } = revision;
        let (id, trace_id) = (story.id.to_string(), story.trace_id.to_string());
        let replaced = story.provisional.filter(|id| id.is_some()).map(|id| id.to_string());
        let is_part = |part: &Part| {
            part.node == *node && (part.id == id || Some(&part.id) == replaced.as_ref())
        };
        let own = self.0.iter().rposition(|known| known.parts.iter().any(is_part));
        // Nodes that observe the same first event have stories of one trace. An ended one isn't
        // opened again, and a retracted one stands alone.
        let is_other_node = |known: &NotifiedStory| {
            known.trace_id == trace_id
                && known.rule == story.rule
                && story.state != StoryState::Retracted
                && !known.has_ended()
                && known.parts.iter().all(|part| part.node != *node)
        };
        let at = own.or_else(|| self.0.iter().rposition(is_other_node))?;
        self.0.get_mut(at)
    }

    /// Whether the incident of a story was notified about.
    pub(super) fn has_incident(&self, incident: TraceId) -> bool {
        let incident = incident.to_string();
        self.0.iter().any(|known| known.incident == incident && known.phase != Phase::Silenced)
    }

    pub(super) fn by_key(&mut self, key: &str) -> Option<&mut NotifiedStory> {
        self.0.iter_mut().rfind(|known| known.key == key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &NotifiedStory> {
        self.0.iter()
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.0.retain(|known| known.key != key);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a story; past the bound, another one is forgotten: an ended one if there is one.
    pub(super) fn add(&mut self, known: NotifiedStory) {
        self.0.push(known);
        if self.0.len() <= MAX_STORIES {
            return;
        }
        let position = |is: fn(&NotifiedStory) -> bool| self.0.iter().position(is);
        let at = position(|known| known.phase != Phase::Open && known.has_ended())
            .or_else(|| position(|known| known.phase == Phase::Digested))
            .unwrap_or(0);
        self.0.remove(at);
    }
}
