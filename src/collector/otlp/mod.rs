//! Collector `otlp`: logs and spans of applications on this node, over OTLP/gRPC and OTLP/HTTP (protobuf).
//!
//! | file | purpose |
//! | --- | --- |
//! | `grpc.rs`, `http.rs` | the two ways in |
//! | `tell.rs` | from a record to an event |
//!
//! The servers have a thread of their own and hand requests over through a bounded queue. A request is answered
//! when all its records are in the agent's rings; where the queue is full it is refused at once with the time after
//! which to try again, so that applications keep what the agent can't take.

mod grpc;
mod http;
mod tell;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};
use tokio::sync::oneshot;

use self::tell::Teller;
use crate::runtime::listener::ListenerSlot;
use crate::runtime::poll_timer::PollTimer;
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, factory,
};
use tapio_core::shutdown::Shutdown;
use tapio_wire::{OtlpSignal, bind};

/// Requests that wait to be read.
const QUEUE: usize = 64;
/// The largest request that is taken.
const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;
/// When a refused sender should try again.
const RETRY: Duration = Duration::from_secs(1);
/// How soon its counters are published.
const TICK: Duration = Duration::from_millis(80);

/// The section `collectors.otlp`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether to run it.
    pub enabled: bool,
    /// Where OTLP/gRPC is served.
    pub grpc_listen: SocketAddr,
    /// Where OTLP/HTTP is served.
    pub http_listen: SocketAddr,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            grpc_listen: (Ipv4Addr::LOCALHOST, 4317).into(),
            http_listen: (Ipv4Addr::LOCALHOST, 4318).into(),
        }
    }
}

/// Waits for a full ring. Senders are told to try again.
impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        self.enabled
    }

    fn factory(&self) -> CollectorFactory {
        let state = (self.clone(), Listeners::default());
        factory(state, |(config, listeners)| Otlp(config, listeners))
    }
}

/// What became of a request.
enum Answer {
    /// Its records are in the rings, but for so many that can't be read.
    Taken(u64),
    /// Its bytes are no request.
    Broken(String),
}

/// A request on its way from a server to the collector.
struct Request {
    signal: OtlpSignal,
    bytes: Bytes,
    answer: oneshot::Sender<Answer>,
}

/// Why a request wasn't taken.
enum Refusal {
    /// The queue is full.
    Later,
    /// It is no request.
    Broken(String),
    /// The agent ends.
    Ending,
}

/// The servers' end of the queue.
#[derive(Clone)]
struct Intake(Sender<Request>);

impl Intake {
    /// Hands a request over and waits for its answer. Returns how many records can't be read.
    async fn take(&self, signal: OtlpSignal, bytes: Bytes) -> Result<u64, Refusal> {
        let (answer, answered) = oneshot::channel();
        match self.0.try_send(Request { signal, bytes, answer }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(Refusal::Later),
            Err(TrySendError::Closed(_)) => return Err(Refusal::Ending),
        }
        match answered.await {
            Ok(Answer::Taken(broken)) => Ok(broken),
            Ok(Answer::Broken(why)) => Err(Refusal::Broken(why)),
            Err(_) => Err(Refusal::Ending),
        }
    }
}

/// The two ways in, which stay open from run to run.
type Listeners = [ListenerSlot<std::net::TcpListener>; 2];

struct Otlp(Config, Listeners);

