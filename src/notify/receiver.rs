//! A receiver, of whatever kind.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::notification::Notification;
use tapio_wire::PostFailure;

/// The answer of a receiver: its reference to what it was sent, if it has one.
pub(super) type Answer = Result<Option<String>, PostFailure>;
/// An answer that is waited for.
pub(super) type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A kind of receiver.
pub(super) trait Receiver: Send + Sync {
    /// Sends a notification.
    fn send(self: Arc<Self>, notification: Notification) -> Answering;

    /// The interval at which open stories are sent again; `None`: they aren't.
    fn refresh_interval(&self) -> Option<Duration> {
        None
    }

    /// Sends open stories again.
    fn refresh(self: Arc<Self>, _: Vec<Notification>) -> Answering {
        Box::pin(async { Ok(None) })
    }

    /// Whether it takes updates of stories.
    fn takes_updates(&self) -> bool {
        true
    }
}

/// Cuts a text to at most so many characters.
pub(super) fn cut(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
