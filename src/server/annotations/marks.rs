//! The annotations in force.

use std::collections::{BTreeMap, HashMap};

use super::entry::{Action, Entry};
use super::entry_key::EntryKey;
use tapio_core::event::{Story, TraceId, stable_hash};
use tapio_wire::proto;

/// Stories with annotations.
const MAX_STORIES: usize = 100_000;
/// Notes of a story.
const MAX_NOTES: usize = 100;
/// Silences in force.
const MAX_SILENCES: usize = 1_000;
/// Longest text of an entry, characters.
const MAX_TEXT_CHARS: usize = 4_000;
/// Names in the key of a silence.
const MAX_KEY_NAMES: usize = 16;
/// Longest name or value of a key, characters.
const MAX_KEY_CHARS: usize = 256;

/// Why an entry isn't taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// A text is too long, or empty.
    #[error("{0}")]
    Text(String),
    /// There are too many.
    #[error("{0}")]
    TooMany(String),
    /// No such silence.
    #[error("no silence {0}")]
    NoSilence(String),
}

/// Annotations of a story.
#[derive(Clone, Debug, Default)]
struct StoryMarks {
    acknowledged: Option<Entry>,
    /// Whether the first root cause is the real one.
    cause: Option<Entry>,
    notes: Vec<Entry>,
}

impl StoryMarks {
    fn is_empty(&self) -> bool {
        self.acknowledged.is_none() && self.cause.is_none() && self.notes.is_empty()
    }
}

/// The annotations in force, by story, and the silences.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    stories: HashMap<TraceId, StoryMarks, ahash::RandomState>,
    /// By id.
    silences: BTreeMap<String, Entry>,
}

impl Marks {
    /// Whether an entry can be taken.
    ///
    /// # Errors
    /// Why it can't.
    pub(super) fn check(&self, entry: &Entry) -> Result<(), Refusal> {
        let texts = match &entry.action {
            Action::Note { text, .. } if text.trim().is_empty() => {
                return Err(Refusal::Text("text: is empty".into()));
            }
            Action::Note { text, .. } => vec![("text", text)],
            Action::WrongCause { cause, .. } => vec![("cause", cause)],
            Action::Silence { rule, reason, .. } => vec![("rule", rule), ("reason", reason)],
            _ => Vec::new(),
        };
        for (name, text) in texts.into_iter().chain([("by", &entry.by)]) {
            let chars = text.chars().count();
            if chars > MAX_TEXT_CHARS {
                let cause = format!("{name}: {chars} characters, at most {MAX_TEXT_CHARS}");
                return Err(Refusal::Text(cause));
            }
        }
        if let Action::Silence { key, .. } = &entry.action {
            let is_long = |text: &String| text.chars().count() > MAX_KEY_CHARS;
            if key.len() > MAX_KEY_NAMES || key.iter().any(|(n, v)| is_long(n) || is_long(v)) {
                let cause = format!(
                    "key: at most {MAX_KEY_NAMES} names, each name and value of at most \
                     {MAX_KEY_CHARS} characters"
                );
                return Err(Refusal::Text(cause));
            }
        }
        let of_story = entry.story().and_then(|id| self.stories.get(&id));
        match &entry.action {
            Action::Unsilence { id } if !self.silences.contains_key(id) => {
                Err(Refusal::NoSilence(id.clone()))
            }
            Action::Silence { .. } if self.silences.len() >= MAX_SILENCES => {
                Err(Refusal::TooMany(format!("{MAX_SILENCES} silences are in force")))
            }
            Action::Note { .. } if of_story.is_some_and(|of| of.notes.len() >= MAX_NOTES) => {
                Err(Refusal::TooMany(format!("the story has {MAX_NOTES} notes")))
            }
            _ if of_story.is_none()
                && entry.story().is_some()
                && self.stories.len() >= MAX_STORIES =>
            {
                Err(Refusal::TooMany(format!("{MAX_STORIES} stories have annotations")))
            }
            _ => Ok(()),
        }
    }

