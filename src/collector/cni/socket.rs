//! The socket that receives the reports of `tapio-cni`: one packet for each connection, from root
//! or this process's own user only.
//!
//! Connections wait in the kernel's queue together with their packet, whether this process is
//! running or not, so a burst of pods loses no report and no plugin waits.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recv, socket_with, sockopt,
};

use crate::cni_report::MAX_REPORT_BYTES;
use crate::runtime::listener::ListenerSlot;
use tapio_core::clock;

/// Connections that wait to be accepted: the kernel's default limit.
const BACKLOG: i32 = 4096;
/// Accepted connections without a packet yet; further ones stay in the kernel's queue.
const MAX_PEERS: usize = 256;
/// Time after which a peer without a packet is disconnected.
const PEER_TIMEOUT: Duration = Duration::from_secs(2);

/// The outcome of a connection.
pub(super) enum Received<'a> {
    /// A packet.
    Packet(&'a [u8]),
    /// A packet above the size limit.
    TooLong,
    /// A connection of another user, by number; it is refused.
    Unauthorized(u32),
    /// A peer that sent no packet in time.
    TimedOut,
}

/// The listening socket and its file.
pub(super) struct Listener {
    path: PathBuf,
    /// Device and inode of the socket's file, which another agent may replace by its own.
    file: (u64, u64),
    socket: OwnedFd,
}

/// The listener and the connected peers.
pub(super) struct Socket {
    listener: Arc<Listener>,
    peers: Vec<(OwnedFd, Instant)>,
    buffer: Vec<u8>,
}

fn seqpacket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

impl Listener {
    /// Starts to listen. Replaces the file of a process that has ended.
    fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let address = SocketAddrUnix::new(path)?;
        match connect(seqpacket()?, &address) {
            Err(Errno::NOENT) => {}
            Err(Errno::CONNREFUSED) => fs::remove_file(path)?,
            Ok(()) | Err(Errno::AGAIN) => {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another agent listens on it",
                ));
            }
            Err(e) => return Err(e.into()),
        }
        let socket = seqpacket()?;
        // Before the socket has a name, so that other users can't connect at any time.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        bind(&socket, &address)?;
        listen(&socket, BACKLOG)?;
        Ok(Self { path: path.to_owned(), file: identity(path)?, socket })
    }

    /// Whether the file still belongs to this socket.
    fn is_reachable(&self) -> bool {
        identity(&self.path).is_ok_and(|file| file == self.file)
    }
}

impl Socket {
    /// Opens the socket. Reuses the listener of an earlier run if it is still reachable, so that
    /// reports sent meanwhile aren't lost.
    pub(super) fn open(path: &Path, kept: &ListenerSlot<Listener>) -> io::Result<Self> {
        let listener = kept.get_or_open(Listener::is_reachable, || Listener::open(path))?;
        Ok(Self { listener, peers: Vec::new(), buffer: vec![0; MAX_REPORT_BYTES + 1] })
    }

    /// Whether a peer is connected whose packet hasn't arrived.
    pub(super) fn has_peers(&self) -> bool {
        !self.peers.is_empty()
    }

    /// The file descriptors to wait on.
    pub(super) fn sources(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let listener = (self.peers.len() < MAX_PEERS).then(|| self.listener.socket.as_fd());
        listener.into_iter().chain(self.peers.iter().map(|(peer, _)| peer.as_fd()))
    }

    /// Accepts connections and passes their packets to `process`.
    pub(super) fn read(&mut self, mut process: impl FnMut(Received<'_>)) {
        let now = clock::instant();
        self.accept(now, &mut process);
        let buffer = &mut self.buffer;
        self.peers.retain(|(peer, since)| match recv(peer, &mut buffer[..], RecvFlags::DONTWAIT) {
            // The peer disconnected without a packet, as a check whether an agent listens.
            Ok((0, _)) => false,
            Ok((len, _)) => {
                process(match buffer.get(..len) {
                    Some(packet) if len <= MAX_REPORT_BYTES => Received::Packet(packet),
                    _ => Received::TooLong,
                });
                false
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) if now.duration_since(*since) < PEER_TIMEOUT => {
                true
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => {
                process(Received::TimedOut);
                false
            }
            Err(_) => false,
        });
    }

    fn accept(&mut self, now: Instant, process: &mut impl FnMut(Received<'_>)) {
        let own = rustix::process::geteuid();
        while self.peers.len() < MAX_PEERS {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            // The peer has disconnected, or no descriptor is free: both are temporary.
            let Ok(peer) = accept_with(&self.listener.socket, flags) else {
                return;
            };
            match sockopt::socket_peercred(&peer) {
                Ok(cred) if cred.uid.is_root() || cred.uid == own => self.peers.push((peer, now)),
                Ok(cred) => process(Received::Unauthorized(cred.uid.as_raw())),
                Err(_) => {}
            }
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let file = fs::metadata(path)?;
    Ok((file.dev(), file.ino()))
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.is_reachable() {
            // A file that can't be removed is replaced by the next run.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendFlags, send};

    fn received(socket: &mut Socket) -> Vec<String> {
        let mut out = Vec::new();
        socket.read(|received| {
            out.push(match received {
                Received::Packet(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Received::TooLong => "too long".into(),
                Received::Unauthorized(uid) => format!("unauthorized {uid}"),
                Received::TimedOut => "timed out".into(),
            });
        });
        out
    }

    fn send_report(path: &Path, bytes: &[u8]) {
        let peer = seqpacket().unwrap();
        connect(&peer, &SocketAddrUnix::new(path).unwrap()).unwrap();
        send(&peer, bytes, SendFlags::NOSIGNAL).unwrap();
    }

    #[test]
    fn packets_wait_in_queue_and_file_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/cni.sock");
        let mut socket = Socket::open(&path, &ListenerSlot::default()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for n in 0..300 {
            send_report(&path, n.to_string().as_bytes());
        }
        send_report(&path, &vec![b'x'; MAX_REPORT_BYTES + 5]);
        let mut all = received(&mut socket);
        assert_eq!(all.len(), MAX_PEERS, "the others wait in the kernel's queue");
        all.extend(received(&mut socket));
        let expected: Vec<_> = (0..300).map(|n| n.to_string()).chain(["too long".into()]).collect();
        assert_eq!(all, expected);
        assert!(Socket::open(&path, &ListenerSlot::default()).is_err(), "only one agent");
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn packets_wait_between_runs_and_hung_run_does_not_block_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cni.sock");
        let kept = ListenerSlot::default();
        let hung = Socket::open(&path, &kept).unwrap();
        drop(Socket::open(&path, &kept).unwrap());
        send_report(&path, b"meanwhile");
        let mut next = Socket::open(&path, &kept).unwrap();
        assert_eq!(received(&mut next), ["meanwhile"]);
        // A socket whose file was removed isn't reachable any more and is opened again.
        fs::remove_file(&path).unwrap();
        let mut reopened = Socket::open(&path, &kept).unwrap();
        send_report(&path, b"again");
        assert_eq!(received(&mut reopened), ["again"]);
        drop((hung, next));
        assert!(path.exists(), "the file belongs to the new socket");
    }

    #[test]
    fn file_of_dead_agent_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cni.sock");
        let dead = seqpacket().unwrap();
        bind(&dead, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        drop(dead);
        let mut socket = Socket::open(&path, &ListenerSlot::default()).unwrap();
        send_report(&path, b"a");
        assert_eq!(received(&mut socket), ["a"]);
    }
}
