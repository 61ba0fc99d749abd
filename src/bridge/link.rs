//! The connection to one of the servers: connects, fails over, and notices a server that doesn't
//! answer.
//!
//! Endpoints are tried in the order of the configuration, each with a circuit breaker of its own
//! ([`super::circuit`]): a failure leads at once to the next one whose circuit isn't open. A
//! connection that works is kept, also to a later endpoint.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::HeaderMap;

use super::circuit::{Circuit, CircuitState};
use super::config::BridgeConfig;
use super::trace_context::delivery_headers;
use tapio_core::backoff::Backoff;
use tapio_core::clock;
use tapio_wire::proto::{Ack, AgentStatus};
use tapio_wire::{ConnectError, Dialer, IngestClient, IngestClientConfig, SendError, StreamEnd};

/// Upper bound of the pause before the first attempt to reconnect.
const FIRST_RECONNECT: Duration = Duration::from_millis(50);

type Connecting = Pin<Box<dyn Future<Output = Result<IngestClient, ConnectError>> + Send>>;

enum Connection {
    /// No server is configured.
    Off,
    /// The next attempt is due then.
    Down(Instant),
    Connecting(Connecting),
    Up(Box<IngestClient>),
}

/// A server.
struct Endpoint {
    address: String,
    circuit: Circuit,
}

/// An event on the link.
pub(super) enum LinkEvent {
    /// The connection is established.
    Connected,
    /// The server has answered the request.
    Answered,
    Ack(Ack),
    /// No connection could be established.
    ConnectFailed(String),
    /// The stream has ended.
    Lost(StreamEnd),
}

/// The connection to one of the servers.
pub(super) struct Link {
    config: BridgeConfig,
    node: String,
    dialer: Dialer,
    endpoints: Vec<Endpoint>,
    current: usize,
    connection: Connection,
    is_answered: bool,
    /// Bytes that the server grants; 0 for no limit.
    credit_bytes: u64,
    /// When the server answered a batch last, or the stream began.
    progress: Instant,
}

impl Link {
    /// `seed`: any number that differs between agents.
    pub(super) fn new(config: BridgeConfig, dialer: Dialer, node: &str, seed: u64) -> Self {
        let now = clock::instant();
        let endpoints = config.endpoints().zip(1u64..).map(|(address, n)| {
            let backoff = Backoff::new(FIRST_RECONNECT, config.reconnect_max);
            let seed = seed.wrapping_mul(2 * n + 1);
            Endpoint {
                address: address.to_owned(),
                circuit: Circuit::new(backoff.with_jitter(seed), now),
            }
        });
        Self {
            endpoints: endpoints.collect(),
            node: node.to_owned(),
            dialer,
            current: 0,
            connection: match config.endpoint.is_empty() {
                true => Connection::Off,
                false => Connection::Down(now),
            },
            is_answered: false,
            credit_bytes: 0,
            progress: now,
            config,
        }
    }

    /// The address of the current endpoint.
    pub(super) fn address(&self) -> &str {
        &self.endpoints[self.current].address
    }

    pub(super) fn state(&self) -> CircuitState {
        if matches!(self.connection, Connection::Off) {
            return CircuitState::Closed;
        }
        self.endpoints[self.current].circuit.state()
    }

