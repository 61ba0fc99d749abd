//! Sends a report to the agent: one packet on its socket. The time for it is bounded, and no
//! response is read.

use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};

use tapio_collectors::cni_report::{MAX_REPORT_BYTES, Report};
use tapio_core::clock;

/// Time limit for connecting while the agent's queue is full; then the report is dropped. The queue
/// has room for 4096 connections, so it is full only while the agent isn't running.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(20);
/// Sleep between two attempts to connect.
const RETRY_SLEEP: Duration = Duration::from_millis(2);

/// Sends a report. Errors are ignored: a missing agent must not affect a pod's network.
pub(crate) fn send_report(report: &Report, socket: &str) {
    let Ok(text) = serde_json::to_vec(report) else {
        return;
    };
    if text.len() <= MAX_REPORT_BYTES {
        let _ = send_packet(&text, socket);
    }
}

fn send_packet(text: &[u8], path: &str) -> Result<(), Errno> {
    let address = SocketAddrUnix::new(path)?;
    // A packet arrives whole or not at all, and stays in the agent's queue after this process ends.
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let start = clock::instant();
    while let Err(e) = connect(&socket, &address) {
        if e != Errno::AGAIN || start.elapsed() >= CONNECT_TIMEOUT {
            return Err(e);
        }
        std::thread::sleep(RETRY_SLEEP);
    }
    send(&socket, text, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

/// The inode that identifies a network namespace; 0 if unknown.
pub(crate) fn inode_of(netns: &str) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    if netns.is_empty() {
        return 0;
    }
    std::fs::metadata(netns).map_or(0, |m| m.ino())
}