    /// Applies an entry.
    pub(super) fn apply(&mut self, entry: Entry) {
        match &entry.action {
            Action::Silence { id, .. } => {
                self.silences.insert(id.clone(), entry);
                return;
            }
            Action::Unsilence { id } => {
                self.silences.remove(id);
                return;
            }
            _ => {}
        }
        let Some(id) = entry.story() else { return };
        let marks = self.stories.entry(id).or_default();
        match &entry.action {
            Action::Acknowledge { .. } => marks.acknowledged = Some(entry),
            Action::Unacknowledge { .. } => marks.acknowledged = None,
            Action::WrongCause { .. } | Action::RightCause { .. } => marks.cause = Some(entry),
            Action::UnmarkCause { .. } => marks.cause = None,
            _ => marks.notes.push(entry),
        }
        if marks.is_empty() {
            self.stories.remove(&id);
        }
    }

    /// Forgets silences that are over.
    pub(super) fn expire(&mut self, now_ns: u64) {
        self.silences.retain(|_, entry| is_in_force(entry, now_ns));
    }

    /// The entries that have the same effect as all that were applied, oldest first.
    pub(super) fn entries(&self) -> Vec<&Entry> {
        let mut all: Vec<(EntryKey, &Entry)> = self.keyed().collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all.into_iter().map(|(_, entry)| entry).collect()
    }

    /// All entries, each with its position in the list of all.
    pub(super) fn keyed(&self) -> impl Iterator<Item = (EntryKey, &Entry)> {
        let of_stories = self.stories.iter().flat_map(|(id, marks)| {
            let StoryMarks { acknowledged, cause, notes } = marks;
            // A number stays the same when others are removed.
            let single = [(0, acknowledged.as_ref()), (1, cause.as_ref())];
            let single = single.into_iter().filter_map(|(number, one)| Some((number, one?)));
            let all = single.chain((2..).zip(notes));
            all.map(|(number, entry)| (EntryKey::new(entry, &id.0, number), entry))
        });
        let silences = self.silences.iter().map(|(id, entry)| {
            (EntryKey::new(entry, &stable_hash(&[id.as_bytes()])[..16], 0), entry)
        });
        of_stories.chain(silences)
    }

    /// The annotations of stories with one of these ids; `None` for none.
    pub(crate) fn of_story(
        &self,
        ids: impl Iterator<Item = TraceId>,
    ) -> Option<proto::Annotations> {
        let mut ids = ids;
        let marks = ids.find_map(|id| self.stories.get(&id))?;
        let is_wrong = |entry: &&Entry| matches!(entry.action, Action::WrongCause { .. });
        let cause = marks.cause.as_ref();
        Some(proto::Annotations {
            acknowledged: marks.acknowledged.as_ref().map(annotation),
            wrong_cause: cause.filter(is_wrong).map(annotation),
            notes: marks.notes.iter().map(annotation).collect(),
            right_cause: cause.filter(|entry| !is_wrong(entry)).map(annotation),
        })
    }

    /// The silence that a story falls under.
    pub(crate) fn silence_of(&self, story: &Story, now_ns: u64) -> Option<proto::Silence> {
        let falls_under = |entry: &&Entry| {
            let Action::Silence { rule, key, .. } = &entry.action else { return false };
            let has = |(name, value): (&String, &String)| {
                story.key.iter().any(|(n, v)| n == name && v == value)
            };
            is_in_force(entry, now_ns) && *rule == story.rule && key.iter().all(has)
        };
        self.silences.values().find(falls_under).and_then(Entry::silence)
    }

    /// The silences in force.
    pub(crate) fn silences(&self, now_ns: u64) -> Vec<proto::Silence> {
        let in_force = self.silences.values().filter(|entry| is_in_force(entry, now_ns));
        in_force.filter_map(Entry::silence).collect()
    }
}

/// Whether a silence isn't over.
pub(super) fn is_in_force(entry: &Entry, now_ns: u64) -> bool {
    matches!(entry.action, Action::Silence { until_ns, .. } if until_ns > now_ns)
}

