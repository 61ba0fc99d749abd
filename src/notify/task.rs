//! The task of a receiver: reads stories, keeps what waits, sends one request at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::checkpoint::StateFile;
use super::config::ReceiverConfig;
use super::dead_letters::DeadLetters;
use super::feed::{Feed, Revisions};
use super::ledger::{Context, Ledger};
use super::log::StoryLog;
use super::notification::{Content, Notification, Occasion};
use super::notified_story::Phase;
use super::outbox::Waiting;
use super::rate::Bucket;
use super::receiver::{Answer, Answering, Receiver};
use super::stats::ReceiverStats;
use crate::store::FramePosition;
use tapio_core::backoff::Backoff;
use tapio_core::clock;
use tapio_wire::PostFailure;

/// Upper bound of the pause before the first retry, and of any.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(60);
/// Interval at which updates, silences and windows are looked at while there are any.
const TICK: Duration = Duration::from_millis(250);
/// Interval at which the position is moved past batches without stories.
const IDLE: Duration = Duration::from_secs(5);
/// Pause after the log couldn't be read.
const READ_RETRY: Duration = Duration::from_secs(5);
/// Time for a request that is under way when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// A state of at most so many stories and notifications is written after each one that was taken: a
/// kill then repeats one. For a larger one that would cost too much.
const SMALL_STATE: usize = 500;
/// Interval at which other changes are written: what is read again gives the same notifications.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// The parts that a task is started with.
pub(super) struct Parts {
    pub(super) config: ReceiverConfig,
    pub(super) cluster: String,
    pub(super) receiver: Arc<dyn Receiver>,
    pub(super) stats: Arc<ReceiverStats>,
    pub(super) log: Arc<dyn StoryLog>,
    pub(super) file: StateFile,
    pub(super) dead_letters: DeadLetters,
    /// Differs between receivers.
    pub(super) seed: u64,
}

/// A request that is under way.
struct Job {
    /// The notification and its form that is sent; `None`: open stories are sent again.
    waiting: Option<(Waiting, Notification)>,
    answering: Answering,
}

/// The task of a receiver.
pub(super) struct Task {
    parts: Parts,
    feed: Feed,
    ledger: Ledger,
    /// The position behind the stories that the ledger has taken.
    taken: FramePosition,
    bucket: Bucket,
    backoff: Backoff,
    /// No request is sent before.
    not_before: Instant,
    /// The log isn't read before.
    read_at: Instant,
    refreshed: Instant,
    saved: Instant,
    /// The position that is in the file.
    saved_position: FramePosition,
    /// Whether the file is behind.
    is_dirty: bool,
    /// Whether a notification was taken that the file has as waiting.
    is_sent: bool,
}

impl Task {
    /// Reads the receiver's state. Without one it begins with stories from now on.
    pub(super) fn new(parts: Parts) -> std::io::Result<Self> {
        let saved = parts.file.read()?;
        let now = clock::instant();
        let from = saved.as_ref().map(|saved| saved.position());
        let feed = Feed::new(Arc::clone(&parts.log), from);
        let ledger = saved.map_or_else(|| Ledger::new(clock::wall_ns()), |saved| saved.ledger);
        let taken = feed.position();
        // Also a first start: the next one goes on here.
        parts.file.write(taken, &ledger)?;
        Ok(Self {
            feed,
            ledger,
            taken,
            bucket: Bucket::new(parts.config.rate_limit, now),
            backoff: Backoff::new(FIRST_RETRY, MAX_RETRY).with_jitter(parts.seed),
            not_before: now,
            read_at: now,
            // Open stories are sent again at once.
            refreshed: now.checked_sub(Duration::from_secs(24 * 3_600)).unwrap_or(now),
            saved: now,
            saved_position: taken,
            is_dirty: false,
            is_sent: false,
            parts,
        })
    }

    /// Runs until the server stops.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut job: Option<Job> = None;
        loop {
            self.tick();
            if job.is_none() {
                job = self.next_job();
            }
            self.save_if_due();
            let wait = self.wait(job.is_some());
            let may_read = self.ledger.outbox.has_room() && clock::instant() >= self.read_at;
            let answer = async {
                match &mut job {
                    Some(job) => (&mut job.answering).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = stop.wait_for(|is_stopped| *is_stopped) => break,
                answer = answer => {
                    if let Some(job) = job.take() {
                        self.answered(job, answer);
                    }
                }
                revisions = self.feed.next(), if may_read => self.take(revisions),
                () = tokio::time::sleep(wait) => {}
            }
        }
        if let Some(job) = job {
            let Job { waiting, answering } = job;
            if let Ok(answer) = tokio::time::timeout(STOP_GRACE, answering).await {
                self.answered(Job { waiting, answering: Box::pin(std::future::pending()) }, answer);
            }
        }
        self.save();
    }

