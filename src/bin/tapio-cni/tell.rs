//! A report to the agent: one packet on its socket. Nobody waits for it for longer than a bound, and nothing is read.

use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};

use tapio_collectors::cni::report::{MAX_REPORT_BYTES, Report};
use tapio_core::clock;

/// How long the agent's queue may stay full before the report is left out. With 4096 places it is full only while the
/// agent doesn't run on.
const PATIENCE: Duration = Duration::from_millis(20);
/// Between two attempts.
const NAP: Duration = Duration::from_millis(2);

/// Tells the agent, or doesn't: a pod's network is no place to complain about it.
pub(crate) fn tell(report: &Report, socket: &str) {
    let Ok(text) = serde_json::to_vec(report) else {
        return;
    };
    if text.len() <= MAX_REPORT_BYTES {
        let _ = deliver(&text, socket);
    }
}

fn deliver(text: &[u8], path: &str) -> Result<(), Errno> {
    let address = SocketAddrUnix::new(path)?;
    // A packet arrives whole or not at all, and stays in the agent's queue when this process has ended.
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let begin = clock::instant();
    while let Err(e) = connect(&socket, &address) {
        if e != Errno::AGAIN || begin.elapsed() >= PATIENCE {
            return Err(e);
        }
        std::thread::sleep(NAP);
    }
    send(&socket, text, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

/// The inode that identifies a network namespace; 0 where it can't be had.
pub(crate) fn inode_of(netns: &str) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    if netns.is_empty() {
        return 0;
    }
    std::fs::metadata(netns).map_or(0, |m| m.ino())
}