impl Collector for Otlp {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let failed = |e: std::io::Error| CollectorError::Failed(e.to_string());
        let listen = |kept: &ListenerSlot<std::net::TcpListener>, setting, address| {
            kept.get_or_open(|_| true, || bind(setting, address))?.try_clone()
        };
        let grpc = listen(&self.1[0], "grpc_listen", self.0.grpc_listen).map_err(failed)?;
        let http = listen(&self.1[1], "http_listen", self.0.http_listen).map_err(failed)?;
        for (name, listener) in [("grpc_listen", &grpc), ("http_listen", &http)] {
            context.report.note(name, listener.local_addr().map_err(failed)?.to_string());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(failed)?;
        let (queue, mut requests) = channel(QUEUE);
        let (over, ended) = oneshot::channel::<()>();
        let servers = {
            // Should this run be given up, the next one has servers of its own.
            let shutdown = context.shutdown.untracked();
            let start = move || serve(grpc, http, Intake(queue), ended, &shutdown);
            std::thread::Builder::new().name("otlp".into()).spawn(start).map_err(failed)?
        };
        let ended = runtime.block_on(receive(&mut requests, context));
        drop(over);
        // Requests that wait are told that the agent ends.
        drop(requests);
        match servers.join() {
            Ok(Ok(())) => ended,
            Ok(Err(e)) => Err(CollectorError::new("serving OTLP", e)),
            Err(_) => Err(CollectorError::Failed("the OTLP servers panicked".into())),
        }
    }
}

async fn receive(
    requests: &mut Receiver<Request>,
    context: &mut Context,
) -> Result<Ended, CollectorError> {
    let mut teller = Teller::default();
    let (mut taken, mut refused) = (0u64, 0u64);
    let mut timer = PollTimer::new(&context.shutdown, TICK);
    while !context.shutdown.is_requested() {
        tokio::select! {
            request = requests.recv() => {
                // The servers ended: their error is the collector's.
                let Some(Request { signal, bytes, answer }) = request else { break };
                taken += 1;
                let told = teller.request(signal, &bytes, context);
                refused += u64::from(matches!(told, Answer::Broken(_)));
                context.sink.flush();
                // Who asked may be gone; the records are taken all the same.
                let _ = answer.send(told);
                timer.wake_soon();
            }
            () = timer.next() => {
                context.report.count("requests", taken);
                context.report.count("refused_requests", refused);
                context.report.count("attributes_left_out", teller.left_out);
            }
        }
    }
    Ok(Ended::Stopped)
}

/// Takes bytes in as the servers' requests are: what the fuzz target looks at. Returns how many records were left out;
/// `None` where the bytes are no request.
#[doc(hidden)]
pub fn look(signal: OtlpSignal, bytes: &[u8], context: &mut Context) -> Option<u64> {
    match Teller::default().request(signal, &Bytes::copy_from_slice(bytes), context) {
        Answer::Taken(broken) => Some(broken),
        Answer::Broken(_) => None,
    }
}

fn serve(
    grpc: std::net::TcpListener,
    http: std::net::TcpListener,
    intake: Intake,
    ended: oneshot::Receiver<()>,
    shutdown: &Shutdown,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let grpc = tokio::net::TcpListener::from_std(grpc)?;
        let http = tokio::net::TcpListener::from_std(http)?;
        let given_up = async {
            shutdown.requested().await;
            if !shutdown.is_abandoned() {
                // The agent ends: so do the servers, once the collector has answered whom it is about to.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            served = grpc::serve(grpc, intake.clone()) => served,
            served = http::serve(http, intake) => served,
            // Its other end is dropped.
            _ = ended => Ok(()),
            () = given_up => Ok(()),
        }
    });
    // Connections are tasks of this runtime and end with it.
    runtime.shutdown_background();
    served
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_at_once_and_an_end_is_told() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (queue, requests) = channel(1);
        let intake = Intake(queue);
        runtime.block_on(async {
            let waiting = intake.take(OtlpSignal::Logs, Bytes::new());
            tokio::pin!(waiting);
            // Polled once: it is in the queue now.
            assert!(
                std::future::poll_fn(|cx| std::task::Poll::Ready(
                    waiting.as_mut().poll(cx).is_pending()
                ))
                .await
            );
            let refused = intake.take(OtlpSignal::Logs, Bytes::new()).await;
            assert!(matches!(refused, Err(Refusal::Later)));
            drop(requests);
            assert!(matches!(waiting.await, Err(Refusal::Ending)));
            let refused = intake.take(OtlpSignal::Traces, Bytes::new()).await;
            assert!(matches!(refused, Err(Refusal::Ending)));
        });
    }
}
