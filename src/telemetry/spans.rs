//! Spans around work that is rare: start, reload, drain, queries. Nothing on the path of events has
//! one. Without `telemetry.otlp` they cost a branch.

use std::fmt::Display;

use opentelemetry::trace::{FutureExt as _, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, global};
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;

use super::logs::redact_attributes;
use tapio_core::redact::Redactor;

/// The instrumentation scope of all spans.
pub(super) const SCOPE: &str = "tapio";

fn start(name: &'static str) -> Context {
    let span = global::tracer(SCOPE).start(name);
    Context::current_with_span(span)
}

/// Ends a span; an error is its status.
fn end<T, E: Display>(context: &Context, outcome: &Result<T, E>) {
    let span = context.span();
    if let Err(error) = outcome
        && span.is_recording()
    {
        span.set_status(Status::error(error.to_string()));
    }
    span.end();
}

/// Does work in a span. The log records of this thread in between have its trace.
pub(crate) fn in_span<T, E: Display>(
    name: &'static str,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let context = start(name);
    let attached = context.clone().attach();
    let outcome = work();
    drop(attached);
    end(&context, &outcome);
    outcome
}

/// Does asynchronous work in a span.
pub(crate) async fn span<T, E: Display>(
    name: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let context = start(name);
    let outcome = work.with_context(context.clone()).await;
    end(&context, &outcome);
    outcome
}

/// Removes secrets from spans.
pub(super) fn redact_spans(resources: &mut [ResourceSpans], redactor: &Redactor) {
    let scopes = resources.iter_mut().flat_map(|resource| &mut resource.scope_spans);
    for span in scopes.flat_map(|scope| &mut scope.spans) {
        redact_attributes(&mut span.attributes, redactor);
        if let Some(status) = &mut span.status {
            redactor.redact(&mut status.message);
        }
        for event in &mut span.events {
            redact_attributes(&mut event.attributes, redactor);
        }
    }
}
