//! W3C trace context and baggage of a stream of batches, in its request's headers: a server, or a
//! proxy on the way, can tell which agent's stream it has and follow it.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::propagation::{Injector, TextMapPropagator as _};
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use tapio_core::clock;
use tapio_core::event::stable_hash;

struct Headers(HeaderMap);

impl Injector for Headers {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) =
            (HeaderName::from_bytes(key.as_bytes()), HeaderValue::from_str(&value))
        {
            self.0.insert(key, value);
        }
    }
}

/// The headers of a new stream of a node: a trace of its own, and the node's name as baggage.
pub(super) fn delivery_headers(node: &str) -> HeaderMap {
    let now = clock::wall_ns().to_le_bytes();
    let process = std::process::id().to_le_bytes();
    let trace = stable_hash(&[b"delivery", node.as_bytes(), &process, &now]);
    let mut span = [0; 8];
    span.copy_from_slice(&stable_hash(&[b"stream", &trace])[..8]);
    let span = SpanContext::new(
        TraceId::from_bytes(trace),
        SpanId::from_bytes(span),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    );
    let context = Context::new()
        .with_remote_span_context(span)
        .with_baggage([KeyValue::new("host.name", node.to_owned())]);
    let mut headers = Headers(HeaderMap::new());
    TraceContextPropagator::new().inject_context(&context, &mut headers);
    BaggagePropagator::new().inject_context(&context, &mut headers);
    headers.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_the_form_of_the_w3c() {
        let headers = delivery_headers("node 1");
        let traceparent = headers["traceparent"].to_str().unwrap();
        let parts: Vec<&str> = traceparent.split('-').collect();
        assert_eq!((parts[0], parts[3]), ("00", "01"));
        assert_eq!((parts[1].len(), parts[2].len()), (32, 16));
        assert_eq!(headers["baggage"], "host.name=node%201");
        assert_ne!(delivery_headers("node 1")["traceparent"], traceparent);
    }
}
