//! Annotations of stories, and silences: one implementation behind HTTP and gRPC. They change what
//! the server keeps, so a request needs the right to operate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::annotations::{Action, Entry, Refusal};
use super::query_line::QueryError;
use super::shared::Shared;
use super::storage::InvalidParameter;
use tapio_core::clock;
use tapio_core::event::{TraceId, stable_hash};
use tapio_wire::{Identity, proto};

/// Longest silence.
const MAX_SILENCE: Duration = Duration::from_secs(366 * 24 * 3600);

/// Why an action isn't taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum OperateError {
    /// There is no story with this id.
    #[error("no story {0}")]
    NoStory(TraceId),
    /// The story can't be found now.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A parameter is invalid.
    #[error(transparent)]
    Invalid(#[from] InvalidParameter),
    /// A text is too long or empty, there are too many, or there is no such silence.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It can't be written.
    #[error("{0}")]
    Failed(String),
}

/// The sender of an action: its identity where senders authenticate themselves, else the name that
/// it gives.
pub(super) struct Sender {
    pub(super) identity: Option<Arc<Identity>>,
    pub(super) by: String,
}

impl Sender {
    /// An authenticated sender can't act under another name.
    fn name(self) -> String {
        self.identity.map_or(self.by, |identity| identity.to_string())
    }
}

/// An action about a story.
pub(super) enum Mark {
    Acknowledge,
    Unacknowledge,
    Note(String),
    /// The first root cause isn't the real one, which is given if it is known.
    WrongCause(String),
    /// It is the real one.
    RightCause,
    /// It is marked neither as wrong nor as right any more.
    UnmarkCause,
}

/// A silence to be added.
pub(super) struct NewSilence {
    pub(super) rule: String,
    /// Names and values that the join key of a story has; empty: any.
    pub(super) key: BTreeMap<String, String>,
    pub(super) lasts: Duration,
    pub(super) reason: String,
}

impl Shared {
    /// Keeps an action about the story of which one part has this id. Returns the story's
    /// annotations.
    ///
    /// # Errors
    /// Why it isn't taken.
    pub(super) async fn annotate(
        self: &Arc<Self>,
        id: TraceId,
        mark: Mark,
        sender: Sender,
    ) -> Result<proto::Annotations, OperateError> {
        // Its parts have annotations in common: those of the first one.
        let found = self.story(id).await?.ok_or(OperateError::NoStory(id))?;
        let (id, story) = (found.story.id, found.story.id.to_string());
        let first = found.story.root_cause.first();
        let first_cause = first.map(|first| first.cause.clone()).unwrap_or_default();
        let action = match mark {
            Mark::Acknowledge => Action::Acknowledge { story },
            Mark::Unacknowledge => Action::Unacknowledge { story },
            Mark::Note(text) => Action::Note { story, text },
            Mark::WrongCause(cause) => Action::WrongCause { story, cause, first_cause },
            Mark::RightCause => Action::RightCause { story, first_cause },
            Mark::UnmarkCause => Action::UnmarkCause { story },
        };
        self.keep(action, sender, clock::wall_ns()).await?;
        Ok(self.annotations().marks().of_story([id].into_iter()).unwrap_or_default())
    }

    /// Adds a silence.
    ///
    /// # Errors
    /// Why it isn't taken.
    pub(super) async fn silence(
        self: &Arc<Self>,
        silence: NewSilence,
        sender: Sender,
    ) -> Result<proto::Silence, OperateError> {
        let NewSilence { rule, key, lasts, reason } = silence;
        let invalid = |name, cause: &str| InvalidParameter { name, cause: cause.into() };
        if lasts.is_zero() || lasts > MAX_SILENCE {
            return Err(invalid("for", "must be greater than zero, and at most a year").into());
        }
        if rule.is_empty() {
            return Err(invalid("rule", "is empty").into());
        }
        let now_ns = clock::wall_ns();
        let until_ns = now_ns.saturating_add(lasts.as_nanos() as u64);
        let hash = stable_hash(&[&now_ns.to_be_bytes(), rule.as_bytes()]);
        let id: String = hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        let action = Action::Silence { id: id.clone(), rule, key, until_ns, reason };
        self.keep(action, sender, now_ns).await?;
        let in_force = self.annotations().marks().silences(now_ns);
        let added = in_force.into_iter().find(|silence| silence.id == id);
        added.ok_or_else(|| OperateError::Failed(format!("silence {id} has ended already")))
    }

    /// Ends a silence.
    ///
    /// # Errors
    /// Why it isn't ended.
    pub(super) async fn unsilence(
        self: &Arc<Self>,
        id: String,
        sender: Sender,
    ) -> Result<(), OperateError> {
        self.keep(Action::Unsilence { id }, sender, clock::wall_ns()).await
    }

    /// The silences in force.
    pub(super) fn silences(&self) -> Vec<proto::Silence> {
        self.annotations().marks().silences(clock::wall_ns())
    }

    /// Keeps an action.
    async fn keep(
        self: &Arc<Self>,
        action: Action,
        sender: Sender,
        time_ns: u64,
    ) -> Result<(), OperateError> {
        let entry = Arc::new(Entry { time_ns, by: sender.name(), action });
        let (shared, new) = (Arc::clone(self), Entry::clone(&entry));
        // The disk is waited for: not on the thread of ingest.
        let added = tokio::task::spawn_blocking(move || shared.annotations().add(new)).await;
        let failed = |cause: String| OperateError::Failed(cause);
        added.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))??;
        // Without a stream nobody receives it.
        let _ = self.annotated.send(entry);
        Ok(())
    }
}
