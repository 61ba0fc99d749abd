//! The section `collectors.otlp` and the run loop.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;

use super::intake::{Intake, Request};
use super::servers;
use crate::events::otlp::{Answer, EventWriter};
use crate::runtime::acceptance::Ticket;
use crate::runtime::listener::ListenerSlot;
use crate::runtime::poll_timer::PollTimer;
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, factory,
    report_access,
};
use tapio_core::clock;
use tapio_wire::{
    Access, AccessConfig, ListenAddress, Listening, Right, TlsError, TlsServerConfig, bind,
};

/// Interval at which waiting answers look whether their records are accepted, besides whenever some
/// are: a shard may have dropped them.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(5);
/// Answers that wait at most; further requests stay in the queue.
const MAX_WAITING: usize = 256;
/// How long a shutdown waits for the last records to be accepted.
const FINISH_TIMEOUT: Duration = Duration::from_millis(500);
/// The thread of the listeners; the collector's own decodes.
const SERVERS_THREAD: &str = "otlp";
/// Delay until the counters of a request are published.
const REPORT_DELAY: Duration = Duration::from_millis(80);

/// The section `collectors.otlp`.
#[derive(
    Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether to run it.
    pub enabled: bool,
    /// The address of OTLP/gRPC.
    pub grpc_listen: ListenAddress,
    /// The address of OTLP/HTTP.
    pub http_listen: ListenAddress,
    /// TLS of both listeners.
    pub tls: Option<TlsServerConfig>,
    /// The file of tokens: lines `write NAME TOKEN`.
    pub token_file: Option<PathBuf>,
    /// Names that requests over HTTP may be for, besides localhost and addresses.
    pub hosts: Vec<String>,
    /// Users that may connect to a unix socket, besides root and the own one.
    pub allow_uids: Vec<u32>,
    /// Whether an address beyond loopback may do without TLS and authentication.
    pub insecure: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            grpc_listen: (Ipv4Addr::LOCALHOST, 4317).into(),
            http_listen: (Ipv4Addr::LOCALHOST, 4318).into(),
            tls: None,
            token_file: None,
            hosts: Vec::new(),
            allow_uids: Vec::new(),
            insecure: false,
        }
    }
}

impl Config {
    /// Access to the listeners.
    #[must_use]
    pub fn access_config(&self) -> AccessConfig {
        AccessConfig {
            tls: self.tls.clone(),
            token_file: self.token_file.clone(),
            hosts: self.hosts.clone(),
            allow_uids: self.allow_uids.clone(),
            insecure: self.insecure,
            ..AccessConfig::default()
        }
    }

    /// Access to the listeners of gRPC and HTTP.
    fn access(&self) -> Result<[Arc<Access>; 2], TlsError> {
        let config = self.access_config();
        let write = |_: &_, _: &str| Some(Right::Write);
        let http = Access::http("otlp.http_listen", &self.http_listen, &config, write)?;
        Ok([Access::grpc("otlp.grpc_listen", &config, write)?, http])
    }
}

// A full ring: the collector waits, and senders retry.
impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        self.enabled
    }

    // Senders retry what a kill has left unanswered.
    fn reads_again(&self) -> bool {
        true
    }

    fn has_given_times(&self) -> bool {
        true
    }

    fn busy_threads(&self) -> &'static [&'static str] {
        &["c:otlp", SERVERS_THREAD]
    }

    fn check(&self) -> Result<(), String> {
        let listeners = [("grpc_listen", &self.grpc_listen), ("http_listen", &self.http_listen)];
        self.access_config().check(&listeners)
    }

    fn factory(&self) -> CollectorFactory {
        factory((self.clone(), Listeners::default()), |(config, listeners)| Otlp {
            config,
            listeners,
        })
    }
}

/// The listeners, which outlive a run: gRPC and HTTP.
type Listeners = [ListenerSlot<Listening>; 2];

struct Otlp {
    config: Config,
    listeners: Listeners,
}