/// The sender, the time and the text of an entry.
fn annotation(entry: &Entry) -> proto::Annotation {
    let text = match &entry.action {
        Action::Note { text, .. } => text.clone(),
        Action::WrongCause { cause, .. } => cause.clone(),
        _ => String::new(),
    };
    proto::Annotation {
        time_unix_nano: entry.time_ns,
        by: entry.by.clone(),
        text,
        first_cause: entry.first_cause().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORY: &str = "00000000000000000000000000000007";

    fn entry(action: Action) -> Entry {
        Entry { time_ns: 5, by: "ann".into(), action }
    }

    fn silenced(id: &str, key: &[(&str, &str)], until_ns: u64) -> Entry {
        let key = key.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let (id, rule, reason) = (id.into(), "oom".into(), "known".into());
        entry(Action::Silence { id, rule, key, until_ns, reason })
    }

    #[test]
    fn marks_are_set_and_removed() {
        let mut marks = Marks::default();
        let id: TraceId = STORY.parse().unwrap();
        let story = || STORY.to_owned();
        for action in [
            Action::Acknowledge { story: story() },
            Action::Note { story: story(), text: "restarted it".into() },
            Action::WrongCause {
                story: story(),
                cause: "the disk".into(),
                first_cause: "unit a".into(),
            },
        ] {
            marks.apply(entry(action));
        }
        let noted = marks.of_story([TraceId([9; 16]), id].into_iter()).unwrap();
        let json = tapio_wire::annotations_json(&noted);
        assert_eq!(json["acknowledged"]["by"], "ann");
        assert_eq!(json["notes"][0]["text"], "restarted it");
        assert_eq!(json["wrong_cause"]["cause"], "the disk");
        assert_eq!(json["wrong_cause"]["first_cause"], "unit a");
        assert_eq!(marks.entries().len(), 3);
        marks.apply(entry(Action::Unacknowledge { story: story() }));
        marks.apply(entry(Action::RightCause { story: story(), first_cause: String::new() }));
        let noted = marks.of_story([id].into_iter()).unwrap();
        assert!(noted.acknowledged.is_none() && noted.wrong_cause.is_none());
        assert!(noted.right_cause.is_some());
        assert_eq!(marks.entries().len(), 2);
        marks.apply(entry(Action::UnmarkCause { story: story() }));
        assert_eq!(marks.entries().len(), 1);
    }

    #[test]
    fn silence_is_of_a_rule_and_a_key_for_a_time() {
        let mut marks = Marks::default();
        marks.apply(silenced("a", &[("host.name", "n1")], 100));
        let story = |rule: &str, node: &str| Story {
            rule: rule.into(),
            key: vec![("host.name".into(), node.into())],
            ..Story::default()
        };
        assert!(marks.silence_of(&story("oom", "n1"), 99).is_some());
        assert!(marks.silence_of(&story("oom", "n1"), 100).is_none(), "it is over");
        assert!(marks.silence_of(&story("oom", "n2"), 99).is_none());
        assert!(marks.silence_of(&story("other", "n1"), 99).is_none());
        let unknown = entry(Action::Unsilence { id: "b".into() });
        assert_eq!(marks.check(&unknown), Err(Refusal::NoSilence("b".into())));
        marks.expire(100);
        assert!(marks.entries().is_empty());
    }

    #[test]
    fn notes_are_bounded() {
        let mut marks = Marks::default();
        let note = |text: String| entry(Action::Note { story: STORY.into(), text });
        for n in 0..MAX_NOTES {
            marks.check(&note(n.to_string())).unwrap();
            marks.apply(note(n.to_string()));
        }
        assert!(matches!(marks.check(&note("one more".into())), Err(Refusal::TooMany(_))));
        assert!(matches!(marks.check(&note(" ".into())), Err(Refusal::Text(_))));
        let long = note("x".repeat(MAX_TEXT_CHARS + 1));
        assert!(matches!(marks.check(&long), Err(Refusal::Text(_))));
    }
}
