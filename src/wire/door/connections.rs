//! The connections of a listener, of which there are at most so many: for a new one, the one that
//! has said nothing for the longest time ends. Otherwise idle connections would take the
//! descriptors that the kernel's events, the spool and the way to the server need.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::budget::Peer;
use tapio_core::clock;

/// The part of the process's descriptors (one over this) that one listener may have.
const DESCRIPTORS_DIVISOR: u64 = 8;
/// Connections of a listener at most.
const MAX_CONNECTIONS: u64 = 1_024;
/// The part of a listener's connections (one over this) from which on a host loses its own first.
const HEAVY_DIVISOR: usize = 4;
/// Time in which a new connection has to say something.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after the kernel refused a connection, most likely for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener with bounded connections.
pub struct DoorListener {
    listener: TcpListener,
    max: usize,
    /// Those that are open, the oldest first.
    open: Vec<Weak<Connection>>,
    /// After an error of the kernel.
    pause: Option<Pin<Box<Sleep>>>,
}

/// A connection.
struct Connection {
    peer: Peer,
    state: Mutex<State>,
}

struct State {
    /// When it said something, by the monotonic clock, or when it was accepted.
    heard_ns: u64,
    has_spoken: bool,
    is_ended: bool,
    reader: Option<Waker>,
}

impl Connection {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        let mut state = self.state();
        state.is_ended = true;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}

impl DoorListener {
    /// For connections of this listener.
    ///
    /// # Errors
    /// When the listener can't be used.
    pub fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let share = descriptors.map_or(MAX_CONNECTIONS, |n| n / DESCRIPTORS_DIVISOR);
        Self::with_max(listener, share.clamp(1, MAX_CONNECTIONS) as usize)
    }

    fn with_max(listener: std::net::TcpListener, max: usize) -> io::Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        Ok(Self { listener, max, open: Vec::new(), pause: None })
    }

    /// Accepts the next connection; for it, another one may end.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<(DoorStream, SocketAddr)> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match std::task::ready!(self.listener.poll_accept(cx)) {
                Ok((stream, address)) => {
                    return Poll::Ready((self.admit(stream, address), address));
                }
                // The client is gone already (accept(2)).
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "can't accept a connection; trying again");
                    self.make_room(0);
                    self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, address: SocketAddr) -> DoorStream {
        self.make_room(self.max - 1);
        // Fails only for a connection that is gone.
        let _ = stream.set_nodelay(true);
        let state = State {
            heard_ns: clock::monotonic_ns(),
            has_spoken: false,
            is_ended: false,
            reader: None,
        };
        let connection = Connection { peer: Some(address).into(), state: Mutex::new(state) };
        let connection = Arc::new(connection);
        self.open.push(Arc::downgrade(&connection));
        let deadline = Some(Box::pin(tokio::time::sleep(FIRST_BYTE_TIMEOUT)));
        DoorStream { stream, connection, deadline }
    }

    /// Ends a connection if more than `max` are open.
    fn make_room(&mut self, max: usize) {
        self.open.retain(|connection| connection.strong_count() > 0);
        let open: Vec<_> = self.open.iter().filter_map(Weak::upgrade).collect();
        let open: Vec<_> = open.iter().filter(|connection| !connection.state().is_ended).collect();
        if open.len() <= max {
            return;
        }
        let mut of_peer: HashMap<Peer, usize> = HashMap::new();
        for connection in &open {
            *of_peer.entry(connection.peer).or_default() += 1;
        }
        let is_heavy = |peer| of_peer.get(&peer).is_some_and(|n| *n > self.max / HEAVY_DIVISOR);
        let order = |connection: &&&Arc<Connection>| {
            let state = connection.state();
            (!is_heavy(connection.peer), state.has_spoken, state.heard_ns)
        };
        if let Some(connection) = open.iter().min_by_key(order) {
            connection.end();
        }
    }
}

impl Stream for DoorListener {
    type Item = io::Result<DoorStream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_accept(cx).map(|(stream, _)| Some(Ok(stream)))
    }
}

impl axum::serve::Listener for DoorListener {
    type Io = DoorStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (DoorStream, SocketAddr) {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection of a [`DoorListener`].
pub struct DoorStream {
    stream: TcpStream,
    connection: Arc<Connection>,
    /// Until when it has to say something.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Connected for DoorStream {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for DoorStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let mut state = this.connection.state();
        if state.is_ended {
            return Poll::Ready(Err(ended("another connection needs its place")));
        }
        match &read {
            Poll::Pending => {
                if state.reader.as_ref().is_none_or(|reader| !reader.will_wake(cx.waker())) {
                    state.reader = Some(cx.waker().clone());
                }
                if let Some(deadline) = &mut this.deadline
                    && deadline.as_mut().poll(cx).is_ready()
                {
                    return Poll::Ready(Err(ended("it said nothing")));
                }
            }
            Poll::Ready(_) if buffer.filled().len() > before => {
                state.heard_ns = clock::monotonic_ns();
                state.has_spoken = true;
                this.deadline = None;
            }
            Poll::Ready(_) => {}
        }
        read
    }
}

fn ended(cause: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, cause)
}

impl AsyncWrite for DoorStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn idle_connections_make_room_for_new_ones_and_those_that_speak_stay() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let address = listener.local_addr().unwrap();
            let mut door = DoorListener::with_max(listener, 8).unwrap();
            // An echo, as a server that answers.
            tokio::spawn(async move {
                loop {
                    let (mut stream, _) = poll_fn(|cx| door.poll_accept(cx)).await;
                    tokio::spawn(async move {
                        let mut byte = [0];
                        while stream.read_exact(&mut byte).await.is_ok() {
                            let _ = stream.write_all(&byte).await;
                        }
                    });
                }
            });
            let mut honest = TcpStream::connect(address).await.unwrap();
            let mut byte = [0];
            let mut idle = Vec::new();
            for n in 0..100_u8 {
                idle.push(TcpStream::connect(address).await.unwrap());
                honest.write_all(&[n]).await.unwrap();
                honest.read_exact(&mut byte).await.unwrap();
                assert_eq!(byte, [n], "the one that speaks stays");
            }
            let mut late = TcpStream::connect(address).await.unwrap();
            late.write_all(b"l").await.unwrap();
            late.read_exact(&mut byte).await.unwrap();
            assert_eq!(&byte, b"l", "there is room for a new one");
            let mut ended = 0;
            for stream in &mut idle[..90] {
                ended += usize::from(stream.read(&mut byte).await.is_ok_and(|read| read == 0));
            }
            assert_eq!(ended, 90);
        });
    }
}