    /// Whether batches can be sent.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.connection, Connection::Up(_))
    }

    /// Bytes that may be in flight, within the server's credit: a half-open circuit sends one
    /// batch.
    pub(super) fn window_bytes(&self) -> usize {
        match self.state() {
            CircuitState::Closed => match self.credit_bytes.try_into().unwrap_or(usize::MAX) {
                0 => self.config.in_flight_bytes,
                credit => self.config.in_flight_bytes.min(credit),
            },
            CircuitState::HalfOpen | CircuitState::Open => 0,
        }
    }

    /// Queues a batch. Returns whether there was room.
    pub(super) fn send(&self, framed: bytes::Bytes) -> bool {
        match &self.connection {
            // Called again with the next ack; a closed stream is noticed there too.
            Connection::Up(client) => match client.send_framed(framed) {
                Ok(()) => true,
                Err(SendError::Full | SendError::Closed) => false,
            },
            _ => false,
        }
    }

    /// Reports the agent's state to the server, within a time limit; `None`: no connection.
    pub(super) fn report_status(
        &self,
        status: AgentStatus,
        timeout: Duration,
    ) -> Option<impl Future<Output = Result<(), tonic::Status>> + Send + use<>> {
        match &self.connection {
            Connection::Up(client) => Some(client.report_status(status, timeout)),
            _ => None,
        }
    }

    /// The next event. Pending: the waker is called.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        loop {
            match &mut self.connection {
                Connection::Off => return Poll::Pending,
                Connection::Up(client) => {
                    let polled = client.poll_ack(cx);
                    if !self.is_answered && client.is_answered() {
                        self.is_answered = true;
                        // The ack, if there was one, is the first; the waker isn't registered then.
                        if polled.is_pending() {
                            return Poll::Ready(LinkEvent::Answered);
                        }
                    }
                    return polled.map(|result| match result {
                        Ok(ack) => {
                            self.credit_bytes = ack.credit_bytes;
                            LinkEvent::Ack(ack)
                        }
                        Err(end) => {
                            self.fail(end.retry_after);
                            LinkEvent::Lost(end)
                        }
                    });
                }
                Connection::Connecting(attempt) => {
                    return attempt.as_mut().poll(cx).map(|result| match result {
                        Ok(client) => {
                            self.connection = Connection::Up(Box::new(client));
                            self.is_answered = false;
                            self.credit_bytes = 0;
                            self.progress = clock::instant();
                            LinkEvent::Connected
                        }
                        Err(error) => {
                            self.fail(None);
                            LinkEvent::ConnectFailed(error.to_string())
                        }
                    });
                }
                Connection::Down(due) => {
                    let due = *due;
                    self.endpoints[self.current].circuit.attempt();
                    self.connection = Connection::Connecting(self.connect(due));
                }
            }
        }
    }

    /// Notes that an ack has answered batches.
    pub(super) fn confirm(&mut self) {
        self.progress = clock::instant();
        self.endpoints[self.current].circuit.succeed();
    }

    /// Ends the stream of a server that has batches and doesn't answer. Returns whether it did.
    pub(super) fn check_progress(&mut self, now: Instant, has_in_flight: bool) -> bool {
        if !has_in_flight || !self.is_up() {
            self.progress = now;
            return false;
        }
        let is_late = now.saturating_duration_since(self.progress) >= self.config.ack_timeout;
        if is_late {
            self.fail(None);
        }
        is_late
    }

    /// Begins a new stream to the same server at once.
    pub(super) fn restart(&mut self) {
        self.connection = Connection::Down(clock::instant());
    }

    /// Opens the circuit of the current endpoint and goes to the next one: the first whose circuit
    /// isn't open, or the one whose pause ends first.
    fn fail(&mut self, retry_after: Option<Duration>) {
        let now = clock::instant();
        self.endpoints[self.current].circuit.fail(now, retry_after);
        let due = |endpoint: &Endpoint| endpoint.circuit.due().max(now);
        let next = self.endpoints.iter().enumerate().min_by_key(|(_, endpoint)| due(endpoint));
        if let Some((next, endpoint)) = next {
            self.connection = Connection::Down(due(endpoint));
            self.current = next;
        }
    }

    /// Connects at `not_before`.
    fn connect(&self, not_before: Instant) -> Connecting {
        let config = IngestClientConfig {
            endpoint: self.address().to_owned(),
            connect_timeout: self.config.connect_timeout,
            keepalive: self.config.keepalive,
            headers: self.headers(),
            is_compressed: self.config.is_compressed(),
            dialer: self.dialer.clone(),
        };
        Box::pin(async move {
            tokio::time::sleep_until(not_before.into()).await;
            let timeout = config.connect_timeout;
            match tokio::time::timeout(timeout, IngestClient::connect(&config)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(ConnectError::Connect(
                    config.endpoint,
                    format!("no answer within {timeout:?}"),
                )),
            }
        })
    }

    fn headers(&self) -> HeaderMap {
        delivery_headers(&self.node)
    }
}
