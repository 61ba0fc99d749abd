//! Applies the bounds of a listener to its requests.

use std::net::SocketAddr;
use std::task::{Context, Poll};

use http::{Extensions, Request};
use tonic::codegen::Service;

use super::body::{BoundedBody, Framing};
use super::budget::Budget;

/// Bytes of messages at one listener: four of the largest.
const LISTENER_BYTES: usize = 64 * 1024 * 1024;

/// Bounds the bodies of a listener's requests. `B`: the body of a request, `O`: of what the inner
/// service takes.
pub struct DoorLayer<B, O> {
    budget: Budget,
    wrap: fn(BoundedBody<B>) -> O,
    peer: fn(&Extensions) -> Option<SocketAddr>,
}

impl<B, O> DoorLayer<B, O> {
    /// The bounds of one listener. `wrap` makes the inner service's body; `peer` is the client's
    /// address, which the listener notes in each request.
    pub fn new(wrap: fn(BoundedBody<B>) -> O, peer: fn(&Extensions) -> Option<SocketAddr>) -> Self {
        Self { budget: Budget::new(LISTENER_BYTES), wrap, peer }
    }
}

impl<B, O> Clone for DoorLayer<B, O> {
    fn clone(&self) -> Self {
        Self { budget: self.budget.clone(), wrap: self.wrap, peer: self.peer }
    }
}

impl<S, B, O> tower_layer::Layer<S> for DoorLayer<B, O> {
    type Service = DoorService<S, B, O>;

    fn layer(&self, inner: S) -> Self::Service {
        DoorService { inner, door: self.clone() }
    }
}

/// A service whose requests are within bounds.
pub struct DoorService<S, B, O> {
    inner: S,
    door: DoorLayer<B, O>,
}

impl<S: Clone, B, O> Clone for DoorService<S, B, O> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), door: self.door.clone() }
    }
}

impl<S, B, O> Service<Request<B>> for DoorService<S, B, O>
where
    S: Service<Request<O>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        let peer = (self.door.peer)(request.extensions());
        let usage = self.door.budget.open(peer.into());
        let framing = match is_grpc(&request) {
            true => Framing::grpc(),
            false => Framing::Whole { bytes: 0 },
        };
        let wrap = self.door.wrap;
        self.inner.call(request.map(|body| wrap(BoundedBody::new(body, framing, usage))))
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let media = request.headers().get(http::header::CONTENT_TYPE);
    media.is_some_and(|media| media.as_bytes().starts_with(b"application/grpc"))
}
