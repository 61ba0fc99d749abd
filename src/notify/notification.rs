//! One notification.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::flood::Digest;
use tapio_core::event::{Severity, Story, TraceId, rfc3339, stable_hash};

/// The reason of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Occasion {
    Opened,
    Updated,
    Closed,
    Retracted,
    Digest,
}

impl Occasion {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Updated => "updated",
            Self::Closed => "closed",
            Self::Retracted => "retracted",
            Self::Digest => "digest",
        }
    }

    pub(super) fn is_end(self) -> bool {
        matches!(self, Self::Closed | Self::Retracted)
    }
}

/// A notification, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Notification {
    /// The same for each attempt, and after a restart.
    pub(super) id: String,
    pub(super) occasion: Occasion,
    /// When it was made, nanoseconds since the Unix epoch.
    pub(super) time_ns: u64,
    /// Names the story in all notifications about it.
    pub(super) key: String,
    pub(super) node: String,
    pub(super) cluster: String,
    pub(super) content: Content,
    /// The link to the story; empty for none.
    pub(super) link: String,
    /// The receiver's own reference to what it was sent before.
    pub(super) reference: Option<String>,
    /// Whether another open story has the same reference.
    pub(super) is_shared: bool,
    /// Whether it is sent by `tapio notify test`.
    pub(super) is_test: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Story { story: Box<Story>, annotations: Option<Value>, silence: Option<Value> },
    Digest(Digest),
}

/// The id of a notification, from what makes it unique.
pub(super) fn notification_id(parts: &[&str]) -> String {
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    TraceId(stable_hash(&parts)).to_string()
}

impl Notification {
    /// The story; `None` for a digest.
    pub(super) fn story(&self) -> Option<&Story> {
        match &self.content {
            Content::Story { story, .. } => Some(story),
            Content::Digest(_) => None,
        }
    }

    /// Its form in JSON, with the story in the API's form.
    pub(super) fn json(&self) -> Value {
        let mut out = json!({
            "event": self.occasion.as_str(),
            "id": self.id,
            "time": rfc3339(self.time_ns),
            "cluster": self.cluster,
        });
        if self.is_test {
            out["test"] = true.into();
        }
        match &self.content {
            Content::Story { story, annotations, silence } => {
                out["key"] = self.key.as_str().into();
                out["node"] = self.node.as_str().into();
                out["story"] = story.json();
                for (name, value) in [("annotations", annotations), ("silence", silence)] {
                    if let Some(value) = value {
                        out["story"][name] = value.clone();
                    }
                }
            }
            Content::Digest(digest) => out["digest"] = digest_json(digest),
        }
        if !self.link.is_empty() {
            out["link"] = self.link.as_str().into();
        }
        out
    }
}

fn digest_json(digest: &Digest) -> Value {
    let rule = |rule: &super::flood::RuleCount| {
        json!({
            "rule": rule.rule,
            "pattern": rule.pattern,
            "severity": Severity(rule.severity).as_str(),
            "stories": rule.stories,
        })
    };
    json!({
        "from": rfc3339(digest.from_ns),
        "until": rfc3339(digest.until_ns),
        "stories": digest.stories(),
        "rules": digest.rules.iter().map(rule).collect::<Vec<_>>(),
    })
}
