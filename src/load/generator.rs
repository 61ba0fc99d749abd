//! The open-loop generator.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::config::LoadConfig;
use super::template::{Template, templates};
use crate::timer::FineTimer;
use tapio_core::clock;
use tapio_core::shutdown::Shutdown;
use tapio_wire::proto::Ack;
use tapio_wire::{
    ConnectError, Dialer, IngestClient, IngestClientConfig, MAX_NODE_BYTES, SendError,
};

/// How long a generator that is to end waits for acks.
const SHUTDOWN_ACK_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum of unacknowledged bytes. A target that is so far behind delays sending, but not the
/// events' times.
const MAX_UNACKED_BYTES: usize = 64 * 1024 * 1024;
/// Maximum of unacknowledged batches without a schedule.
const UNSCHEDULED_BATCHES: usize = 16;
/// Events per batch without a schedule.
const UNSCHEDULED_EVENTS: u64 = 1_000;
/// Default number of batches per second of a schedule.
const BATCHES_PER_SECOND: u64 = 2_000;

/// Result of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LoadReport {
    /// Events sent.
    pub offered: u64,
    /// Events acknowledged by the target.
    pub acked: u64,
    /// Events in batches that the target refused.
    pub refused: u64,
    /// Time from the first event to the last ack.
    pub seconds: f64,
    /// CPU time of this process in that time.
    pub cpu_seconds: f64,
    /// The longest delay of a batch behind its schedule. The events' delays include it, as they
    /// should. A large one means that the generator lacked CPU or that the target accepted nothing.
    pub max_behind_ns: u64,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The target can't be reached.
    #[error(transparent)]
    Target(#[from] ConnectError),
    /// The target closed the stream.
    #[error(
        "the target closed the stream after {acked} of {offered} events were acknowledged: {cause}"
    )]
    Disconnected {
        /// Events sent until then.
        offered: u64,
        /// Events acknowledged until then.
        acked: u64,
        /// The cause.
        cause: String,
    },
    /// The last acks didn't arrive in time.
    #[error("only {acked} of {offered} events were acknowledged in time")]
    Unacknowledged {
        /// Events sent.
        offered: u64,
        /// Events acknowledged.
        acked: u64,
    },
    /// An invalid setting.
    #[error("{0}")]
    Setting(String),
    /// A timer or runtime can't be created.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Sends the load and waits for its acks. Ends early when shutdown is requested.
///
/// # Errors
/// When the target can't be reached, closes the stream, or doesn't acknowledge everything in time.
pub fn run(config: &LoadConfig, shutdown: &Shutdown) -> Result<LoadReport, LoadError> {
    let setting = |text: &str| Err(LoadError::Setting(text.into()));
    if config.rate == Some(0) {
        return setting("rate: must be at least 1 event per second");
    }
    if config.keys == 0 || config.keys > u64::from(u32::MAX) {
        return setting("keys: must be between 1 and 4294967295");
    }
    if config.batch_events.is_some_and(|n| n == 0 || n > 16_384) {
        return setting("batch_events: must be between 1 and 16384");
    }
    if config.node.len() > MAX_NODE_BYTES {
        return setting("node: must not be longer than 255 bytes");
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async { Generator::connect(config).await?.run(config, shutdown).await })
}

/// Times at which batches are due.
#[derive(Clone, Copy)]
struct Schedule {
    start: Instant,
    start_wall_ns: u64,
    /// Nanoseconds between batches; `None`: a batch is due once the one before was sent.
    interval_ns: Option<f64>,
}

impl Schedule {
    /// When a batch is due: the instant for the timer, and the time for its events.
    fn due(&self, batch: u64) -> (Instant, u64) {
        match self.interval_ns {
            Some(interval) => {
                let after_ns = (batch as f64 * interval) as u64;
                let due = self.start + Duration::from_nanos(after_ns);
                (due, self.start_wall_ns + after_ns)
            }
            None => (self.start, clock::wall_ns()),
        }
    }
}

struct Generator {
    client: IngestClient,
    timer: FineTimer,
    epoch: u64,
    /// End sequence, events and bytes of unacknowledged batches.
    unacked: VecDeque<(u64, u64, usize)>,
    unacked_bytes: usize,
    /// Why the stream was closed.
    closed: Option<String>,
    report: LoadReport,
}

impl Generator {
    async fn connect(config: &LoadConfig) -> Result<Self, LoadError> {
        let dialer = Dialer::new(&config.access, [config.target.as_str()])
            .map_err(|e| LoadError::Setting(e.to_string()))?;
        let target = IngestClientConfig { dialer, ..IngestClientConfig::to(&config.target) };
        Ok(Self {
            client: IngestClient::connect(&target).await?,
            timer: FineTimer::new()?,
            epoch: clock::wall_ns(),
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            closed: None,
            report: LoadReport::default(),
        })
    }

