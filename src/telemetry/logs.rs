//! The log as log records.

use std::sync::{Arc, OnceLock};

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::ResourceLogs;
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use serde_json::{Value as Json, json};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use tapio_core::event::Severity;
use tapio_core::redact::Redactor;

/// The part of the log that passes its entries on as log records. The log starts before the process
/// has limited its rights, the SDK's threads after it: entries until then aren't passed on.
#[derive(Clone, Default)]
pub struct LogLayer(Arc<OnceLock<Started>>);

struct Started {
    bridge: OpenTelemetryTracingBridge<SdkLoggerProvider, SdkLogger>,
    min_severity: Severity,
}

impl LogLayer {
    /// Passes entries of at least this severity on from now on.
    pub(super) fn start(&self, provider: &SdkLoggerProvider, min_severity: Severity) {
        let bridge = OpenTelemetryTracingBridge::new(provider);
        // A second start keeps the first: a process has one telemetry.
        let _ = self.0.set(Started { bridge, min_severity });
    }
}

/// The severity of a level ("Logs Data Model", mapping of SeverityNumber).
fn severity(level: Level) -> Severity {
    Severity(match level {
        Level::ERROR => 17,
        Level::WARN => 13,
        Level::INFO => 9,
        Level::DEBUG => 5,
        Level::TRACE => 1,
    })
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if let Some(started) = self.0.get()
            && severity(*event.metadata().level()).0 >= started.min_severity.0
        {
            started.bridge.on_event(event, context);
        }
    }
}

/// Removes secrets from log records.
pub(super) fn redact_logs(resources: &mut [ResourceLogs], redactor: &Redactor) {
    let scopes = resources.iter_mut().flat_map(|resource| &mut resource.scope_logs);
    for record in scopes.flat_map(|scope| &mut scope.log_records) {
        if let Some(AnyValue { value: Some(Value::StringValue(text)) }) = &mut record.body {
            redactor.redact(text);
        }
        redact_attributes(&mut record.attributes, redactor);
    }
}

/// Removes secrets from texts, those with the name of a secret too.
pub(super) fn redact_attributes(attributes: &mut [KeyValue], redactor: &Redactor) {
    for attribute in attributes {
        let Some(AnyValue { value: Some(Value::StringValue(text)) }) = &mut attribute.value else {
            continue;
        };
        let mut named = json!({ &attribute.key: std::mem::take(text) });
        redactor.redact_json(&mut named);
        if let Some(Json::String(redacted)) = named.get_mut(&attribute.key) {
            *text = std::mem::take(redacted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ScopeLogs};

    fn text(text: &str) -> Option<AnyValue> {
        Some(AnyValue { value: Some(Value::StringValue(text.into())) })
    }

    #[test]
    fn secrets_leave_neither_in_the_body_nor_in_attributes() {
        let attribute = |key: &str, value| KeyValue {
            key: key.into(),
            value: text(value),
            ..KeyValue::default()
        };
        let record = LogRecord {
            body: text("can't connect to https://user:hunter2@host/"),
            attributes: vec![attribute("password", "hunter2"), attribute("file", "a.yaml")],
            ..LogRecord::default()
        };
        let scope_logs = vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }];
        let mut resources = [ResourceLogs { scope_logs, ..ResourceLogs::default() }];
        redact_logs(&mut resources, &Redactor::builtin());
        let record = &resources[0].scope_logs[0].log_records[0];
        assert!(!format!("{record:?}").contains("hunter2"), "{record:?}");
        assert_eq!(record.attributes[1].value, text("a.yaml"));
    }
}
