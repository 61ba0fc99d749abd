//! The stories that were encoded last: their traces, and the contexts of applications that their
//! events came with.

use std::collections::{HashMap, VecDeque};

/// Stories that are remembered; of more, those seen first are forgotten.
const MAX_STORIES: usize = 4_096;
/// Contexts of a story.
const MAX_CONTEXTS: usize = 32;

/// A trace, and a span in it.
pub(super) type Context = ([u8; 16], [u8; 8]);

#[derive(Default)]
struct SeenStory {
    /// Its trace, once a revision was encoded.
    trace: Option<[u8; 16]>,
    contexts: Vec<Context>,
}

/// The stories, by the id that their events have.
#[derive(Default)]
pub(super) struct SeenStories {
    stories: HashMap<[u8; 16], SeenStory, ahash::RandomState>,
    /// Oldest first.
    order: VecDeque<[u8; 16]>,
}

impl SeenStories {
    fn entry(&mut self, id: [u8; 16]) -> &mut SeenStory {
        if !self.stories.contains_key(&id) {
            if self.order.len() >= MAX_STORIES
                && let Some(oldest) = self.order.pop_front()
            {
                self.stories.remove(&oldest);
            }
            self.order.push_back(id);
        }
        self.stories.entry(id).or_default()
    }

    /// Notes the trace of a story.
    pub(super) fn set_trace(&mut self, id: [u8; 16], trace: [u8; 16]) {
        self.entry(id).trace = Some(trace);
    }

    /// Notes the context of an event of a story.
    pub(super) fn add_context(&mut self, id: [u8; 16], context: Context) {
        let contexts = &mut self.entry(id).contexts;
        if contexts.len() < MAX_CONTEXTS && !contexts.contains(&context) {
            contexts.push(context);
        }
    }

    /// The trace of a story, if a revision was seen.
    pub(super) fn trace(&self, id: &[u8; 16]) -> Option<[u8; 16]> {
        self.stories.get(id)?.trace
    }

    /// The contexts of its events.
    pub(super) fn contexts(&self, id: &[u8; 16]) -> &[Context] {
        self.stories.get(id).map_or(&[], |seen| &seen.contexts)
    }
}
