//! An open-loop load generator, safe from coordinated omission: events are due by a schedule, not
//! by what the target has managed so far, and each carries the time at which it was *due*. A
//! target that stalls for a second therefore shows a second of delay in all events of that second.

mod template;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::timer::FineTimer;
use tapio_core::clock;
use tapio_core::shutdown::Shutdown;
use tapio_wire::proto::Ack;
use tapio_wire::{Line, LineConfig, LineError, NotSent};
use template::{Template, templates};

pub use template::{TYPICAL_ENTITIES, TYPICAL_MESSAGE, typical_fields};

/// At most so many bytes wait for acks. Where the target is that far behind, sending waits; the
/// events' times don't.
const MOST_UNACKED_BYTES: usize = 64 * 1024 * 1024;
/// Batches that wait for acks where there is no schedule.
const UNSCHEDULED_BATCHES: usize = 16;
/// Events of a batch where there is no schedule.
const UNSCHEDULED_EVENTS: u64 = 1_000;
/// Batches a second where the schedule doesn't say.
const BATCHES_A_SECOND: u64 = 2_000;

/// What to send.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadConfig {
    /// An agent's receiver or a server: `host:port`.
    pub target: String,
    /// Events a second; `None`: as many as the target takes.
    pub rate: Option<u64>,
    /// How long.
    pub duration: Duration,
    /// Kinds that rules are meant to want, sent in turn.
    pub kinds: Vec<String>,
    /// The share of events that are of these kinds, 0 to 1; the others are `load.event`.
    pub match_share: f64,
    /// Distinct pods that the events are of.
    pub keys: u64,
    /// Events sent, and due, together; `None`: what makes 2,000 batches a second, at least 16.
    pub batch_events: Option<u64>,
    /// The node's name.
    pub node: String,
    /// How long to wait for the last acks.
    pub ack_timeout: Duration,
}

impl Default for LoadConfig {
    fn default() -> Self {
        Self {
            target: "127.0.0.1:7602".into(),
            rate: None,
            duration: Duration::from_secs(10),
            kinds: Vec::new(),
            match_share: 0.0,
            keys: 1_000,
            batch_events: None,
            node: "load".into(),
            ack_timeout: Duration::from_secs(30),
        }
    }
}

