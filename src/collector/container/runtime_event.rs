//! Decodes the events of containerd that the collector subscribes to.

use prost::{DecodeError, Message};

use super::api::events::Envelope;
use super::api::payloads::{
    ContainerCreate, ContainerDelete, ImageName, TaskExit, TaskOom, TaskStart,
};

/// An event of containerd.
pub(super) enum RuntimeEvent {
    ContainerCreated(ContainerCreate),
    ContainerDeleted(ContainerDelete),
    TaskStarted(TaskStart),
    TaskExited(TaskExit),
    TaskOutOfMemory(TaskOom),
    /// An image was given a name, or the name was moved to another image.
    ImageNamed(ImageName),
}

impl RuntimeEvent {
    /// Decodes an event; `None` for other topics.
    pub(super) fn decode(envelope: &Envelope) -> Result<Option<Self>, DecodeError> {
        fn body<M: Message + Default>(envelope: &Envelope) -> Result<M, DecodeError> {
            M::decode(envelope.event.as_ref().map(|any| &*any.value).unwrap_or_default())
        }
        Ok(Some(match envelope.topic.as_str() {
            "/containers/create" => Self::ContainerCreated(body(envelope)?),
            "/containers/delete" => Self::ContainerDeleted(body(envelope)?),
            "/tasks/start" => Self::TaskStarted(body(envelope)?),
            "/tasks/exit" => Self::TaskExited(body(envelope)?),
            "/tasks/oom" => Self::TaskOutOfMemory(body(envelope)?),
            "/images/create" | "/images/update" => Self::ImageNamed(body(envelope)?),
            _ => return Ok(None),
        }))
    }
}
