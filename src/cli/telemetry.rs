//! tapio's own telemetry, as `tapio run` and `tapio server` start and end it.

use anyhow::Context as _;

use super::log::Log;
use crate::runtime::Config;
use crate::telemetry::{Identity, MetricSource, Telemetry};

/// Starts telemetry where it is configured: to be called once the process has limited its rights.
/// `role` is appended to the name of the service.
///
/// # Errors
/// When a file of the configuration can't be read, or a thread can't be started.
pub(super) fn start(config: &Config, role: &str, log: &Log) -> anyhow::Result<Option<Telemetry>> {
    let mut service = config.otlp_service();
    service.name.push_str(role);
    let identity = Identity { service, node: config.node_name() };
    Telemetry::start(&config.telemetry, &identity, &config.redactor(), &log.records)
        .context("telemetry.otlp")
}

/// Exports the metrics, too, from now on.
pub(super) fn export_metrics(telemetry: Option<&mut Telemetry>, source: MetricSource) {
    if let Some(telemetry) = telemetry {
        telemetry.export_metrics(source);
    }
}
