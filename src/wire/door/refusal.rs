//! The answer to a client whose handshake fails: the alert of TLS, or, if it doesn't speak TLS,
//! the cause in its own protocol. The connection then stays open until the client has read it: a
//! socket that is closed with bytes that nobody has read resets the connection, and the answer is
//! lost.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::Sleep;

use super::socket::TimedSocket;

/// How long the client has to read the answer.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// The begin of the preface of HTTP/2 (RFC 9113, section 3.4).
const HTTP2: &[u8] = b"PRI ";
const CAUSE: &str = "this port speaks TLS only";

/// The answer to one client.
pub(super) struct Refusal {
    socket: TimedSocket,
    answer: Vec<u8>,
    written: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Refusal {
    /// Answers a client that doesn't speak TLS and began with these bytes.
    pub(super) fn of_plain(socket: TimedSocket, first: &[u8]) -> Self {
        Self::new(socket, if first.starts_with(HTTP2) { http2() } else { http1() })
    }

    /// Waits for a client to which an alert was sent.
    pub(super) fn of_alert(socket: TimedSocket) -> Self {
        Self::new(socket, Vec::new())
    }

    fn new(socket: TimedSocket, answer: Vec<u8>) -> Self {
        let deadline = Box::pin(tokio::time::sleep(READ_TIMEOUT));
        Self { socket, answer, written: 0, deadline }
    }

    /// Ready when the client has read the answer, or had the time to.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // An error: the client is gone.
        self.poll_answer(cx).map(drop)
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.answer.len() {
            let rest = &self.answer[self.written..];
            let written = std::task::ready!(Pin::new(&mut self.socket).poll_write(cx, rest))?;
            self.written += written.max(1);
        }
        std::task::ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
        loop {
            let mut bytes = [0; 1024];
            let mut buffer = ReadBuf::new(&mut bytes);
            std::task::ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

fn http1() -> Vec<u8> {
    let len = CAUSE.len() + 1;
    format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {len}\r\n\
         connection: close\r\n\r\n{CAUSE}\n"
    )
    .into_bytes()
}

/// An empty SETTINGS frame, and GOAWAY with INADEQUATE_SECURITY (RFC 9113, sections 6.5, 6.8, 7).
fn http2() -> Vec<u8> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const INADEQUATE_SECURITY: u8 = 0xc;
    let len = 8 + CAUSE.len() as u8;
    let mut answer = SETTINGS.to_vec();
    answer.extend([0, 0, len, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, INADEQUATE_SECURITY]);
    answer.extend_from_slice(CAUSE.as_bytes());
    answer
}
