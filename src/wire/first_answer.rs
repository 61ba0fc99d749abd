//! The first bytes of a server on a new connection for gRPC. Every HTTP/2 server begins with a
//! SETTINGS frame (RFC 9113, section 3.4): what comes instead, or doesn't come in time, shows that
//! another program listens there, or another protocol is spoken.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::time::Sleep;

/// Types of frames (RFC 9113, section 6), and the length of a frame's header.
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const HEADER_BYTES: usize = 9;
/// The error code with which a listener ends a connection that has no TLS.
const INADEQUATE_SECURITY: u8 = 0xc;
/// The types of TLS records that are alerts and handshakes.
const TLS_RECORDS: [u8; 2] = [21, 22];

/// Waits for the first bytes of a connection.
pub(crate) struct FirstAnswer {
    timeout: Duration,
    /// `None`: they have come.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl FirstAnswer {
    /// Gives the server so much time.
    pub(crate) fn within(timeout: Duration) -> Self {
        Self { timeout, deadline: Some(Box::pin(tokio::time::sleep(timeout))) }
    }

    /// Takes the result of a read, after which `buffer` has more than the `before` bytes.
    pub(crate) fn read(
        &mut self,
        cx: &mut Context<'_>,
        read: Poll<io::Result<()>>,
        buffer: &ReadBuf<'_>,
        before: usize,
    ) -> Poll<io::Result<()>> {
        let Some(deadline) = &mut self.deadline else { return read };
        if read.is_pending() {
            let late =
                || format!("it accepts connections, but sends nothing for {:?}", self.timeout);
            return match deadline.as_mut().poll(cx) {
                Poll::Ready(()) => {
                    Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, late())))
                }
                Poll::Pending => Poll::Pending,
            };
        }
        let read = self.result(read);
        self.deadline = None;
        read.map(|done| {
            done.and_then(|()| check(buffer.filled().get(before..).unwrap_or_default()))
        })
    }

    /// The result of a read or a write, with the cause where the server has closed the connection.
    pub(crate) fn result<T>(&self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        done.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                if self.deadline.is_some() =>
            {
                closed()
            }
            _ => error,
        })
    }
}

fn closed() -> io::Error {
    let cause = "it closes the connection without an answer: this is no gRPC port (the server's is \
                 7600), or it speaks TLS only (use https://)";
    io::Error::new(io::ErrorKind::ConnectionReset, cause)
}

/// Checks the first bytes; none: the end of the stream.
fn check(first: &[u8]) -> io::Result<()> {
    let invalid = |cause: &str| Err(io::Error::new(io::ErrorKind::InvalidData, cause));
    let byte = |at: usize| first.get(at).copied();
    if first.is_empty() {
        return Err(closed());
    }
    if first.starts_with(b"HTTP/") {
        return invalid("it speaks HTTP/1 only: is this an HTTP port? gRPC's is 7600");
    }
    if byte(0).is_some_and(|first| TLS_RECORDS.contains(&first)) && byte(1) == Some(3) {
        return invalid("it speaks TLS only: use https://");
    }
    if byte(3).is_some_and(|kind| kind != SETTINGS) {
        return invalid("another program answers: this is no gRPC port; the server's is 7600");
    }
    let settings = [byte(0), byte(1), byte(2)].map(Option::unwrap_or_default);
    let next = HEADER_BYTES + (usize::from(settings[1]) << 8) + usize::from(settings[2]);
    let code = byte(next + HEADER_BYTES + 7);
    if byte(next + 3) == Some(GOAWAY) && code == Some(INADEQUATE_SECURITY) {
        return invalid("it speaks TLS only: use https://");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_show_the_protocol() {
        let settings = [0, 0, 6, SETTINGS, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 9];
        assert!(check(&settings).is_ok() && check(&settings[..5]).is_ok());
        assert!(check(&[0]).is_ok(), "a part of a header");
        let goaway = |code| {
            [&settings[..], &[0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, code]].concat()
        };
        assert!(check(&goaway(0)).is_ok());
        let cases: [(&[u8], &str); 5] = [
            (b"HTTP/1.1 400 Bad Request\r\n", "gRPC's is 7600"),
            (b"SSH-2.0-OpenSSH_9\r\n", "another program answers"),
            (&[21, 3, 1, 0, 2, 2, 40], "use https://"),
            (&goaway(INADEQUATE_SECURITY), "use https://"),
            (b"", "closes the connection"),
        ];
        for (first, expected) in cases {
            let error = check(first).unwrap_err().to_string();
            assert!(error.contains(expected), "{first:?}: {error}");
        }
    }
}
