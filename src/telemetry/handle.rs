//! Start and stop.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::{Context, InstrumentationScope, KeyValue, global};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::sync::watch;

use super::config::TelemetryConfig;
use super::exporters::Exporter;
use super::logs::LogLayer;
use super::metrics::{MetricSource, Snapshot, register};
use super::spans::SCOPE;
use super::uplink::Uplink;
use crate::export::ExportSignal;
use tapio_core::redact::Redactor;
use tapio_wire::{OtlpClient, OtlpService};

/// How long the last batch of each signal may take.
const LAST_BATCH: Duration = Duration::from_secs(2);

/// The process, as the resource of its telemetry. `OTEL_SERVICE_NAME` and
/// `OTEL_RESOURCE_ATTRIBUTES` come before it.
pub struct Identity {
    /// Name, version, environment and cluster.
    pub service: OtlpService,
    /// `host.name`.
    pub node: String,
}

/// The running telemetry of the process. Dropping it delivers what is left, each batch with one
/// attempt.
pub struct Telemetry {
    uplink: Arc<Uplink>,
    resource: Resource,
    has_metrics: bool,
    metrics_interval: Option<Duration>,
    logs: Option<SdkLoggerProvider>,
    spans: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
    ends: watch::Sender<bool>,
    has_ended: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Telemetry {
    /// Starts logs and spans; `None` where the configuration has no receiver. Metrics follow once
    /// there is a source of them.
    ///
    /// # Errors
    /// When the thread or its reactor can't be created, or a file of the configuration can't be
    /// read.
    pub fn start(
        config: &TelemetryConfig,
        identity: &Identity,
        redactor: &Arc<Redactor>,
        log: &LogLayer,
    ) -> io::Result<Option<Self>> {
        let Some(otlp) = &config.otlp else { return Ok(None) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let client = OtlpClient::new(&otlp.client())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        drop(inside);
        let (ends, ending) = watch::channel(false);
        let (has_ended, mut end) = watch::channel(false);
        let uplink = Arc::new(Uplink::new(client, runtime.handle().clone(), ending));
        let thread = std::thread::Builder::new().name("telemetry".into()).spawn(move || {
            // Its own entries in the log aren't exported: each export would cause the next.
            let _suppressed = Context::enter_telemetry_suppressed_scope();
            // An error: the sender is gone.
            let _ = runtime.block_on(end.wait_for(|end| *end));
        })?;
        let resource = resource(identity);
        let has = |signal| otlp.signals.contains(&signal);
        let logs = has(ExportSignal::Logs).then(|| {
            let exporter = Exporter::new(&uplink, Arc::clone(redactor));
            let provider = SdkLoggerProvider::builder().with_batch_exporter(exporter);
            provider.with_resource(resource.clone()).build()
        });
        let spans = has(ExportSignal::Traces).then(|| {
            let exporter = Exporter::new(&uplink, Arc::clone(redactor));
            let provider = SdkTracerProvider::builder().with_batch_exporter(exporter);
            provider.with_resource(resource.clone()).build()
        });
        logs.iter().for_each(|provider| log.start(provider, otlp.min_severity));
        spans.iter().for_each(|provider| global::set_tracer_provider(provider.clone()));
        Ok(Some(Self {
            uplink,
            resource,
            has_metrics: has(ExportSignal::Metrics),
            metrics_interval: config.metrics_interval,
            logs,
            spans,
            metrics: None,
            ends,
            has_ended,
            thread: Some(thread),
        }))
    }

    /// Starts the export of metrics.
    pub fn export_metrics(&mut self, source: MetricSource) {
        if !self.has_metrics {
            return;
        }
        let snapshot = Arc::new(Mutex::new(Snapshot::new(source)));
        let exporter = Exporter::new(&self.uplink, Arc::clone(&snapshot));
        let mut reader = PeriodicReader::builder(exporter);
        if let Some(interval) = self.metrics_interval {
            reader = reader.with_interval(interval);
        }
        let provider = SdkMeterProvider::builder()
            .with_resource(self.resource.clone())
            .with_reader(reader.build())
            .build();
        let scope = InstrumentationScope::builder(SCOPE).with_version(env!("CARGO_PKG_VERSION"));
        register(&provider.meter_with_scope(scope.build()), &snapshot);
        self.metrics = Some(provider);
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        // Sleeping deliveries try at once.
        self.ends.send_replace(true);
        if let Some(spans) = &self.spans {
            let _ = spans.shutdown_with_timeout(LAST_BATCH);
        }
        if let Some(metrics) = &self.metrics {
            let _ = metrics.shutdown_with_timeout(LAST_BATCH);
        }
        // Last: the others may write to the log. What isn't delivered is counted.
        if let Some(logs) = &self.logs {
            let _ = logs.shutdown_with_timeout(LAST_BATCH);
        }
        self.has_ended.send_replace(true);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("telemetry: thread panicked");
        }
    }
}

fn resource(identity: &Identity) -> Resource {
    let service = &identity.service;
    let attributes = [
        ("service.name", &service.name),
        ("service.version", &service.version),
        ("deployment.environment.name", &service.environment),
        ("k8s.cluster.name", &service.cluster),
        ("host.name", &identity.node),
        ("service.instance.id", &identity.node),
    ];
    let attributes = attributes.into_iter().filter(|(_, value)| !value.is_empty());
    let attributes = attributes.map(|(key, value)| KeyValue::new(key, value.clone()));
    // The detectors come last: their attributes replace those before.
    Resource::builder_empty()
        .with_attributes(attributes)
        .with_detector(Box::new(opentelemetry_sdk::resource::TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()))
        .build()
}
