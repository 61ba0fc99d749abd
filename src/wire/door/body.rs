//! A request's body within the budget and the deadline of its listener.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;
use tonic::codegen::StdError;

use super::budget::{BodyUsage, Room};
use tapio_core::clock;

/// How long a message may take from its first byte to its last.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes before each message of gRPC: compressed or not, and the length
/// (grpc.io, "gRPC over HTTP2", Length-Prefixed-Message).
const PREFIX_BYTES: usize = 5;

/// Where the messages of a body end.
#[derive(Debug)]
pub(super) enum Framing {
    /// The body is one message.
    Whole { bytes: usize },
    /// Each has its length before it.
    Grpc { prefix: [u8; PREFIX_BYTES], prefix_bytes: usize, received: usize, missing: usize },
}

impl Framing {
    pub(super) fn grpc() -> Self {
        Self::Grpc { prefix: [0; PREFIX_BYTES], prefix_bytes: 0, received: 0, missing: 0 }
    }

    /// Takes the next bytes. Returns those of messages that are complete now, and those of the one
    /// that isn't.
    fn advance(&mut self, mut chunk: &[u8]) -> (usize, usize) {
        let mut complete = 0;
        match self {
            Self::Whole { bytes } => {
                *bytes += chunk.len();
                (0, *bytes)
            }
            Self::Grpc { prefix, prefix_bytes, received, missing } => {
                while !chunk.is_empty() {
                    if *missing == 0 {
                        let taken = chunk.len().min(PREFIX_BYTES - *prefix_bytes);
                        prefix[*prefix_bytes..*prefix_bytes + taken]
                            .copy_from_slice(&chunk[..taken]);
                        chunk.advance(taken);
                        *prefix_bytes += taken;
                        *received += taken;
                        if *prefix_bytes < PREFIX_BYTES {
                            break;
                        }
                        let len = [prefix[1], prefix[2], prefix[3], prefix[4]];
                        *missing = u32::from_be_bytes(len) as usize;
                    }
                    let taken = chunk.len().min(*missing);
                    chunk.advance(taken);
                    *missing -= taken;
                    *received += taken;
                    if *missing == 0 {
                        complete += std::mem::take(received);
                        *prefix_bytes = 0;
                    }
                }
                (complete, *received)
            }
        }
    }
}

/// A body within bounds.
pub struct BoundedBody<B> {
    inner: Pin<Box<B>>,
    framing: Framing,
    usage: BodyUsage,
    /// When the message that isn't complete has to be.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<B> BoundedBody<B> {
    pub(super) fn new(inner: B, framing: Framing, usage: BodyUsage) -> Self {
        Self { inner: Box::pin(inner), framing, usage, deadline: None }
    }

    fn set_deadline(&mut self, is_new: bool, is_unfinished: bool) {
        match &mut self.deadline {
            _ if !is_unfinished => self.deadline = None,
            Some(deadline) if is_new => {
                deadline.as_mut().reset((clock::instant() + MESSAGE_TIMEOUT).into())
            }
            Some(_) => {}
            none => *none = Some(Box::pin(tokio::time::sleep(MESSAGE_TIMEOUT))),
        }
    }
}

impl<B> Body for BoundedBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<StdError>,
{
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        match self.usage.read_on(cx.waker()) {
            Room::Free => {}
            Room::Wait => return Poll::Pending,
            Room::Evicted => {
                let cause = "no room for another unfinished message: send it again";
                return Poll::Ready(Some(Err(Status::unavailable(cause).into())));
            }
        }
        let frame = self.inner.as_mut().poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    let (complete, unfinished) = self.framing.advance(data);
                    self.usage.received(complete, unfinished);
                    self.set_deadline(complete > 0, unfinished > 0);
                }
            }
            Poll::Pending => {
                if let Some(deadline) = &mut self.deadline
                    && deadline.as_mut().poll(cx).is_ready()
                {
                    let cause =
                        format!("a message wasn't complete after {} s", MESSAGE_TIMEOUT.as_secs());
                    return Poll::Ready(Some(Err(Status::deadline_exceeded(cause).into())));
                }
            }
            Poll::Ready(_) => self.deadline = None,
        }
        frame.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::super::budget::Budget;
    use super::*;

    /// A body that sends chunks and then nothing more.
    struct Chunks(Vec<Bytes>);

    impl Body for Chunks {
        type Data = Bytes;
        type Error = StdError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
            self.0.pop().map_or(Poll::Pending, |chunk| Poll::Ready(Some(Ok(Frame::data(chunk)))))
        }
    }

    /// Begins a message and sends a part of it.
    fn unfinished(budget: &Budget, port: u16, part: usize) -> BoundedBody<Chunks> {
        let mut chunk = vec![0, 0, 0xff, 0xff, 0xff];
        chunk.resize(part, 1);
        let peer = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let usage = budget.open(Some(peer).into());
        BoundedBody::new(Chunks(vec![chunk.into()]), Framing::grpc(), usage)
    }

    fn poll(body: &mut BoundedBody<Chunks>) -> Poll<Option<Result<usize, Status>>> {
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(body).poll_frame(&mut context).map(|frame| {
            frame.map(|frame| match frame {
                Ok(frame) => Ok(frame.data_ref().map_or(0, Bytes::len)),
                Err(error) => Err(*error.downcast::<Status>().unwrap()),
            })
        })
    }

    #[test]
    fn unfinished_messages_of_one_connection_cost_others_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = runtime.enter();
        let budget = Budget::new(1_000);
        let mut hostile: Vec<_> = (0..40).map(|_| unfinished(&budget, 1, 300)).collect();
        let mut honest = unfinished(&budget, 2, 200);
        assert!(matches!(poll(&mut honest), Poll::Ready(Some(Ok(200)))));
        for body in &mut hostile {
            assert!(matches!(poll(body), Poll::Ready(Some(Ok(300)))));
        }
        let ended = hostile.iter_mut().filter_map(|body| match poll(body) {
            Poll::Ready(Some(Err(status))) => Some(status.code()),
            _ => None,
        });
        let ended: Vec<_> = ended.collect();
        assert!(ended.len() >= 37, "{} of 40", ended.len());
        assert!(ended.iter().all(|code| *code == tonic::Code::Unavailable), "senders try again");
        assert!(poll(&mut honest).is_pending(), "it can go on");
    }

    #[test]
    fn messages_of_grpc_are_recognised_however_they_are_divided() {
        let mut stream = Vec::new();
        for len in [3_u32, 0, 7, 300] {
            stream.push(0);
            stream.extend_from_slice(&len.to_be_bytes());
            stream.resize(stream.len() + len as usize, 9);
        }
        for chunk in 1..=stream.len() {
            let mut framing = Framing::grpc();
            let (mut complete, mut unfinished) = (0, 0);
            for part in stream.chunks(chunk) {
                let (more, rest) = framing.advance(part);
                complete += more;
                unfinished = rest;
            }
            assert_eq!((complete, unfinished), (stream.len(), 0), "chunks of {chunk}");
        }
        let mut framing = Framing::grpc();
        assert_eq!(framing.advance(&stream[..10]), (8, 2));
        assert_eq!(framing.advance(&stream[10..20]), (5, 7));
    }
}
