//! Applies access to the requests of a listener.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::codegen::Service;

use super::identity::PeerInfo;
use super::rights::{Access, Denied};

/// Checks the requests of a listener. `R`: the body of a response.
pub struct AccessLayer<R> {
    access: Arc<Access>,
    peer: fn(&http::Extensions) -> Option<PeerInfo>,
    refuse: fn(&Denied) -> Response<R>,
}

impl<R> AccessLayer<R> {
    /// Checks requests; `peer` is the client, as the listener notes it in each request; `refuse`
    /// makes the response to one that isn't allowed.
    pub fn new(
        access: Arc<Access>,
        peer: fn(&http::Extensions) -> Option<PeerInfo>,
        refuse: fn(&Denied) -> Response<R>,
    ) -> Self {
        Self { access, peer, refuse }
    }
}

impl<R> Clone for AccessLayer<R> {
    fn clone(&self) -> Self {
        Self { access: Arc::clone(&self.access), peer: self.peer, refuse: self.refuse }
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

impl<S, B, R> Service<Request<B>> for AccessService<S, R>
where
    S: Service<Request<B>, Response = Response<R>>,
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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let peer = (self.layer.peer)(request.extensions()).unwrap_or_default();
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        let path = request.uri().path();
        match self.layer.access.check(path, request.headers(), authority, &peer) {
            Ok(identity) => {
                request.extensions_mut().insert(peer);
                if let Some(identity) = identity {
                    request.extensions_mut().insert(identity);
                }
                Box::pin(self.inner.call(request))
            }
            Err(denied) => {
                let response = (self.layer.refuse)(&denied);
                Box::pin(std::future::ready(Ok(response)))
            }
        }
    }
}
