//! A story as a server answers it: with what operators noted about it.

use serde_json::Value as Json;

use tapio_core::event::LinkedStory;
use tapio_wire::{annotated_json, linked_from_proto, proto};

/// A story, its annotations, and the silence that it falls under.
#[derive(Debug)]
pub(crate) struct Annotated {
    pub(crate) linked: LinkedStory,
    pub(crate) annotations: Option<proto::Annotations>,
    pub(crate) silence: Option<proto::Silence>,
}

impl Annotated {
    /// Converts a story from protobuf; `None`: it is invalid.
    pub(crate) fn from_proto(mut story: proto::Story) -> Option<Self> {
        let (annotations, silence) = (story.annotations.take(), story.silence.take());
        Some(Self { linked: linked_from_proto(story)?, annotations, silence })
    }

    /// The story as the API has it.
    pub(crate) fn json(&self) -> Json {
        annotated_json(&self.linked, self.annotations.as_ref(), self.silence.as_ref())
    }
}
