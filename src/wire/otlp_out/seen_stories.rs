//! The stories that were encoded last: their traces and spans, and the contexts of applications
//! that their events came with.

use std::collections::{HashMap, VecDeque};

/// Stories that are remembered; of more, those seen first are forgotten.
const MAX_STORIES: usize = 4_096;
/// Contexts of a story.
const MAX_CONTEXTS: usize = 32;

/// A trace, and a span in it.
pub(super) type Context = ([u8; 16], [u8; 8]);

/// The values that were added last, by an id.
struct Latest<V> {
    values: HashMap<[u8; 16], V, ahash::RandomState>,
    /// Oldest first.
    order: VecDeque<[u8; 16]>,
}

impl<V> Default for Latest<V> {
    fn default() -> Self {
        Self { values: HashMap::default(), order: VecDeque::new() }
    }
}

impl<V: Default> Latest<V> {
    fn entry(&mut self, id: [u8; 16]) -> &mut V {
        if !self.values.contains_key(&id) {
            if self.order.len() >= MAX_STORIES
                && let Some(oldest) = self.order.pop_front()
            {
                self.values.remove(&oldest);
            }
            self.order.push_back(id);
        }
        self.values.entry(id).or_default()
    }
}

/// The stories.
#[derive(Default)]
pub(super) struct SeenStories {
    /// By the story's id.
    own: Latest<Context>,
    /// By the story's trace.
    contexts: Latest<Vec<Context>>,
}

impl SeenStories {
    /// Notes the trace and the span of a story.
    pub(super) fn set_context(&mut self, id: [u8; 16], context: Context) {
        *self.own.entry(id) = context;
    }

    /// Notes the context of an event of the story with this trace.
    pub(super) fn add_context(&mut self, trace: [u8; 16], context: Context) {
        let contexts = self.contexts.entry(trace);
        if contexts.len() < MAX_CONTEXTS && !contexts.contains(&context) {
            contexts.push(context);
        }
    }

    /// The trace and the span of a story, if a revision was seen.
    pub(super) fn context(&self, id: &[u8; 16]) -> Option<Context> {
        self.own.values.get(id).copied()
    }

    /// The contexts of the events of the story with this trace.
    pub(super) fn contexts(&self, trace: &[u8; 16]) -> &[Context] {
        self.contexts.values.get(trace).map_or(&[], Vec::as_slice)
    }
}