/// What was sent and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LoadReport {
    /// Events sent.
    pub offered: u64,
    /// Events the target has acknowledged.
    pub acked: u64,
    /// Events in batches the target refused.
    pub refused: u64,
    /// From the first event to the last ack.
    pub seconds: f64,
    /// CPU time of this process meanwhile.
    pub cpu_seconds: f64,
    /// The longest time by which a batch was sent later than it was due. It is in the events'
    /// delays, as it should be; where it is large, the generator itself was short of CPU, or the
    /// target took nothing.
    pub most_behind_ns: u64,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The target can't be reached.
    #[error(transparent)]
    Target(#[from] LineError),
    /// The target broke off.
    #[error("the target broke off after {acked} of {offered} events were acknowledged: {cause}")]
    BrokeOff {
        /// Events sent until then.
        offered: u64,
        /// Events acknowledged until then.
        acked: u64,
        /// What the line says.
        cause: String,
    },
    /// The last acks didn't come.
    #[error("{acked} of {offered} events were acknowledged in time")]
    Unacknowledged {
        /// Events sent.
        offered: u64,
        /// Events acknowledged.
        acked: u64,
    },
    /// A setting can't work.
    #[error("{0}")]
    Setting(String),
    /// The system gives no timer or runtime.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Sends the load and waits for its acks; ends earlier when `stop` is set.
///
/// # Errors
/// When the target can't be reached, breaks off, or doesn't acknowledge everything in time.
pub fn run(config: &LoadConfig, shutdown: &Shutdown) -> Result<LoadReport, LoadError> {
    let setting = |text: &str| Err(LoadError::Setting(text.into()));
    if config.rate == Some(0) {
        return setting("rate: must be at least 1 event a second");
    }
    if config.keys == 0 || config.keys > u64::from(u32::MAX) {
        return setting("keys: must be between 1 and 4294967295");
    }
    if config.batch_events.is_some_and(|n| n == 0 || n > 16_384) {
        return setting("batch_events: must be between 1 and 16384");
    }
    if config.node.len() > 255 {
        return setting("node: is longer than 255 bytes");
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async { Generator::connect(config).await?.run(config, shutdown).await })
}

/// When batches are due.
#[derive(Clone, Copy)]
struct Schedule {
    start: Instant,
    start_wall_ns: u64,
    /// Nanoseconds from batch to batch; `None`: none is due before the last was sent.
    interval_ns: Option<f64>,
}

impl Schedule {
    /// When a batch is due: for the timer, and for its events.
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
    line: Line,
    timer: FineTimer,
    epoch: u64,
    /// End sequence, events and bytes of what isn't acknowledged.
    unacked: VecDeque<(u64, u64, usize)>,
    unacked_bytes: usize,
    broken: Option<String>,
    report: LoadReport,
}

impl Generator {
    async fn connect(config: &LoadConfig) -> Result<Self, LoadError> {
        Ok(Self {
            line: Line::connect(&LineConfig::to(&config.target)).await?,
            timer: FineTimer::new()?,
            epoch: clock::wall_ns(),
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            broken: None,
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
                let usual = (rate / BATCHES_A_SECOND).clamp(16, 4_096);
                let total = (rate as f64 * config.duration.as_secs_f64()).round() as u64;
                (config.batch_events.unwrap_or(usual), Some(total))
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
            if shutdown.is_requested() {
                break;
            }
            self.send(template, schedule, n, config.keys).await?;
        }
        self.last_acks(config.ack_timeout).await?;
        self.report.seconds = (clock::instant() - start).as_secs_f64();
        self.report.cpu_seconds = clock::process_cpu().saturating_sub(cpu).as_secs_f64();
        Ok(self.report)
    }

    /// Sends a batch when it is due and the target has room.
    async fn send(
        &mut self,
        template: &Template,
        schedule: Schedule,
        n: u64,
        keys: u64,
    ) -> Result<(), LoadError> {
        let (most_batches, most_bytes) = match schedule.interval_ns {
            Some(_) => (usize::MAX, MOST_UNACKED_BYTES),
            None => (UNSCHEDULED_BATCHES, MOST_UNACKED_BYTES),
        };
        let due = schedule.start.max(schedule.due(n).0);
        self.wait_until(due).await?;
        while self.unacked.len() >= most_batches || self.unacked_bytes >= most_bytes {
            self.wait_for_ack().await?;
        }
        let (due, time_ns) = schedule.due(n);
        if schedule.interval_ns.is_some() {
            let behind = clock::instant().saturating_duration_since(due).as_nanos() as u64;
            self.report.most_behind_ns = self.report.most_behind_ns.max(behind);
        }
        let batch = template.batch(self.report.offered, time_ns, keys);
        loop {
            match self.line.send_framed(batch.clone()) {
                Ok(()) => break,
                // A broken line says why where its acks would come.
                Err(NotSent::Full | NotSent::Broken) => self.wait_for_ack().await?,
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

    fn check(&mut self) -> Result<(), LoadError> {
        match self.broken.take() {
            None => Ok(()),
            Some(cause) => Err(LoadError::BrokeOff {
                offered: self.report.offered,
                acked: self.report.acked,
                cause,
            }),
        }
    }

    /// Takes acks in; returns whether there was one.
    fn poll_acks(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while self.broken.is_none() {
            match self.line.poll_ack(cx) {
                Poll::Ready(Ok(ack)) => self.on_ack(&ack),
                Poll::Ready(Err(cause)) => self.broken = Some(cause),
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
            if self.broken.is_some() {
                return Poll::Ready(Ok(()));
            }
            self.timer.poll(cx)
        })
        .await?;
        self.check()
    }

    async fn last_acks(&mut self, timeout: Duration) -> Result<(), LoadError> {
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
