//! The response to an export request, for both sides of it ("OTLP Specification", section "Partial
//! Success").

use prost::Message;

use crate::otlp::OtlpSignal;

/// `ExportLogsServiceResponse`, `ExportTraceServiceResponse`, `ExportMetricsServiceResponse`: their
/// fields have the same numbers.
#[derive(Clone, PartialEq, Message)]
pub struct OtlpResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) partial_success: Option<PartialSuccess>,
}

/// How many records were rejected, and why.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(crate) rejected: i64,
    #[prost(string, tag = "2")]
    pub(crate) error_message: String,
}

impl OtlpResponse {
    /// A response: empty, or with the number of records that weren't accepted; then `cause` is
    /// formatted.
    #[must_use]
    pub fn new(rejected: u64, cause: &dyn std::fmt::Display) -> Self {
        let partial_success = (rejected > 0).then(|| PartialSuccess {
            rejected: i64::try_from(rejected).unwrap_or(i64::MAX),
            error_message: cause.to_string(),
        });
        Self { partial_success }
    }

    /// The response in JSON, whose field names depend on the signal.
    #[must_use]
    pub fn json(&self, signal: OtlpSignal) -> serde_json::Value {
        let Some(PartialSuccess { rejected, error_message }) = &self.partial_success else {
            return serde_json::json!({});
        };
        let name = match signal {
            OtlpSignal::Logs => "rejectedLogRecords",
            OtlpSignal::Traces => "rejectedSpans",
            OtlpSignal::Metrics => "rejectedDataPoints",
        };
        // An int64 is text in JSON.
        let rejected = rejected.to_string();
        serde_json::json!({"partialSuccess": {name: rejected, "errorMessage": error_message}})
    }
}
