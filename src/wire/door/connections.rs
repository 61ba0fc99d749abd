//! The connections of a listener, of which there are at most so many: for a new one, the one that
//! has said nothing for the longest time ends. Otherwise idle connections would take the
//! descriptors that the kernel's events, the spool and the way to the server need.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::{TcpListener, UnixListener};
use tokio::time::Sleep;
use tokio_stream::Stream;

use super::budget::Peer;
use super::connection::{Connection, State};
use super::socket::{Socket, TimedSocket};
use super::stream::DoorStream;
use crate::access::{Access, Listening, PeerInfo};
use tapio_core::clock;

/// The part of the process's descriptors (one over this) that one listener may have.
const DESCRIPTORS_DIVISOR: u64 = 8;
/// Connections of a listener at most.
const MAX_CONNECTIONS: u64 = 1_024;
/// The part of a listener's connections (one over this) from which on a host loses its own first.
const HEAVY_DIVISOR: usize = 4;
/// Pause after the kernel refused a connection, most likely for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener with bounded connections.
pub struct DoorListener {
    listener: Listener,
    access: Arc<Access>,
    max: usize,
    /// Those that are open, the oldest first.
    open: Vec<Weak<Connection>>,
    /// After an error of the kernel.
    pause: Option<Pin<Box<Sleep>>>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl DoorListener {
    /// For connections of this listener, of clients that `access` admits.
    ///
    /// # Errors
    /// When the listener can't be used.
    pub fn new(listener: Listening, access: Arc<Access>) -> io::Result<Self> {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let share = descriptors.map_or(MAX_CONNECTIONS, |n| n / DESCRIPTORS_DIVISOR);
        Self::with_max(listener, access, share.clamp(1, MAX_CONNECTIONS) as usize)
    }

    fn with_max(listener: Listening, access: Arc<Access>, max: usize) -> io::Result<Self> {
        let listener = match listener {
            Listening::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener)?),
            Listening::Unix(listener, _) => Listener::Unix(UnixListener::from_std(listener)?),
        };
        Ok(Self { listener, access, max, open: Vec::new(), pause: None })
    }

    /// Accepts the next connection; for it, another one may end.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<DoorStream> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match std::task::ready!(self.poll_socket(cx)) {
                Ok((socket, peer)) => {
                    let is_unix = matches!(socket, Socket::Unix(_));
                    if !is_unix || self.access.admits_user(peer.uid) {
                        return Poll::Ready(self.admit(socket, peer));
                    }
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

    fn poll_socket(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, PeerInfo)>> {
        Poll::Ready(Ok(match &self.listener {
            Listener::Tcp(listener) => {
                let (stream, address) = std::task::ready!(listener.poll_accept(cx))?;
                // Fails only for a connection that is gone.
                let _ = stream.set_nodelay(true);
                let peer = PeerInfo { address: Some(address), ..PeerInfo::default() };
                (Socket::Tcp(stream), peer)
            }
            Listener::Unix(listener) => {
                let (stream, _) = std::task::ready!(listener.poll_accept(cx))?;
                let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                (Socket::Unix(stream), PeerInfo { uid, ..PeerInfo::default() })
            }
        }))
    }

    fn admit(&mut self, socket: Socket, peer: PeerInfo) -> DoorStream {
        self.make_room(self.max - 1);
        let state = State {
            heard_ns: clock::monotonic_ns(),
            has_spoken: false,
            is_ended: false,
            reader: None,
        };
        let connection = Connection { peer: peer.address.into(), state: Mutex::new(state) };
        let connection = Arc::new(connection);
        self.open.push(Arc::downgrade(&connection));
        let access = Arc::clone(&self.access);
        DoorStream::new(TimedSocket::new(socket, connection), peer, access)
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
        self.get_mut().poll_accept(cx).map(|stream| Some(Ok(stream)))
    }
}

impl axum::serve::Listener for DoorListener {
    type Io = DoorStream;
    type Addr = PeerInfo;

    async fn accept(&mut self) -> (DoorStream, PeerInfo) {
        let stream = poll_fn(|cx| self.poll_accept(cx)).await;
        let peer = stream.peer().clone();
        (stream, peer)
    }

    fn local_addr(&self) -> io::Result<PeerInfo> {
        let address = match &self.listener {
            Listener::Tcp(listener) => Some(listener.local_addr()?),
            Listener::Unix(_) => None,
        };
        Ok(PeerInfo { address, ..PeerInfo::default() })
    }
}

impl Connected<IncomingStream<'_, DoorListener>> for PeerInfo {
    fn connect_info(stream: IncomingStream<'_, DoorListener>) -> Self {
        stream.remote_addr().clone()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::access::{AccessConfig, bind};

    #[test]
    fn idle_connections_make_room_for_new_ones_and_those_that_speak_stay() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = bind("listen", &"127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.address().unwrap().tcp().unwrap();
            let access = Access::grpc("test", &AccessConfig::default(), |_, _| None).unwrap();
            let mut door = DoorListener::with_max(listener, access, 8).unwrap();
            // An echo, as a server that answers.
            tokio::spawn(async move {
                loop {
                    let mut stream = poll_fn(|cx| door.poll_accept(cx)).await;
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
