//! Applies access to the requests of a listener.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::codegen::Service;

use super::identity::PeerInfo;
use super::revocation::{Direction, WatchedBody};
use super::rights::{Access, Denied};

/// Checks the requests of a listener. `R`: the body of a response.
pub struct AccessLayer<R> {
    access: Arc<Access>,
    peer: fn(&http::Extensions) -> Option<PeerInfo>,
    refuse: fn(&Denied) -> Response<R>,
    watch: fn(WatchedBody<R>) -> R,
}

impl<R> AccessLayer<R> {
    /// Checks requests; `peer` is the client, as the listener notes it in each request; `refuse`
    /// makes the response to one that isn't allowed; `watch` makes a body of one that ends when
    /// its sender isn't accepted any more.
    pub fn new(
        access: Arc<Access>,
        peer: fn(&http::Extensions) -> Option<PeerInfo>,
        refuse: fn(&Denied) -> Response<R>,
        watch: fn(WatchedBody<R>) -> R,
    ) -> Self {
        Self { access, peer, refuse, watch }
    }
}

impl<R> Clone for AccessLayer<R> {
    fn clone(&self) -> Self {
        let access = Arc::clone(&self.access);
        Self { access, peer: self.peer, refuse: self.refuse, watch: self.watch }
    }
}

impl<S, R> tower_layer::Layer<S> for AccessLayer<R> {
    type Service = AccessService<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        AccessService { inner, layer: self.clone() }
    }
}

/// A service whose requests are allowed.
pub struct AccessService<S, R> {
    inner: S,
    layer: AccessLayer<R>,
}

impl<S: Clone, R> Clone for AccessService<S, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S, R> Service<Request<R>> for AccessService<S, R>
where
    S: Service<Request<R>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<R>) -> Self::Future {
        let peer = (self.layer.peer)(request.extensions()).unwrap_or_default();
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        let path = request.uri().path();
        match self.layer.access.check(request.method(), path, request.headers(), authority, &peer) {
            Ok(identity) => {
                let Some(identity) = identity else {
                    request.extensions_mut().insert(peer);
                    return Box::pin(self.inner.call(request));
                };
                let AccessLayer { refuse, watch, .. } = self.layer;
                let pass = Arc::new(self.layer.access.pass(&identity, request.headers(), &peer));
                let access = Arc::clone(&self.layer.access);
                request.extensions_mut().insert(peer);
                request.extensions_mut().insert(identity);
                let request = request.map(|body| {
                    let (access, pass) = (Arc::clone(&access), Arc::clone(&pass));
                    watch(WatchedBody::new(body, access, pass, Direction::Request))
                });
                let response = self.inner.call(request);
                Box::pin(async move {
                    let direction = Direction::Response(refuse);
                    let watched = |body| watch(WatchedBody::new(body, access, pass, direction));
                    Ok(response.await?.map(watched))
                })
            }
            Err(denied) => {
                let response = (self.layer.refuse)(&denied);
                Box::pin(std::future::ready(Ok(response)))
            }
        }
    }
}