    async fn run(
        mut self,
        config: &LoadConfig,
        shutdown: &Shutdown,
    ) -> Result<LoadReport, LoadError> {
        let (batch_events, total) = match config.rate {
            Some(rate) => {
                let default = (rate / BATCHES_PER_SECOND).clamp(16, 4_096);
                let total = (rate as f64 * config.duration.as_secs_f64()).round() as u64;
                (config.batch_events.unwrap_or(default), Some(total))
            }
            None => (config.batch_events.unwrap_or(UNSCHEDULED_EVENTS), None),
        };
        let last_events = total.map_or(0, |total| total % batch_events);
        let (full, last) = templates(config, self.epoch, batch_events, last_events)
            .map_err(|e| LoadError::Setting(format!("kinds: {e}")))?;
        let cpu = clock::process_cpu();
        let start = clock::instant();
        let schedule = Schedule {
            start,
            start_wall_ns: clock::wall_ns(),
            interval_ns: config.rate.map(|r| batch_events as f64 * 1e9 / r as f64),
        };
        let end = start + config.duration;
        let sending = async {
            for n in 0.. {
                let template = match total {
                    Some(total) if self.report.offered >= total => break,
                    Some(total) if total - self.report.offered < batch_events => match &last {
                        Some(last) => last,
                        None => break,
                    },
                    Some(_) => &full[n as usize % full.len()],
                    None if clock::instant() >= end => break,
                    None => &full[n as usize % full.len()],
                };
                self.send(template, schedule, n, config.keys).await?;
            }
            Ok::<(), LoadError>(())
        };
        // A target that stalls keeps the sender waiting: the request must end that, too.
        let ack_timeout = tokio::select! {
            sent = sending => sent.map(|()| config.ack_timeout)?,
            () = shutdown.requested() => config.ack_timeout.min(SHUTDOWN_ACK_TIMEOUT),
        };
        self.wait_for_last_acks(ack_timeout).await?;
        self.report.seconds = (clock::instant() - start).as_secs_f64();
        self.report.cpu_seconds = clock::process_cpu().saturating_sub(cpu).as_secs_f64();
        Ok(self.report)
    }

    /// Sends a batch when it is due and few enough bytes are unacknowledged.
    async fn send(
        &mut self,
        template: &Template,
        schedule: Schedule,
        n: u64,
        keys: u64,
    ) -> Result<(), LoadError> {
        let (max_batches, max_bytes) = match schedule.interval_ns {
            Some(_) => (usize::MAX, MAX_UNACKED_BYTES),
            None => (UNSCHEDULED_BATCHES, MAX_UNACKED_BYTES),
        };
        let due = schedule.start.max(schedule.due(n).0);
        self.wait_until(due).await?;
        while self.unacked.len() >= max_batches || self.unacked_bytes >= max_bytes {
            self.wait_for_ack().await?;
        }
        let (due, time_ns) = schedule.due(n);
        if schedule.interval_ns.is_some() {
            let behind = clock::instant().saturating_duration_since(due).as_nanos() as u64;
            self.report.max_behind_ns = self.report.max_behind_ns.max(behind);
        }
        let batch = template.batch(self.report.offered, time_ns, keys);
        loop {
            match self.client.send_framed(batch.clone()) {
                Ok(()) => break,
                // The cause of a closed stream is reported when acks are polled.
                Err(SendError::Full | SendError::Closed) => self.wait_for_ack().await?,
            }
        }
        self.report.offered += template.events();
        let end = self.report.offered;
        self.unacked.push_back((end, template.events(), template.len_bytes()));
        self.unacked_bytes += template.len_bytes();
        if schedule.interval_ns.is_none() {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Returns the error of a closed stream.
    fn check(&mut self) -> Result<(), LoadError> {
        match self.closed.take() {
            None => Ok(()),
            Some(cause) => Err(LoadError::Disconnected {
                offered: self.report.offered,
                acked: self.report.acked,
                cause,
            }),
        }
    }

    /// Processes the acks that are ready. Returns whether there was one.
    fn poll_acks(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while self.closed.is_none() {
            match self.client.poll_ack(cx) {
                Poll::Ready(Ok(ack)) => self.on_ack(&ack),
                Poll::Ready(Err(end)) => self.closed = Some(end.message),
                Poll::Pending => break,
            }
            any = true;
        }
        any
    }

    fn on_ack(&mut self, ack: &Ack) {
        while let Some(&(end, events, bytes)) = self.unacked.front()
            && end <= ack.through
        {
            self.unacked.pop_front();
            self.report.acked += events;
            self.unacked_bytes -= bytes;
        }
        for refusal in &ack.refused {
            self.report.refused += u64::from(refusal.count);
            self.report.acked = self.report.acked.saturating_sub(u64::from(refusal.count));
        }
    }

    async fn wait_for_ack(&mut self) -> Result<(), LoadError> {
        poll_fn(|cx| match self.poll_acks(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        self.check()
    }

    async fn wait_until(&mut self, due: Instant) -> Result<(), LoadError> {
        let wait = due.saturating_duration_since(clock::instant());
        if wait.is_zero() {
            poll_fn(|cx| {
                self.poll_acks(cx);
                Poll::Ready(())
            })
            .await;
            return self.check();
        }
        self.timer.set(wait)?;
        poll_fn(|cx| {
            self.poll_acks(cx);
            if self.closed.is_some() {
                return Poll::Ready(Ok(()));
            }
            self.timer.poll(cx)
        })
        .await?;
        self.check()
    }

    async fn wait_for_last_acks(&mut self, timeout: Duration) -> Result<(), LoadError> {
        let all = async {
            while !self.unacked.is_empty() {
                self.wait_for_ack().await?;
            }
            Ok(())
        };
        match tokio::time::timeout(timeout, all).await {
            Ok(outcome) => outcome,
            Err(_) => Err(LoadError::Unacknowledged {
                offered: self.report.offered,
                acked: self.report.acked,
            }),
        }
    }
}