impl Collector for Otlp {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let failed = |e: std::io::Error| CollectorError::Failed(e.to_string());
        let access = self.config.access();
        let access = access.map_err(|e| CollectorError::Failed(e.to_string()))?;
        let (grpc, http) = self.listen().map_err(failed)?;
        for (name, listener) in [("grpc_listen", &grpc), ("http_listen", &http)] {
            context.report.note(name, listener.address().map_err(failed)?.to_string());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(failed)?;
        let (intake, mut requests) = Intake::new();
        let (end_servers, ended) = oneshot::channel::<()>();
        let servers = {
            // If this run is abandoned, the servers end, and the next run starts its own.
            let shutdown = context.shutdown.untracked();
            let doors = [(grpc, Arc::clone(&access[0])), (http, Arc::clone(&access[1]))];
            let placement = context.site.layout.placement(SERVERS_THREAD);
            let serve = move || {
                placement.begin(SERVERS_THREAD);
                servers::serve(doors, intake, ended, &shutdown)
            };
            std::thread::Builder::new().name(SERVERS_THREAD.into()).spawn(serve).map_err(failed)?
        };
        let ended = runtime.block_on(process_requests(&mut requests, &access, context));
        drop(end_servers);
        // Closes the queue: waiting requests are refused because of the shutdown.
        drop(requests);
        match servers.join() {
            Ok(Ok(())) => ended,
            Ok(Err(e)) => Err(CollectorError::new("OTLP server", e)),
            Err(_) => Err(CollectorError::Failed("OTLP server panicked".into())),
        }
    }
}

impl Otlp {
    fn listen(&self) -> std::io::Result<(Listening, Listening)> {
        let open = |kept: &ListenerSlot<Listening>, setting, address| {
            kept.get_or_open(|_| true, || bind(setting, address))?.try_clone()
        };
        let grpc = open(&self.listeners[0], "grpc_listen", &self.config.grpc_listen)?;
        let http = open(&self.listeners[1], "http_listen", &self.config.http_listen)?;
        Ok((grpc, http))
    }
}

/// Answers that wait until the records of their requests are accepted.
#[derive(Default)]
struct Waiting(VecDeque<(Ticket, oneshot::Sender<Answer>, Answer)>);

impl Waiting {
    /// Answers the requests whose records are accepted, in their order.
    fn answer_accepted(&mut self, context: &mut Context) {
        while let Some((ticket, _, _)) = self.0.front()
            && context.is_accepted(*ticket)
            && let Some((_, to, answer)) = self.0.pop_front()
        {
            // The sender may have disconnected; its records are stored all the same.
            let _ = to.send(answer);
        }
    }

    /// Waits briefly at a shutdown; requests without an answer are refused.
    fn finish(&mut self, context: &mut Context) {
        let until = clock::instant() + FINISH_TIMEOUT;
        while !self.0.is_empty() && clock::instant() < until {
            self.answer_accepted(context);
            std::thread::sleep(ACCEPT_INTERVAL);
        }
    }
}

async fn process_requests(
    requests: &mut Receiver<Request>,
    access: &[Arc<Access>; 2],
    context: &mut Context,
) -> Result<Ended, CollectorError> {
    let mut writer = EventWriter::default();
    let (mut received, mut malformed) = (0u64, 0u64);
    let mut waiting = Waiting::default();
    let mut turns = PollTimer::new(&context.shutdown, REPORT_DELAY);
    let accepted = context.accepted();
    while !context.shutdown.is_requested() {
        tokio::select! {
            request = requests.recv(), if waiting.0.len() < MAX_WAITING => {
                // The servers have ended; their error is the collector's.
                let Some(Request { signal, bytes, answer }) = request else { break };
                received += 1;
                let result = writer.request(signal, &bytes, None, &context.site, &mut context.sink);
                malformed += u64::from(matches!(result, Answer::Malformed(_)));
                context.sink.flush();
                waiting.0.push_back((context.ticket(), answer, result));
                turns.wake_soon();
            }
            () = accepted.next(), if !waiting.0.is_empty() => {}
            () = tokio::time::sleep(ACCEPT_INTERVAL), if !waiting.0.is_empty() => {}
            () = turns.next() => {
                report_access(&context.report, access.each_ref().map(|of| &**of));
                context.report.count("requests", received);
                context.report.count("requests_refused", malformed);
                context.report.count("attributes_dropped", writer.dropped_attributes);
                context.report.count("records_passed", writer.passed);
                context.report.count("series_forgotten", writer.series.forgotten);
            }
        }
        waiting.answer_accepted(context);
    }
    waiting.finish(context);
    Ok(Ended::Stopped)
}
