//! The open-loop generator of OTLP/gRPC log requests.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::uri::PathAndQuery;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::bitmap::Bitmap;
use super::sink::SharedArrivals;
use super::template::{Template, TemplateConfig, templates};
use crate::timer::FineTimer;
use tapio_core::clock;
use tapio_wire::{OtlpExported, OtlpResponse};

/// Name of the generator's thread, by which its CPU time is found.
pub const GENERATOR_THREAD: &str = "generator";
/// Pause before a refused request is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Distinct causes of refusals that are counted apart; the others are counted together.
const MAX_CAUSES: usize = 16;
const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// The load to send.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OtlpLoad {
    /// Port of the receiver on the loopback interface.
    pub port: u16,
    /// Records per second; `None`: as many as the receiver takes.
    pub rate: Option<u64>,
    /// Records per request.
    pub batch_records: usize,
    /// TCP connections.
    pub connections: usize,
    /// Requests in flight per connection.
    pub streams: usize,
    /// The share of records that are relevant to a generated rule, 0 to 1.
    pub match_share: f64,
    /// Number of distinct values of the generated rules' key.
    pub keys: u64,
    /// Time before the measured time.
    pub warm_up: Duration,
    /// The measured time.
    pub duration: Duration,
    /// How long requests that are behind their schedule are sent after the measured time.
    pub drain: Duration,
    /// Whether a refused request is sent again until it is accepted.
    pub retries: bool,
}

impl OtlpLoad {
    /// Requests of the schedule; `None` without one.
    fn requests(&self) -> Option<u64> {
        let seconds = (self.warm_up + self.duration).as_secs_f64();
        let of_rate = |rate: u64| (rate as f64 * seconds / self.batch_records as f64).ceil() as u64;
        self.rate.map(of_rate)
    }
}

/// Result of the generator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// Records that were due, sent or not.
    pub offered: u64,
    /// Records of accepted requests.
    pub accepted: u64,
    /// Records of requests that the receiver refused, or that failed.
    pub refused: u64,
    /// Records of requests that weren't answered within the time.
    pub unanswered: u64,
    /// Records that the receiver refused of accepted requests.
    pub rejected: u64,
    /// Records that were due and weren't sent within the time.
    pub unsent: u64,
    /// Requests that were sent again.
    pub retries: u64,
    /// The longest time that a request was behind its schedule when it was sent. Delays include it.
    pub max_behind_ns: u64,
    /// Requests that failed, by cause, also those that were accepted when they were sent again.
    pub failures: BTreeMap<String, u64>,
}

/// Times of a run, wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunTimes {
    /// When the first request is due.
    pub start_ns: u64,
    /// Start of the measured time.
    pub from_ns: u64,
    /// End of the measured time.
    pub to_ns: u64,
}

impl RunTimes {
    /// A run that starts now.
    pub(super) fn of(load: &OtlpLoad) -> Self {
        let start_ns = clock::wall_ns();
        let from_ns = start_ns + load.warm_up.as_nanos() as u64;
        Self { start_ns, from_ns, to_ns: from_ns + load.duration.as_nanos() as u64 }
    }

    /// The measured time.
    pub(super) fn window(&self) -> Range<u64> {
        self.from_ns..self.to_ns
    }
}

/// The requests that were accepted, readable while the generator runs.
#[derive(Debug, Default)]
pub(super) struct Accepted {
    requests: Bitmap,
    /// Requests taken from the schedule.
    taken: u64,
    records_per_request: u64,
}

impl Accepted {
    /// The ranges of the accepted records' sequence numbers.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let n = self.records_per_request;
        let is_accepted = |request: &u64| self.requests.count_in(*request..request + 1) == 1;
        (0..self.taken).filter(is_accepted).map(move |request| request * n..(request + 1) * n)
    }
}

