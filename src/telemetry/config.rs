//! The section `telemetry`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::export::{OtlpSinkConfig, complete_from_env};

/// tapio's own telemetry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// The receiver, with the keys of a sink of `export.otlp`; without it nothing is exported.
    pub otlp: Option<OtlpSinkConfig>,
    /// Interval between exports of the metrics, by default a minute or
    /// `OTEL_METRIC_EXPORT_INTERVAL`.
    #[serde(with = "tapio_core::durations::option")]
    #[schemars(with = "Option<tapio_core::durations::DurationText>")]
    pub metrics_interval: Option<Duration>,
}

impl TelemetryConfig {
    /// Completes it with `OTEL_EXPORTER_OTLP_*`.
    ///
    /// # Errors
    /// The variable with an invalid value, and the cause.
    pub fn complete_from_env(
        &mut self,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<(), String> {
        self.otlp.iter_mut().try_for_each(|otlp| complete_from_env(otlp, &env))
    }

    /// Validates the values.
    ///
    /// # Errors
    /// The key of an invalid value, and why it is invalid.
    pub fn check(&self) -> Result<(), String> {
        if self.metrics_interval.is_some_and(|interval| interval < Duration::from_secs(1)) {
            return Err("metrics_interval: must be at least 1s".into());
        }
        let Some(otlp) = &self.otlp else { return Ok(()) };
        // Keys of a sink that concern events.
        if otlp.forward.is_some() || otlp.name.is_some() {
            let key = if otlp.forward.is_some() { "forward" } else { "name" };
            return Err(format!("otlp.{key}: only for sinks of export.otlp"));
        }
        otlp.check().map_err(|e| format!("otlp.{e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_events_are_refused() {
        let parse = |text: &str| serde_saphyr::from_str::<TelemetryConfig>(text);
        let config = parse("otlp: {endpoint: 'http://h:4317'}\nmetrics_interval: 10s").unwrap();
        assert_eq!(config.check(), Ok(()));
        for (text, expected) in [
            ("otlp: {forward: all}", "otlp.forward: only for sinks of export.otlp"),
            ("otlp: {name: a}", "otlp.name: only for sinks of export.otlp"),
            ("otlp: {signals: []}", "otlp.signals: must not be empty"),
            ("otlp: {endpoint: 'ftp://h:1'}", "otlp.endpoint: the scheme must be http or https"),
            ("metrics_interval: 1ms", "metrics_interval: must be at least 1s"),
        ] {
            assert_eq!(parse(text).unwrap().check().unwrap_err(), expected, "{text}");
        }
        assert!(parse("otlp: {endpont: a}").is_err());
    }
}