    /// Calls a step of the ledger.
    fn step<T>(&mut self, step: impl FnOnce(&mut Ledger, &Context<'_>) -> T) -> T {
        let Parts { config, receiver, stats, log, .. } = &self.parts;
        let context = Context {
            config,
            counters: &stats.counters,
            marks: &|story| log.marks(story),
            takes_updates: receiver.takes_updates(),
            now_ns: clock::wall_ns(),
        };
        step(&mut self.ledger, &context)
    }

    fn take(&mut self, read: Result<Revisions, String>) {
        let revisions = match read {
            Ok(revisions) => revisions,
            Err(cause) => {
                let receiver = &self.parts.config.name;
                tracing::error!(receiver, cause, "notify: can't read the log; it is tried again");
                self.read_at = clock::instant() + READ_RETRY;
                return;
            }
        };
        if revisions.has_gap {
            self.parts.stats.counters.gaps.add(1);
            tracing::error!(
                receiver = self.parts.config.name,
                "notify: a part of the log was retired before it was read; its stories have no \
                 notification"
            );
        }
        for revision in &revisions.revisions {
            self.step(|ledger, context| ledger.take(revision, context));
        }
        self.taken = revisions.end;
        self.is_dirty = true;
    }

    fn tick(&mut self) {
        let before = self.ledger.outbox.len();
        self.step(Ledger::tick);
        self.is_dirty |= self.ledger.outbox.len() != before;
        if self.ledger.outbox.has_room() {
            self.feed.advance();
            self.taken = self.taken.max(self.feed.position());
        }
        let counters = &self.parts.stats.counters;
        counters.queue.set(self.ledger.outbox.len() as u64);
        counters.open.set(self.ledger.open() as u64);
        self.parts.stats.set_oldest(self.ledger.outbox.first().map(|first| first.time_ns));
    }

    /// The time after which there may be something to do.
    fn wait(&mut self, has_job: bool) -> Duration {
        let now = clock::instant();
        let is_pending = self.step(|ledger, context| ledger.is_pending(context));
        let mut wait = if is_pending { TICK } else { IDLE };
        if has_job {
            return wait;
        }
        if self.ledger.outbox.first().is_some() {
            let limit = self.bucket.wait(now);
            wait = wait.min(self.not_before.saturating_duration_since(now).max(limit));
        }
        if let Some(interval) = self.parts.receiver.refresh_interval() {
            let since = now.saturating_duration_since(self.refreshed);
            let pause = self.not_before.saturating_duration_since(now);
            wait = wait.min(interval.saturating_sub(since).max(pause));
        }
        wait.max(Duration::from_millis(1))
    }

    /// The next request, if one is due.
    fn next_job(&mut self) -> Option<Job> {
        let now = clock::instant();
        if now < self.not_before {
            return None;
        }
        let receiver = Arc::clone(&self.parts.receiver);
        if let Some(interval) = receiver.refresh_interval()
            && now.saturating_duration_since(self.refreshed) >= interval
        {
            self.refreshed = now;
            let open = self.open_notifications();
            // The interval limits these: they have no part of `rate_limit`.
            if !open.is_empty() {
                return Some(Job { waiting: None, answering: receiver.refresh(open) });
            }
        }
        if !self.bucket.wait(now).is_zero() {
            return None;
        }
        loop {
            let waiting = self.ledger.outbox.first()?.clone();
            let Some(notification) = self.notification(&waiting) else {
                // Its text was changed on disk.
                self.ledger.given_up(&waiting, clock::wall_ns());
                continue;
            };
            self.bucket.take();
            let answering = receiver.send(notification.clone());
            return Some(Job { waiting: Some((waiting, notification)), answering });
        }
    }

    /// Open stories as they are sent again.
    fn open_notifications(&self) -> Vec<Notification> {
        let is_sent = |known: &&super::notified_story::NotifiedStory| {
            known.phase == Phase::Open && known.reference.is_some()
        };
        let open = self.ledger.known.iter().filter(is_sent).filter_map(|known| {
            let waiting = Waiting {
                id: String::new(),
                occasion: Occasion::Updated,
                key: known.key.clone(),
                time_ns: clock::wall_ns(),
                story: known.story.as_ref()?.json().to_string(),
                digest: None,
            };
            self.notification(&waiting)
        });
        open.collect()
    }

    fn notification(&self, waiting: &Waiting) -> Option<Notification> {
        let Parts { config, cluster, log, .. } = &self.parts;
        let mut link = String::new();
        let content = match &waiting.digest {
            Some(digest) => Content::Digest(digest.clone()),
            None => {
                let story = Box::new(waiting.story()?);
                let marks = log.marks(&story);
                link = config.link.replace("{id}", &story.id.to_string());
                link = link.replace("{trace_id}", &story.trace_id.to_string());
                Content::Story { story, annotations: marks.annotations, silence: marks.silence }
            }
        };
        let known = self.ledger.known.iter().find(|known| known.key == waiting.key);
        let reference = known.and_then(|known| known.reference.clone());
        let is_other = |other: &super::notified_story::NotifiedStory| {
            other.phase == Phase::Open && other.key != waiting.key && other.reference == reference
        };
        let is_shared = reference.is_some() && self.ledger.known.iter().any(is_other);
        Some(Notification {
            id: waiting.id.clone(),
            occasion: waiting.occasion,
            time_ns: waiting.time_ns,
            key: waiting.key.clone(),
            node: known.map(|known| known.node().to_owned()).unwrap_or_default(),
            cluster: cluster.clone(),
            content,
            link,
            reference,
            is_shared,
            is_test: false,
        })
    }

    fn answered(&mut self, job: Job, answer: Answer) {
        let now_ns = clock::wall_ns();
        let (cause, after) = match answer {
            Ok(reference) => {
                self.succeeded();
                if let Some((waiting, _)) = job.waiting {
                    self.parts.stats.counters.sent.add(1);
                    let digests = u64::from(waiting.occasion == Occasion::Digest);
                    self.parts.stats.counters.digests.add(digests);
                    self.ledger.sent(&waiting, reference, now_ns);
                    self.is_sent = true;
                }
                return;
            }
            Err(PostFailure::Refused(cause)) => (cause, None),
            Err(PostFailure::Retry { cause, after }) => (cause, Some(after)),
        };
        self.failed(&cause);
        let Some((waiting, notification)) = job.waiting else {
            self.pause(after.flatten());
            return;
        };
        let age_ns = now_ns.saturating_sub(waiting.time_ns);
        let is_last = age_ns >= self.parts.config.retry_for.as_nanos() as u64;
        match after {
            Some(after) if !is_last => self.pause(after),
            after => {
                self.parts.stats.counters.dead_letters.add(1);
                self.parts.dead_letters.add(&self.parts.config.name, &cause, now_ns, &notification);
                self.ledger.given_up(&waiting, now_ns);
                self.is_sent = true;
                if let Some(after) = after {
                    self.pause(after);
                }
            }
        }
    }

    fn succeeded(&mut self) {
        if !self.backoff.is_reset() {
            self.backoff.reset();
            let receiver = &self.parts.config.name;
            tracing::info!(receiver, "notify: the receiver takes notifications again");
        }
        self.parts.stats.set_last_error("");
    }

    fn failed(&mut self, cause: &str) {
        self.parts.stats.counters.failed.add(1);
        self.parts.stats.set_last_error(cause);
        if self.backoff.is_reset() {
            tracing::warn!(
                receiver = self.parts.config.name,
                cause,
                "notify: a request failed; further failures in a row are only counted"
            );
        }
    }

    /// Waits before the next request, at least for as long as the receiver asks for.
    fn pause(&mut self, after: Option<Duration>) {
        let pause = self.backoff.next_pause().max(after.unwrap_or_default());
        self.not_before = clock::instant() + pause;
    }

    fn save_if_due(&mut self) {
        let is_small = self.ledger.known.len() + self.ledger.outbox.len() < SMALL_STATE;
        let age = self.saved.elapsed();
        let is_behind = self.is_dirty || self.is_sent;
        let has_moved = self.taken != self.saved_position && age >= 2 * IDLE;
        if (self.is_sent && is_small) || (is_behind && age >= SAVE_INTERVAL) || has_moved {
            self.save();
        }
    }

    fn save(&mut self) {
        self.saved = clock::instant();
        self.saved_position = self.taken;
        (self.is_dirty, self.is_sent) = (false, false);
        if let Err(error) = self.parts.file.write(self.taken, &self.ledger) {
            let receiver = &self.parts.config.name;
            tracing::error!(
                receiver, %error,
                "notify: can't keep how far a receiver is; after a restart it gets notifications again"
            );
        }
    }
}
