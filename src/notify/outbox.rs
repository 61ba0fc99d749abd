//! Notifications that wait to be sent, in their order.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::flood::Digest;
use super::notification::Occasion;
use tapio_core::event::Story;

/// Most notifications that wait. Beyond, the log isn't read on.
const MAX_WAITING: usize = 256;

/// A notification that waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) id: String,
    pub(super) occasion: Occasion,
    /// The story; empty for a digest.
    pub(super) key: String,
    /// When it was made, nanoseconds since the Unix epoch.
    pub(super) time_ns: u64,
    /// The revision to send, as a text of JSON; empty for a digest.
    pub(super) story: String,
    #[serde(default)]
    pub(super) digest: Option<Digest>,
}

impl Waiting {
    /// The revision to send.
    pub(super) fn story(&self) -> Option<Story> {
        Story::from_json(&self.story).ok()
    }
}

/// Notifications that wait. Only their first is sent at a time: their order stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Outbox(VecDeque<Waiting>);

impl Outbox {
    pub(super) fn has_room(&self) -> bool {
        self.0.len() < MAX_WAITING
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.0.push_back(waiting);
    }

    pub(super) fn first(&self) -> Option<&Waiting> {
        self.0.front()
    }

    /// Removes the first one, if it is the one with this id.
    pub(super) fn remove(&mut self, id: &str) {
        if self.first().is_some_and(|first| first.id == id) {
            self.0.pop_front();
        }
    }

    /// Whether a notification about a story waits.
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|waiting| waiting.key == key)
    }

    /// Whether the opening of a story waits.
    pub(super) fn has_opening(&self, key: &str) -> bool {
        self.0.iter().any(|waiting| waiting.key == key && waiting.occasion == Occasion::Opened)
    }

    /// Drops the end of a story that waits. Returns whether there was one.
    pub(super) fn drop_end(&mut self, key: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|waiting| waiting.key != key || !waiting.occasion.is_end());
        self.0.len() < before
    }

    /// Drops what waits about a story.
    pub(super) fn drop_all(&mut self, key: &str) {
        self.0.retain(|waiting| waiting.key != key);
    }
}
