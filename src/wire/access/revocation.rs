//! Ends the streams of an identity that isn't accepted any more: its token was removed from the
//! file, or the authority of its certificate.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;
use tonic::codegen::StdError;

use super::rights::{Access, Denied, Pass};
use tapio_core::clock;

/// Time between two checks of a stream: files are looked at as often.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The direction of a body.
pub(super) enum Direction<R> {
    Request,
    /// A response, which ends as one that is refused.
    Response(fn(&Denied) -> Response<R>),
}

/// A body that ends once its sender's identity isn't accepted any more. One that never waits needs
/// no timer.
pub struct WatchedBody<B> {
    inner: Pin<Box<B>>,
    access: Arc<Access>,
    pass: Arc<Pass>,
    direction: Direction<B>,
    next: Option<Pin<Box<Sleep>>>,
    has_ended: bool,
}

impl<B> WatchedBody<B> {
    pub(super) fn new(
        inner: B,
        access: Arc<Access>,
        pass: Arc<Pass>,
        direction: Direction<B>,
    ) -> Self {
        Self { inner: Box::pin(inner), access, pass, direction, next: None, has_ended: false }
    }

    /// Checks the identity when that is due.
    fn check(&mut self, cx: &mut Context<'_>) -> Result<(), Denied> {
        let Some(next) = &mut self.next else { return Ok(()) };
        while next.as_mut().poll(cx).is_ready() {
            self.access.check_again(&self.pass)?;
            next.as_mut().reset((clock::instant() + CHECK_INTERVAL).into());
        }
        Ok(())
    }

    /// The last frame of a stream that was revoked.
    fn end(&mut self, denied: &Denied) -> Result<Frame<Bytes>, StdError> {
        self.has_ended = true;
        let Direction::Response(refuse) = &self.direction else {
            return Err(Status::unauthenticated(denied.cause.as_str()).into());
        };
        let headers = refuse(denied).into_parts().0.headers;
        let is_status = |name: &http::HeaderName| name.as_str().starts_with("grpc-");
        let named = headers.into_iter().filter_map(|(name, value)| Some((name?, value)));
        let trailers: HeaderMap = named.filter(|(name, _)| is_status(name)).collect();
        if trailers.is_empty() {
            // A response of HTTP that isn't complete must not look as if it was.
            return Err(denied.cause.clone().into());
        }
        Ok(Frame::trailers(trailers))
    }
}

impl<B> Body for WatchedBody<B>
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
        if self.has_ended {
            return Poll::Ready(None);
        }
        if let Err(denied) = self.check(cx) {
            return Poll::Ready(Some(self.end(&denied)));
        }
        let frame = self.inner.as_mut().poll_frame(cx).map_err(Into::into);
        if frame.is_pending() && self.next.is_none() {
            self.next = Some(Box::pin(tokio::time::sleep(CHECK_INTERVAL)));
            // Not due yet: this lets the timer wake the task.
            let _ = self.check(cx);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
