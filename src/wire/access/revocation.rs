//! Ends the streams of an identity that isn't accepted any more: its token was removed from the
//! file, or the authority of its certificate.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

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

/// A body that ends once its sender's identity isn't accepted any more. One that never waits is
/// checked between two frames, and needs no timer.
pub struct WatchedBody<B> {
    inner: Pin<Box<B>>,
    access: Arc<Access>,
    pass: Arc<Pass>,
    direction: Direction<B>,
    /// When the identity is checked next.
    due: Instant,
    /// Wakes the task of a body that waits.
    timer: Option<Pin<Box<Sleep>>>,
    has_ended: bool,
}

impl<B> WatchedBody<B> {
    pub(super) fn new(
        inner: B,
        access: Arc<Access>,
        pass: Arc<Pass>,
        direction: Direction<B>,
    ) -> Self {
        let due = clock::instant() + CHECK_INTERVAL;
        let inner = Box::pin(inner);
        Self { inner, access, pass, direction, due, timer: None, has_ended: false }
    }

    /// Checks the identity, if that is due.
    fn check(&mut self) -> Result<(), Denied> {
        let now = clock::instant();
        if now >= self.due {
            self.access.check_again(&self.pass)?;
            self.due = now + CHECK_INTERVAL;
        }
        Ok(())
    }

    /// Has the task woken when the next check is due. Ready: it is due.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.due.into();
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
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
        loop {
            if let Err(denied) = self.check() {
                return Poll::Ready(Some(self.end(&denied)));
            }
            let frame = self.inner.as_mut().poll_frame(cx).map_err(Into::into);
            if frame.is_ready() || self.poll_due(cx).is_pending() {
                return frame;
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http::header::AUTHORIZATION;

    use super::super::config::AccessConfig;
    use super::super::identity::PeerInfo;
    use super::super::right::Right;
    use super::*;

    /// A body that always has a frame.
    struct Endless;

    impl Body for Endless {
        type Data = Bytes;
        type Error = StdError;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    #[test]
    fn body_that_never_waits_ends_when_its_token_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        let write = |content: &str| {
            std::fs::write(&tokens, content).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&tokens, mode).unwrap();
        };
        write("write n1 token-of-n1\nwrite n2 token-of-n2\n");
        let config = AccessConfig { token_file: Some(tokens.clone()), ..Default::default() };
        let access = Access::grpc("test", &config, |_, _| Some(Right::Write)).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, "Bearer token-of-n1".parse().unwrap());
        let peer = PeerInfo::default();
        let identity =
            access.check(&http::Method::GET, "/", &headers, None, &peer).unwrap().unwrap();
        let pass = Arc::new(access.pass(&identity, &headers, &peer));
        let mut body = WatchedBody::new(Endless, access, pass, Direction::Request);
        let mut next = || {
            let mut cx = Context::from_waker(Waker::noop());
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => unreachable!("the body never waits"),
            }
        };
        assert!(next().unwrap().is_ok());
        write("write n2 token-of-n2\n");
        let end = loop {
            match next() {
                Some(Ok(_)) => std::thread::yield_now(),
                Some(Err(end)) => break end.to_string(),
                None => unreachable!("the body has no end"),
            }
        };
        assert!(end.contains("isn't accepted any more"), "{end}");
        assert!(next().is_none());
    }
}