/// The parts of a run that the generator shares with others.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) arrivals: SharedArrivals,
    pub(super) accepted: Arc<std::sync::Mutex<Accepted>>,
    /// Ends the run early.
    pub(super) stop: Arc<AtomicBool>,
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Sends the load. Returns once every request is answered or the time for that is over.
///
/// # Errors
/// When the receiver can't be connected to, or a runtime or timer can't be created.
pub(super) fn run(load: &OtlpLoad, times: RunTimes, shared: Shared) -> io::Result<Sent> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, send_all(load.clone(), times, shared))
}

/// State of the senders, which run on one thread.
struct Senders {
    load: OtlpLoad,
    times: RunTimes,
    shared: Shared,
    templates: Vec<Arc<Template>>,
    /// Requests that are due.
    due: Semaphore,
    next: Cell<u64>,
    sent: RefCell<Sent>,
}

async fn send_all(load: OtlpLoad, times: RunTimes, shared: Shared) -> io::Result<Sent> {
    let config = TemplateConfig {
        records: load.batch_records,
        match_share: load.match_share,
        keys: load.keys,
    };
    lock(&shared.accepted).records_per_request = load.batch_records as u64;
    let mut channels = Vec::new();
    for _ in 0..load.connections.max(1) {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", load.port));
        let endpoint = endpoint.map_err(io::Error::other)?.tcp_nodelay(true);
        channels.push(endpoint.connect().await.map_err(io::Error::other)?);
    }
    let senders = Rc::new(Senders {
        templates: templates(&config).into_iter().map(Arc::new).collect(),
        times,
        shared,
        due: Semaphore::new(0),
        next: Cell::new(0),
        sent: RefCell::default(),
        load,
    });
    let mut tasks = tokio::task::JoinSet::new();
    for channel in &channels {
        for _ in 0..senders.load.streams.max(1) {
            let (senders, channel) = (Rc::clone(&senders), channel.clone());
            tasks.spawn_local(async move { senders.send_requests(Grpc::new(channel)).await });
        }
    }
    if let Some(requests) = senders.load.requests() {
        senders.follow_schedule(requests).await?;
    }
    let after = Duration::from_nanos(times.to_ns.saturating_sub(clock::wall_ns()));
    let last = async { while tasks.join_next().await.is_some() {} };
    // Requests that aren't answered by then are refused or unsent.
    let _ = tokio::time::timeout(after + senders.load.drain, last).await;
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    Ok(senders.finish())
}

impl Senders {
    /// When a request is due.
    fn due_ns(&self, request: u64) -> u64 {
        match self.load.rate {
            Some(rate) => {
                let after = request as f64 * self.load.batch_records as f64 * 1e9 / rate as f64;
                self.times.start_ns + after as u64
            }
            None => clock::wall_ns(),
        }
    }

