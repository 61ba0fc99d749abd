//! A connection, with TLS where the listener has it. The handshake is part of reading and writing:
//! the connection counts among those of the listener meanwhile, and no task waits for it.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::{FallibleAccept, TlsStream};
use tonic::transport::server::Connected;

use super::refusal::Refusal;
use super::socket::{TimedSocket, ended};
use crate::access::{Access, HandshakeFailure, PeerCertificate, PeerInfo};
use crate::tls::certificate_names;

/// How long a handshake may take, from the connection on.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The first byte of a handshake: its content type (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// A connection of a listener.
pub struct DoorStream {
    state: State,
    peer: PeerInfo,
    access: Arc<Access>,
}

enum State {
    /// Without TLS.
    Plain(TimedSocket),
    /// Whether it speaks TLS isn't known yet.
    New(TimedSocket, Pin<Box<Sleep>>),
    Handshake(Box<FallibleAccept<TimedSocket>>, Pin<Box<Sleep>>),
    Tls(Box<TlsStream<TimedSocket>>),
    /// Its handshake has failed.
    Refused(Box<Refusal>),
    Ended,
}

impl DoorStream {
    pub(super) fn new(socket: TimedSocket, peer: PeerInfo, access: Arc<Access>) -> Self {
        // The system knows who is at the other end of a unix socket, and nobody is between.
        let state = match access.tls().is_some() && peer.address.is_some() {
            true => State::New(socket, Box::pin(tokio::time::sleep(HANDSHAKE_TIMEOUT))),
            false => State::Plain(socket),
        };
        Self { state, peer, access }
    }

    pub(super) fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    fn count(&self, failure: HandshakeFailure, cause: &str) {
        let peer = self.peer.address.map_or_else(String::new, |address| address.to_string());
        let cause = format!("{peer}: {cause}");
        self.access.counts().handshake(self.access.listener(), failure, &cause);
    }

    /// Ready once bytes of the application can be read and written.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::New(mut socket, deadline) => match socket.poll_first(cx) {
                    Poll::Ready(Ok(first)) => {
                        self.state = self.opening(first.to_vec(), socket, deadline)?
                    }
                    Poll::Ready(Err(error)) => {
                        if error.kind() == io::ErrorKind::TimedOut {
                            self.count(HandshakeFailure::Timeout, &error.to_string());
                        }
                        return Poll::Ready(Err(error));
                    }
                    Poll::Pending => {
                        self.state = State::New(socket, deadline);
                        return Poll::Pending;
                    }
                },
                State::Handshake(mut accept, mut deadline) => match Pin::new(&mut *accept).poll(cx)
                {
                    Poll::Ready(Ok(stream)) => {
                        note_certificate(&self.peer, stream.get_ref().1);
                        self.state = State::Tls(Box::new(stream));
                    }
                    Poll::Ready(Err((error, socket))) => {
                        self.count(failure_of(&error), &error.to_string());
                        self.state = State::Refused(Box::new(Refusal::of_alert(socket)));
                    }
                    Poll::Pending if deadline.as_mut().poll(cx).is_ready() => {
                        let cause = "the handshake wasn't finished in time";
                        self.count(HandshakeFailure::Timeout, cause);
                        return Poll::Ready(Err(ended(cause)));
                    }
                    Poll::Pending => {
                        self.state = State::Handshake(accept, deadline);
                        return Poll::Pending;
                    }
                },
                State::Refused(mut refusal) => match refusal.poll(cx) {
                    Poll::Ready(()) => return Poll::Ready(Err(ended("its handshake has failed"))),
                    Poll::Pending => {
                        self.state = State::Refused(refusal);
                        return Poll::Pending;
                    }
                },
                State::Ended => return Poll::Ready(Err(ended("it has ended"))),
                open @ (State::Plain(_) | State::Tls(_)) => {
                    self.state = open;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// The state after the first bytes.
    fn opening(
        &mut self,
        first: Vec<u8>,
        socket: TimedSocket,
        deadline: Pin<Box<Sleep>>,
    ) -> io::Result<State> {
        match (first.first(), self.access.tls()) {
            (Some(&HANDSHAKE), Some(tls)) => {
                let accept = TlsAcceptor::from(tls.look()).accept(socket).into_fallible();
                Ok(State::Handshake(Box::new(accept), deadline))
            }
            // A probe that connects and says nothing isn't a failure.
            (None, _) | (_, None) => Err(ended("it said nothing")),
            (Some(_), Some(_)) => {
                self.count(HandshakeFailure::NotTls, "the client doesn't speak TLS");
                Ok(State::Refused(Box::new(Refusal::of_plain(socket, &first))))
            }
        }
    }
}

/// Notes who the client is, for its requests.
fn note_certificate(peer: &PeerInfo, connection: &ServerConnection) {
    if let Some(chain @ [certificate, ..]) = connection.peer_certificates() {
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        // Nobody else sets it.
        let _ =
            peer.certificate.set(PeerCertificate { names: certificate_names(certificate), chain });
    }
}

fn failure_of(error: &io::Error) -> HandshakeFailure {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::NoCertificatesPresented) => HandshakeFailure::NoCertificate,
        Some(rustls::Error::InvalidCertificate(_)) => HandshakeFailure::BadCertificate,
        Some(rustls::Error::AlertReceived(_)) => HandshakeFailure::Rejected,
        _ => HandshakeFailure::Other,
    }
}

impl Connected for DoorStream {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

/// Calls a method of the open stream.
macro_rules! open {
    ($state:expr, $stream:ident => $call:expr) => {
        match $state {
            State::Plain($stream) => $call,
            State::Tls($stream) => $call,
            _ => Poll::Ready(Err(ended("it has ended"))),
        }
    };
}

impl AsyncRead for DoorStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_open(cx))?;
        open!(&mut self.state, s => Pin::new(s).poll_read(cx, buffer))
    }
}

impl AsyncWrite for DoorStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_open(cx))?;
        open!(&mut self.state, s => Pin::new(s).poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            // Nothing was written yet.
            State::New(..) | State::Handshake(..) => Poll::Ready(Ok(())),
            state => open!(state, s => Pin::new(s).poll_flush(cx)),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            State::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            // Dropped with the connection.
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_open(cx))?;
        open!(&mut self.state, s => Pin::new(s).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.state {
            State::Plain(socket) => socket.is_write_vectored(),
            _ => true,
        }
    }
}
