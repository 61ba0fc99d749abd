//! The state of one rule for one key.

use crate::matcher::partial_matches::PartialMatches;
use crate::matcher::window::Window;
use crate::story::members::push_first;
use tapio_core::event::TraceId;

/// Stories of one key that are remembered. Partial matches that started under an older one have
/// long expired.
const MAX_STORIES: usize = 16;

/// The state of a rule for a key, by the rule's shape.
pub(crate) enum Body {
    Sequence(PartialMatches),
    Window(Box<Window>),
}

/// The state of one rule for one key.
pub(crate) struct KeyState {
    pub(crate) body: Body,
    /// The latest story: a partial match that starts while it is open belongs to it.
    pub(crate) story: Option<TraceId>,
    /// The latest stories, at most [`MAX_STORIES`].
    stories: Vec<TraceId>,
}

impl KeyState {
    pub(crate) fn new(body: Body) -> Self {
        Self { body, story: None, stories: Vec::new() }
    }

    /// Makes this the latest story.
    pub(crate) fn set_story(&mut self, story: TraceId) {
        self.story = Some(story);
        if !self.stories.contains(&story) {
            if self.stories.len() >= MAX_STORIES {
                self.stories.remove(0);
            }
            push_first(&mut self.stories, story);
        }
    }

    /// Whether a story with this id was opened for the key.
    pub(crate) fn had_story(&self, story: TraceId) -> bool {
        self.stories.contains(&story)
    }
}