    fn is_stopped(&self) -> bool {
        // Relaxed, paired with the harness's store: no other data depends on the flag.
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// Lets each request go at its time. However far the senders are behind, the schedule isn't.
    async fn follow_schedule(&self, requests: u64) -> io::Result<()> {
        let timer = FineTimer::new()?;
        for request in 0..requests {
            let wait = self.due_ns(request).saturating_sub(clock::wall_ns());
            if wait > 0 {
                timer.set(Duration::from_nanos(wait))?;
                poll_fn(|cx| timer.poll(cx)).await?;
            } else if request % 64 == 0 {
                tokio::task::yield_now().await;
            }
            if self.is_stopped() {
                break;
            }
            self.sent.borrow_mut().offered += self.load.batch_records as u64;
            self.due.add_permits(1);
        }
        self.due.close();
        Ok(())
    }

    /// Takes requests that are due, one after the other, and sends them.
    async fn send_requests(&self, mut grpc: Grpc<Channel>) {
        loop {
            match self.load.rate {
                Some(_) => match self.due.acquire().await {
                    Ok(permit) => permit.forget(),
                    // Closed: those that are due but not taken are left.
                    Err(_) if self.is_left() => {}
                    Err(_) => return,
                },
                None if clock::wall_ns() >= self.times.to_ns || self.is_stopped() => return,
                None => self.sent.borrow_mut().offered += self.load.batch_records as u64,
            }
            let request = self.next.get();
            self.next.set(request + 1);
            self.send(&mut grpc, request).await;
        }
    }

    /// Whether requests are due that no sender has taken.
    fn is_left(&self) -> bool {
        let taken = self.next.get() * self.load.batch_records as u64;
        taken < self.sent.borrow().offered && !self.is_stopped()
    }

    async fn send(&self, grpc: &mut Grpc<Channel>, request: u64) {
        let template = &self.templates[request as usize % self.templates.len()];
        let records = template.records();
        let due_ns = self.due_ns(request);
        if self.load.rate.is_some() {
            let behind = clock::wall_ns().saturating_sub(due_ns);
            let mut sent = self.sent.borrow_mut();
            sent.max_behind_ns = sent.max_behind_ns.max(behind);
        }
        lock(&self.shared.arrivals).offer((request + 1) * records);
        lock(&self.shared.accepted).taken = self.next.get();
        loop {
            let message =
                Patched { template: Arc::clone(template), due_ns, sequence: request * records };
            match self.export(grpc, message).await {
                Ok(taken) => {
                    let mut accepted = lock(&self.shared.accepted);
                    accepted.requests.insert(request);
                    let mut sent = self.sent.borrow_mut();
                    sent.accepted += records;
                    sent.rejected += taken.rejected;
                    return;
                }
                Err(status) => self.note_failure(&status),
            }
            if !self.load.retries || self.is_stopped() {
                self.sent.borrow_mut().refused += records;
                return;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            self.sent.borrow_mut().retries += 1;
        }
    }

    async fn export(
        &self,
        grpc: &mut Grpc<Channel>,
        message: Patched,
    ) -> Result<OtlpExported, Status> {
        grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let request = tonic::Request::new(message);
        let path = PathAndQuery::from_static(EXPORT);
        Ok(grpc.unary(request, path, PatchedCodec).await?.into_inner().into())
    }

    fn note_failure(&self, status: &Status) {
        let mut sent = self.sent.borrow_mut();
        let cause = match (status.code(), status.message()) {
            (code, "") => format!("{code:?}"),
            (code, message) => format!("{code:?}: {message}"),
        };
        let is_full = sent.failures.len() >= MAX_CAUSES && !sent.failures.contains_key(&cause);
        let cause = if is_full { format!("{:?}", Code::Unknown) } else { cause };
        *sent.failures.entry(cause).or_default() += 1;
    }

    /// The result. The delay of a record that was due and wasn't sent isn't shorter than until now.
    fn finish(&self) -> Sent {
        let mut sent = self.sent.take();
        let records = self.load.batch_records as u64;
        let (taken, now_ns) = (self.next.get(), clock::wall_ns());
        if self.load.rate.is_some() {
            let mut arrivals = lock(&self.shared.arrivals);
            for request in taken..sent.offered / records {
                arrivals.record(self.due_ns(request), now_ns, records);
            }
        }
        // In flight when the time was over: whether they were accepted is unknown.
        sent.unanswered = (taken * records).saturating_sub(sent.accepted + sent.refused);
        sent.unsent = sent.offered.saturating_sub(taken * records);
        sent
    }
}

/// A request to encode.
struct Patched {
    template: Arc<Template>,
    due_ns: u64,
    sequence: u64,
}

/// Codec of patched templates.
#[derive(Clone, Copy, Debug)]
struct PatchedCodec;

impl Codec for PatchedCodec {
    type Encode = Patched;
    type Decode = OtlpResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for PatchedCodec {
    type Item = Patched;
    type Error = Status;

    fn encode(&mut self, request: Patched, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(request.template.len_bytes());
        request.template.write(request.due_ns, request.sequence, to);
        Ok(())
    }
}

impl Decoder for PatchedCodec {
    type Item = OtlpResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<OtlpResponse>, Status> {
        let decoded = prost::Message::decode(from);
        decoded.map(Some).map_err(|e| Status::internal(format!("invalid response: {e}")))
    }
}
