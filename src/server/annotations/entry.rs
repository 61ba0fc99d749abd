//! One line of the file of annotations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use tapio_core::event::TraceId;
use tapio_wire::proto;

/// An action of an operator. Ids of stories are hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub(crate) enum Action {
    /// Somebody works on the story.
    Acknowledge { story: String },
    /// Nobody does any more.
    Unacknowledge { story: String },
    /// A remark.
    Note { story: String, text: String },
    /// The first root cause isn't the real one, which `cause` names if it is known.
    WrongCause {
        story: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        cause: String,
        /// The first root cause at that time: it may be another one later.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        first_cause: String,
    },
    /// The first root cause is the real one.
    RightCause {
        story: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        first_cause: String,
    },
    /// It is marked neither as wrong nor as right any more.
    UnmarkCause { story: String },
    /// Stories of a rule are silenced until a time; with a key, only those whose join key has it.
    Silence {
        id: String,
        rule: String,
        #[serde(default)]
        key: BTreeMap<String, String>,
        until_ns: u64,
        #[serde(default)]
        reason: String,
    },
    /// Ends a silence.
    Unsilence { id: String },
}

impl Action {
    /// The names of the actions that are in force until another one ends them.
    pub(crate) const LISTED: [&str; 5] =
        ["acknowledge", "note", "wrong_cause", "right_cause", "silence"];

    /// Its name, as in the file.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Acknowledge { .. } => "acknowledge",
            Self::Unacknowledge { .. } => "unacknowledge",
            Self::Note { .. } => "note",
            Self::WrongCause { .. } => "wrong_cause",
            Self::RightCause { .. } => "right_cause",
            Self::UnmarkCause { .. } => "unmark_cause",
            Self::Silence { .. } => "silence",
            Self::Unsilence { .. } => "unsilence",
        }
    }

    /// The story that it is about; empty for silences.
    pub(super) fn story(&self) -> &str {
        match self {
            Self::Acknowledge { story }
            | Self::Unacknowledge { story }
            | Self::Note { story, .. }
            | Self::WrongCause { story, .. }
            | Self::RightCause { story, .. }
            | Self::UnmarkCause { story } => story,
            Self::Silence { .. } | Self::Unsilence { .. } => "",
        }
    }
}

/// An action, by whom and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Nanoseconds since the Unix epoch.
    pub(crate) time_ns: u64,
    /// The sender's name where senders authenticate themselves, else the one that it gave.
    #[serde(default)]
    pub(crate) by: String,
    #[serde(flatten)]
    pub(crate) action: Action,
}

impl Entry {
    /// The id of the story that it is about; `None` for silences.
    pub(crate) fn story(&self) -> Option<TraceId> {
        self.action.story().parse().ok()
    }

    /// Bytes of its texts.
    pub(super) fn text_bytes(&self) -> usize {
        let of_action = match &self.action {
            Action::Note { text, .. } => text.len(),
            Action::WrongCause { cause, first_cause, .. } => cause.len() + first_cause.len(),
            Action::RightCause { first_cause, .. } => first_cause.len(),
            Action::Silence { rule, key, reason, .. } => {
                let key: usize = key.iter().map(|(name, value)| name.len() + value.len()).sum();
                rule.len() + reason.len() + key
            }
            _ => 0,
        };
        self.by.len() + of_action
    }

    /// The entry as gRPC lists it; `None` for an action that only ends another one.
    pub(crate) fn to_proto(&self) -> Option<proto::AnnotationEntry> {
        use proto::annotation_entry::Action as Listed;
        let action = match &self.action {
            Action::Acknowledge { .. } => Listed::Acknowledged(true),
            Action::Note { text, .. } => Listed::Note(text.clone()),
            Action::WrongCause { cause, .. } => Listed::WrongCause(cause.clone()),
            Action::RightCause { .. } => Listed::RightCause(true),
            Action::Silence { .. } => Listed::Silence(self.silence()?),
            Action::Unacknowledge { .. }
            | Action::UnmarkCause { .. }
            | Action::Unsilence { .. } => return None,
        };
        Some(proto::AnnotationEntry {
            time_unix_nano: self.time_ns,
            by: self.by.clone(),
            story_id: self.story().map(|id| id.0.to_vec()).unwrap_or_default(),
            action: Some(action),
            first_cause: self.first_cause().to_owned(),
        })
    }

    /// The first root cause when it was marked; empty for other actions.
    pub(super) fn first_cause(&self) -> &str {
        match &self.action {
            Action::WrongCause { first_cause, .. } | Action::RightCause { first_cause, .. } => {
                first_cause
            }
            _ => "",
        }
    }

    /// The silence that it adds; `None` for another action.
    pub(super) fn silence(&self) -> Option<proto::Silence> {
        let Action::Silence { id, rule, key, until_ns, reason } = &self.action else { return None };
        let pair = |(key, value): (&String, &String)| proto::KeyValue {
            key: key.clone(),
            value: value.clone(),
        };
        Some(proto::Silence {
            id: id.clone(),
            rule: rule.clone(),
            key: key.iter().map(pair).collect(),
            until_unix_nano: *until_ns,
            reason: reason.clone(),
            by: self.by.clone(),
            time_unix_nano: self.time_ns,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_that_of_the_file() {
        let story = || "7".to_owned();
        for action in [
            Action::Acknowledge { story: story() },
            Action::Unacknowledge { story: story() },
            Action::Note { story: story(), text: "a".into() },
            Action::WrongCause { story: story(), cause: String::new(), first_cause: String::new() },
            Action::RightCause { story: story(), first_cause: "unit a".into() },
            Action::UnmarkCause { story: story() },
            Action::Unsilence { id: "a".into() },
        ] {
            assert_eq!(serde_json::to_value(&action).unwrap()["action"], action.name());
        }
    }

    #[test]
    fn listed_entry_is_that_of_the_file() {
        let story = || "07".repeat(16);
        let key = [("host.name".to_owned(), "n".to_owned())].into();
        for action in [
            Action::Acknowledge { story: story() },
            Action::Note { story: story(), text: "a".into() },
            Action::WrongCause { story: story(), cause: String::new(), first_cause: String::new() },
            Action::WrongCause {
                story: story(),
                cause: "the disk".into(),
                first_cause: "unit a".into(),
            },
            Action::RightCause { story: story(), first_cause: "unit a".into() },
            Action::Silence {
                id: "a".into(),
                rule: "r".into(),
                key,
                until_ns: 9,
                reason: "known".into(),
            },
        ] {
            let entry = Entry { time_ns: 5, by: "ann".into(), action };
            let listed = tapio_wire::annotation_entry_json(&entry.to_proto().unwrap());
            assert_eq!(listed, serde_json::to_value(&entry).unwrap());
            assert!(Action::LISTED.contains(&entry.action.name()));
        }
    }
}
