//! The incident that a story belongs to: stories of one cause. The first of them is the parent, the
//! others name it, so that people are notified once.

use rkyv::{Archive, Deserialize, Serialize};

use super::id::TraceId;

/// How a story is related to an earlier one of its incident.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum IncidentRole {
    /// Both are about the same entity, or share events.
    #[default]
    Same,
    /// It is about an entity that the earlier story's entity depends on: it explains that one.
    Cause,
    /// It is about an entity that depends on the earlier story's.
    Effect,
}

impl IncidentRole {
    /// Its name in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Cause => "cause",
            Self::Effect => "effect",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Same, Self::Cause, Self::Effect].into_iter().find(|role| role.as_str() == name)
    }
}

/// The incident of a story that isn't its first one.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Incident {
    /// The id of the incident's first story, its parent.
    pub id: TraceId,
    /// How the story is related to the one by which it belongs to the incident.
    pub role: IncidentRole,
    /// The fact that relates them.
    pub because: String,
}
