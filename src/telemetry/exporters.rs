//! The SDK's exporters. Messages are made by `opentelemetry-proto` and delivered by the [`Uplink`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::logs::tonic::group_logs_by_resource_and_scope;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::logs::{LogBatch, LogExporter};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use prost::Message;

use super::logs::redact_logs;
use super::metrics::Snapshot;
use super::spans::redact_spans;
use super::uplink::Uplink;
use tapio_core::redact::Redactor;
use tapio_wire::OtlpSignal;

/// An exporter of one signal.
pub(super) struct Exporter<T> {
    uplink: Arc<Uplink>,
    resource: ResourceAttributesWithSchema,
    /// The redactor of logs and spans, the source of metrics.
    source: T,
}

impl<T> std::fmt::Debug for Exporter<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

impl<T> Exporter<T> {
    pub(super) fn new(uplink: &Arc<Uplink>, source: T) -> Self {
        let resource = ResourceAttributesWithSchema::default();
        Self { uplink: Arc::clone(uplink), resource, source }
    }

    async fn deliver(
        &self,
        signal: OtlpSignal,
        message: impl Message + 'static,
        records: usize,
    ) -> OTelSdkResult {
        let uplink = Arc::clone(&self.uplink);
        let delivery = uplink.deliver(signal, message, records);
        let delivered = self.uplink.reactor().spawn(delivery).await;
        delivered.unwrap_or_else(|e| Err(OTelSdkError::InternalFailure(e.to_string())))
    }
}

impl LogExporter for Exporter<Arc<Redactor>> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let records = batch.iter().count();
        let mut resource_logs = group_logs_by_resource_and_scope(&batch, &self.resource);
        redact_logs(&mut resource_logs, &self.source);
        let message = ExportLogsServiceRequest { resource_logs };
        self.deliver(OtlpSignal::Logs, message, records).await
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

impl SpanExporter for Exporter<Arc<Redactor>> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let records = batch.len();
        let mut resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        redact_spans(&mut resource_spans, &self.source);
        let message = ExportTraceServiceRequest { resource_spans };
        self.deliver(OtlpSignal::Traces, message, records).await
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

impl PushMetricExporter for Exporter<Arc<Mutex<Snapshot>>> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let mut message = ExportMetricsServiceRequest::from(metrics);
        let scopes = message.resource_metrics.iter_mut().flat_map(|r| &mut r.scope_metrics);
        if let Some(scope) = scopes.last() {
            // The SDK's histograms can only be recorded, not observed as the others are.
            let mut snapshot = self.source.lock().unwrap_or_else(PoisonError::into_inner);
            scope.metrics.extend(snapshot.take_histograms());
        }
        let records = super::metrics::points(&message);
        self.deliver(OtlpSignal::Metrics, message, records).await
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}
