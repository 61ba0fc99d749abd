//! A connection's socket, and until when it has to say something.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;

use super::connection::Connection;
use tapio_core::clock;

/// Time in which a new connection has to say something.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that can be given back after they were read.
const UNREAD_BYTES: usize = 8;

/// A socket.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Calls a method of the socket's stream.
macro_rules! stream {
    ($socket:expr, $stream:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($stream) => $call,
            Socket::Unix($stream) => $call,
        }
    };
}

/// A connection's socket, which ends when another connection needs its place or it says nothing.
pub(super) struct TimedSocket {
    socket: Socket,
    connection: Arc<Connection>,
    /// Until when it has to say something.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Bytes that were read and given back, and their number.
    unread: ([u8; UNREAD_BYTES], usize),
}

impl TimedSocket {
    pub(super) fn new(socket: Socket, connection: Arc<Connection>) -> Self {
        let deadline = Some(Box::pin(tokio::time::sleep(FIRST_BYTE_TIMEOUT)));
        Self { socket, connection, deadline, unread: Default::default() }
    }

    /// The first bytes of a new connection, which are read again; none at its end.
    pub(super) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let mut first = [0; UNREAD_BYTES];
        let mut buffer = ReadBuf::new(&mut first);
        std::task::ready!(Pin::new(&mut *self).poll_read(cx, &mut buffer))?;
        let len = buffer.filled().len();
        self.unread = (first, len);
        Poll::Ready(Ok(&self.unread.0[..len]))
    }
}

impl AsyncRead for TimedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let (bytes, len) = this.unread;
        if len > 0 {
            let taken = len.min(buffer.remaining());
            buffer.put_slice(&bytes[..taken]);
            this.unread.0.copy_within(taken..len, 0);
            this.unread.1 = len - taken;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = stream!(&mut this.socket, s => Pin::new(s).poll_read(cx, buffer));
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
                    let error = io::Error::new(io::ErrorKind::TimedOut, "it said nothing");
                    return Poll::Ready(Err(error));
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

pub(super) fn ended(cause: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, cause)
}

impl AsyncWrite for TimedSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        stream!(&mut self.socket, s => Pin::new(s).poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        stream!(&mut self.socket, s => Pin::new(s).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        stream!(&mut self.socket, s => Pin::new(s).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        stream!(&mut self.socket, s => Pin::new(s).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        stream!(&self.socket, s => s.is_write_vectored())
    }
}
