//! The bounded queue of requests from the servers to the collector.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};
use tokio::sync::{Semaphore, oneshot};

use crate::events::otlp::{Answer, Rejected};
use tapio_wire::OtlpSignal;

/// Requests in the queue.
const QUEUE_REQUESTS: usize = 64;
/// Bytes of the requests that wait for their answers.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// In this unit they are counted.
const BLOCK_BYTES: usize = 1024;
/// The largest accepted request.
pub(super) const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;
/// When a refused sender should retry.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A request from a server to the collector.
pub(super) struct Request {
    pub(super) signal: OtlpSignal,
    pub(super) bytes: Bytes,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("agent is overloaded")]
    QueueFull,
    /// The bytes aren't a request; why.
    #[error("{0}")]
    Malformed(String),
    #[error("agent is shutting down")]
    ShuttingDown,
}

/// The servers' end of the queue.
#[derive(Clone)]
pub(super) struct Intake {
    requests: Sender<Request>,
    /// Blocks that are free.
    room: Arc<Semaphore>,
}

impl Intake {
    pub(super) fn new() -> (Self, Receiver<Request>) {
        let (sender, requests) = channel(QUEUE_REQUESTS);
        (Self::with_queue(sender), requests)
    }

    fn with_queue(requests: Sender<Request>) -> Self {
        Self { requests, room: Arc::new(Semaphore::new(QUEUE_BYTES / BLOCK_BYTES)) }
    }

    /// Passes a request to the collector and waits for the answer. Returns the records that weren't
    /// accepted.
    pub(super) async fn submit(
        &self,
        signal: OtlpSignal,
        bytes: Bytes,
    ) -> Result<Rejected, Refusal> {
        let blocks = u32::try_from(bytes.len().div_ceil(BLOCK_BYTES)).unwrap_or(u32::MAX);
        let Ok(_room) = self.room.try_acquire_many(blocks) else {
            return Err(Refusal::QueueFull);
        };
        let (answer, answered) = oneshot::channel();
        match self.requests.try_send(Request { signal, bytes, answer }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(Refusal::QueueFull),
            Err(TrySendError::Closed(_)) => return Err(Refusal::ShuttingDown),
        }
        match answered.await {
            Ok(Answer::Accepted(rejected)) => Ok(rejected),
            Ok(Answer::Malformed(cause)) => Err(Refusal::Malformed(cause)),
            Ok(Answer::ShuttingDown) | Err(_) => Err(Refusal::ShuttingDown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_requests_are_bounded_by_their_bytes() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (intake, requests) = Intake::new();
        let large = || intake.submit(OtlpSignal::Logs, vec![0; MAX_REQUEST_BYTES].into());
        runtime.block_on(async {
            let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(large())).collect();
            let mut poll_all = std::future::poll_fn(|cx| {
                let pending = waiting.iter_mut().all(|w| w.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(pending)
            });
            assert!((&mut poll_all).await);
            assert!(matches!(large().await, Err(Refusal::QueueFull)));
            drop(requests);
            drop(waiting);
            assert!(matches!(large().await, Err(Refusal::ShuttingDown)), "there is room again");
        });
    }

    #[test]
    fn full_queue_and_shutdown_refuse_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (sender, requests) = channel(1);
        let intake = Intake::with_queue(sender);
        runtime.block_on(async {
            let waiting = intake.submit(OtlpSignal::Logs, Bytes::new());
            tokio::pin!(waiting);
            // After one poll it is in the queue.
            assert!(
                std::future::poll_fn(|cx| std::task::Poll::Ready(
                    waiting.as_mut().poll(cx).is_pending()
                ))
                .await
            );
            let refused = intake.submit(OtlpSignal::Logs, Bytes::new()).await;
            assert!(matches!(refused, Err(Refusal::QueueFull)));
            drop(requests);
            assert!(matches!(waiting.await, Err(Refusal::ShuttingDown)));
            let refused = intake.submit(OtlpSignal::Traces, Bytes::new()).await;
            assert!(matches!(refused, Err(Refusal::ShuttingDown)));
        });
    }
}
