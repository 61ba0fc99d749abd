//! The gRPC service for operators: annotations and silences.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

use super::annotations::Refusal;
use super::operate::{Mark, NewSilence, OperateError, Sender};
use super::shared::Shared;
use tapio_core::event::TraceId;
use tapio_wire::proto::operate_server::{Operate, OperateServer};
use tapio_wire::{Caller, proto};

/// Largest request.
const MAX_REQUEST_BYTES: usize = 1024 * 1024;

pub(super) fn service(shared: Arc<Shared>) -> OperateServer<Operations> {
    OperateServer::new(Operations(shared)).max_decoding_message_size(MAX_REQUEST_BYTES)
}

pub(super) struct Operations(Arc<Shared>);

/// A request's message and its sender.
fn parts<T>(request: Request<T>, by: impl Fn(&T) -> &str) -> (T, Sender) {
    let identity = Caller::of(request.extensions()).identity;
    let message = request.into_inner();
    let by = by(&message).to_owned();
    (message, Sender { identity, by })
}

fn mark(action: Option<proto::annotate_request::Action>) -> Result<Mark, Status> {
    use proto::annotate_request::Action;
    Ok(match action {
        Some(Action::Acknowledged(true)) => Mark::Acknowledge,
        Some(Action::Acknowledged(false)) => Mark::Unacknowledge,
        Some(Action::Note(text)) => Mark::Note(text),
        Some(Action::WrongCause(cause)) => Mark::WrongCause(cause),
        Some(Action::RightCause(true)) => Mark::RightCause,
        Some(Action::RightCause(false)) => Mark::UnmarkCause,
        None => return Err(Status::invalid_argument("action: is missing")),
    })
}

#[tonic::async_trait]
impl Operate for Operations {
    async fn annotate(
        &self,
        request: Request<proto::AnnotateRequest>,
    ) -> Result<Response<proto::Annotations>, Status> {
        let (request, sender) = parts(request, |request| &request.by);
        let id: [u8; 16] = request.story_id.try_into().map_err(|id: Vec<u8>| {
            Status::invalid_argument(format!("story_id: {} bytes instead of 16", id.len()))
        })?;
        let annotations = self.0.annotate(TraceId(id), mark(request.action)?, sender).await?;
        Ok(Response::new(annotations))
    }

    async fn add_silence(
        &self,
        request: Request<proto::AddSilenceRequest>,
    ) -> Result<Response<proto::Silence>, Status> {
        let (request, sender) = parts(request, |request| &request.by);
        let proto::AddSilenceRequest { rule, key, duration_nanos, reason, .. } = request;
        let key = key.into_iter().map(|pair| (pair.key, pair.value)).collect();
        let lasts = Duration::from_nanos(duration_nanos);
        let silence = NewSilence { rule, key, lasts, reason };
        Ok(Response::new(self.0.silence(silence, sender).await?))
    }

    async fn remove_silence(
        &self,
        request: Request<proto::RemoveSilenceRequest>,
    ) -> Result<Response<proto::RemoveSilenceResponse>, Status> {
        let (request, sender) = parts(request, |request| &request.by);
        self.0.unsilence(request.id, sender).await?;
        Ok(Response::new(proto::RemoveSilenceResponse {}))
    }
}

impl From<OperateError> for Status {
    fn from(error: OperateError) -> Self {
        let text = error.to_string();
        match error {
            OperateError::Query(error) => error.into(),
            OperateError::NoStory(_) | OperateError::Refused(Refusal::NoSilence(_)) => {
                Self::not_found(text)
            }
            OperateError::Invalid(_) | OperateError::Refused(Refusal::Text(_)) => {
                Self::invalid_argument(text)
            }
            OperateError::Refused(Refusal::TooMany(_)) => Self::failed_precondition(text),
            OperateError::Failed(_) => Self::internal(text),
        }
    }
}
