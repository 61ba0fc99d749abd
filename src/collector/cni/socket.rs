//! The socket that `tapio-cni` reports to: packets, one for each connection, from root or this process's own user only.
//!
//! Connections wait in the kernel's queue with what they sent, whether this process runs on or not, so a burst of pods
//! loses nothing and no plugin waits.

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

use super::report::MAX_REPORT_BYTES;
use crate::runtime::listener::ListenerSlot;
use tapio_core::clock;

/// Connections that wait to be accepted: the most the kernel allows by default.
const BACKLOG: i32 = 4096;
/// Connections whose packet hasn't come yet; more stay in the kernel's queue.
const MAX_PEERS: usize = 256;
/// How long a peer may say nothing.
const PEER_PATIENCE: Duration = Duration::from_secs(2);

/// What a peer said.
pub(super) enum Heard<'a> {
    /// A packet.
    Packet(&'a [u8]),
    /// A packet longer than any report.
    TooLong,
    /// Somebody who may not speak, by user number.
    Stranger(u32),
    /// A peer that said nothing for too long.
    Silent,
}

/// The socket's end that listens, and its file.
pub(super) struct Listener {
    path: PathBuf,
    /// Device and inode of the socket's file: another agent may put its own there.
    file: (u64, u64),
    socket: OwnedFd,
}

/// The socket, and who is connected.
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
    /// Listens. What a process that is gone left there is replaced.
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
                    "another agent listens there",
                ));
            }
            Err(e) => return Err(e.into()),
        }
        let socket = seqpacket()?;
        // Before it has a name, so that there is no moment in which others could connect.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        bind(&socket, &address)?;
        listen(&socket, BACKLOG)?;
        Ok(Self { path: path.to_owned(), file: identity(path)?, socket })
    }

    /// Whether its file still leads here.
    fn is_reached(&self) -> bool {
        identity(&self.path).is_ok_and(|file| file == self.file)
    }
}

impl Socket {
    /// Listens, with the listener an earlier run has left if that is still reached: what came meanwhile waits in it.
    pub(super) fn open(path: &Path, kept: &ListenerSlot<Listener>) -> io::Result<Self> {
        let listener = kept.get_or_open(Listener::is_reached, || Listener::open(path))?;
        Ok(Self { listener, peers: Vec::new(), buffer: vec![0; MAX_REPORT_BYTES + 1] })
    }

    /// Whether somebody is connected who hasn't said anything yet.
    pub(super) fn has_peers(&self) -> bool {
        !self.peers.is_empty()
    }

    /// What to wait on.
    pub(super) fn sources(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let listener = (self.peers.len() < MAX_PEERS).then(|| self.listener.socket.as_fd());
        listener.into_iter().chain(self.peers.iter().map(|(peer, _)| peer.as_fd()))
    }

    /// Takes in what has come.
    pub(super) fn read(&mut self, mut hear: impl FnMut(Heard<'_>)) {
        let now = clock::instant();
        self.accept(now, &mut hear);
        let buffer = &mut self.buffer;
        self.peers.retain(|(peer, since)| match recv(peer, &mut buffer[..], RecvFlags::DONTWAIT) {
            // It came and went, to see whether anybody listens.
            Ok((0, _)) => false,
            Ok((len, _)) => {
                hear(match buffer.get(..len) {
                    Some(packet) if len <= MAX_REPORT_BYTES => Heard::Packet(packet),
                    _ => Heard::TooLong,
                });
                false
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) if now.duration_since(*since) < PEER_PATIENCE => {
                true
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => {
                hear(Heard::Silent);
                false
            }
            Err(_) => false,
        });
    }

    fn accept(&mut self, now: Instant, hear: &mut impl FnMut(Heard<'_>)) {
        let own = rustix::process::geteuid();
        while self.peers.len() < MAX_PEERS {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            // A peer that is gone again, or no descriptor left: both pass.
            let Ok(peer) = accept_with(&self.listener.socket, flags) else {
                return;
            };
            match sockopt::socket_peercred(&peer) {
                Ok(who) if who.uid.is_root() || who.uid == own => self.peers.push((peer, now)),
                Ok(who) => hear(Heard::Stranger(who.uid.as_raw())),
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
        if self.is_reached() {
            // A file that stays is replaced by the next run.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendFlags, send};

    fn heard(socket: &mut Socket) -> Vec<String> {
        let mut out = Vec::new();
        socket.read(|heard| {
            out.push(match heard {
                Heard::Packet(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Heard::TooLong => "too long".into(),
                Heard::Stranger(uid) => format!("stranger {uid}"),
                Heard::Silent => "silent".into(),
            });
        });
        out
    }

    fn tell(path: &Path, bytes: &[u8]) {
        let peer = seqpacket().unwrap();
        connect(&peer, &SocketAddrUnix::new(path).unwrap()).unwrap();
        send(&peer, bytes, SendFlags::NOSIGNAL).unwrap();
    }

    #[test]
    fn packets_wait_for_the_agent_and_the_file_is_only_ours() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/cni.sock");
        let mut socket = Socket::open(&path, &ListenerSlot::default()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for n in 0..300 {
            tell(&path, n.to_string().as_bytes());
        }
        tell(&path, &vec![b'x'; MAX_REPORT_BYTES + 5]);
        let mut all = heard(&mut socket);
        assert_eq!(all.len(), MAX_PEERS, "the others wait in the kernel's queue");
        all.extend(heard(&mut socket));
        let expected: Vec<_> = (0..300).map(|n| n.to_string()).chain(["too long".into()]).collect();
        assert_eq!(all, expected);
        assert!(Socket::open(&path, &ListenerSlot::default()).is_err(), "one agent");
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn between_two_runs_packets_wait_and_a_run_that_hangs_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cni.sock");
        let kept = ListenerSlot::default();
        let hangs = Socket::open(&path, &kept).unwrap();
        drop(Socket::open(&path, &kept).unwrap());
        tell(&path, b"meanwhile");
        let mut next = Socket::open(&path, &kept).unwrap();
        assert_eq!(heard(&mut next), ["meanwhile"]);
        // Whose file was removed can't be reached any more: it is made anew.
        fs::remove_file(&path).unwrap();
        let mut anew = Socket::open(&path, &kept).unwrap();
        tell(&path, b"again");
        assert_eq!(heard(&mut anew), ["again"]);
        drop((hangs, next));
        assert!(path.exists(), "the file is the new one's");
    }

    #[test]
    fn what_a_dead_agent_left_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cni.sock");
        let dead = seqpacket().unwrap();
        bind(&dead, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        drop(dead);
        let mut socket = Socket::open(&path, &ListenerSlot::default()).unwrap();
        tell(&path, b"a");
        assert_eq!(heard(&mut socket), ["a"]);
    }
}
