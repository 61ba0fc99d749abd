//! The bounded queue of requests from the servers to the collector.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};
use tokio::sync::oneshot;

use tapio_wire::OtlpSignal;

/// Requests in the queue.
const QUEUE_REQUESTS: usize = 64;
/// The largest accepted request.
pub(super) const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;
/// When a refused sender should retry.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The collector's answer to a request.
pub(super) enum Answer {
    /// Its records are accepted, except the dropped ones, which couldn't be decoded.
    Accepted { dropped: u64 },
    /// The bytes aren't a request; why.
    Malformed(String),
}

/// A request from a server to the collector.
pub(super) struct Request {
    pub(super) signal: OtlpSignal,
    pub(super) bytes: Bytes,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// Why a request was refused.
pub(super) enum Refusal {
    QueueFull,
    /// The bytes aren't a request; why.
    Malformed(String),
    ShuttingDown,
}

/// The servers' end of the queue.
#[derive(Clone)]
pub(super) struct Intake(Sender<Request>);

impl Intake {
    pub(super) fn new() -> (Self, Receiver<Request>) {
        let (sender, requests) = channel(QUEUE_REQUESTS);
        (Self(sender), requests)
    }

    /// Passes a request to the collector and waits for the answer. Returns how many records were
    /// dropped.
    pub(super) async fn submit(&self, signal: OtlpSignal, bytes: Bytes) -> Result<u64, Refusal> {
        let (answer, answered) = oneshot::channel();
        match self.0.try_send(Request { signal, bytes, answer }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(Refusal::QueueFull),
            Err(TrySendError::Closed(_)) => return Err(Refusal::ShuttingDown),
        }
        match answered.await {
            Ok(Answer::Accepted { dropped }) => Ok(dropped),
            Ok(Answer::Malformed(cause)) => Err(Refusal::Malformed(cause)),
            Err(_) => Err(Refusal::ShuttingDown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_queue_and_shutdown_refuse_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (sender, requests) = channel(1);
        let intake = Intake(sender);
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
