//! The sinks, as the section `export` configures them.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use tapio_core::event::Severity;
use tapio_wire::{OtlpClientConfig, OtlpCompression, OtlpProtocol, OtlpSelection, TlsClientConfig};

/// Most sinks: each reads and encodes the whole stream.
const MAX_SINKS: usize = 16;
/// Time limit of a request, as in the specification of OTLP exporters.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Exports in addition to the server.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExportConfig {
    /// Receivers of OTLP.
    pub otlp: Vec<OtlpSinkConfig>,
}

/// A signal of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExportSignal {
    /// Log records: events, and stories as they are opened, updated and ended.
    Logs,
    /// Spans: of applications, of ended stories and of measured intervals.
    Traces,
    /// Data points of applications.
    Metrics,
}

/// The events that a sink gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Forward {
    /// Stories and their events.
    #[default]
    Stories,
    /// All events.
    All,
}

/// A receiver of OTLP. Keys that are missing are taken from `OTEL_EXPORTER_OTLP_*`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OtlpSinkConfig {
    /// Its name in `/status`, metrics and logs, by default its endpoint. A sink of the same name
    /// goes on where the one of the last run ended.
    pub name: Option<String>,
    /// `http://host:port` or `https://host:port`, by default port 4317 (gRPC) or 4318 (HTTP) of
    /// this host.
    pub endpoint: Option<String>,
    /// `grpc` or `http/protobuf`.
    pub protocol: Option<OtlpProtocol>,
    /// TLS of an endpoint that is `https://`.
    pub tls: Option<TlsClientConfig>,
    /// Headers of each request.
    pub headers: BTreeMap<String, String>,
    /// `gzip`, `zstd` or `none`.
    pub compression: Option<OtlpCompression>,
    /// The signals that are sent.
    pub signals: Vec<ExportSignal>,
    /// The least severity of a log record.
    #[serde(with = "severity")]
    #[schemars(with = "severity::SeverityText")]
    pub min_severity: Severity,
    /// The events that are sent; by default stories and their events.
    pub forward: Option<Forward>,
    /// Time limit of a request.
    #[serde(with = "tapio_core::durations::option")]
    #[schemars(with = "Option<tapio_core::durations::DurationText>")]
    pub timeout: Option<Duration>,
    /// Whether the endpoint is that of the only signal, as `OTEL_EXPORTER_OTLP_LOGS_ENDPOINT` is.
    #[serde(skip)]
    pub is_signal_endpoint: bool,
}

impl Default for OtlpSinkConfig {
    fn default() -> Self {
        Self {
            name: None,
            endpoint: None,
            protocol: None,
            tls: None,
            headers: BTreeMap::new(),
            compression: None,
            signals: vec![ExportSignal::Logs, ExportSignal::Traces, ExportSignal::Metrics],
            min_severity: Severity(0),
            forward: None,
            timeout: None,
            is_signal_endpoint: false,
        }
    }
}

/// The names of severities.
mod severity {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use tapio_core::event::Severity;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Severity, D::Error> {
        let text = String::deserialize(from)?;
        Severity::parse(&text).ok_or_else(|| {
            let cause = format!("{text:?} is no severity such as `info` or `error`");
            D::Error::custom(cause)
        })
    }

    pub(super) fn serialize<S: Serializer>(from: &Severity, to: S) -> Result<S::Ok, S::Error> {
        match Severity::parse(from.as_str()) {
            Some(named) if named == *from => to.serialize_str(from.as_str()),
            _ => to.collect_str(&from.0),
        }
    }

    /// The schema of a severity. It allows more than [`Severity::parse`], never less.
    pub(super) struct SeverityText;

    impl JsonSchema for SeverityText {
        fn inline_schema() -> bool {
            true
        }

        fn schema_name() -> Cow<'static, str> {
            "Severity".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({
                "type": "string",
                "pattern": "^([A-Za-z]{3,13}|[+]?[0-9]+)$",
                "examples": ["info", "warn", "error", "critical"],
            })
        }
    }
}

impl ExportConfig {
    /// Validates the values.
    ///
    /// # Errors
    /// The key of an invalid value, and why it is invalid.
    pub fn check(&self) -> Result<(), String> {
        if self.otlp.len() > MAX_SINKS {
            return Err(format!("otlp: at most {MAX_SINKS} sinks"));
        }
        for (at, sink) in self.otlp.iter().enumerate() {
            let name = sink.name();
            if self.otlp[..at].iter().any(|other| other.name() == name) {
                return Err(format!("otlp: two sinks are named {name:?}; give each a name"));
            }
            sink.check().map_err(|e| format!("otlp: sink {name:?}: {e}"))?;
        }
        Ok(())
    }
}

impl OtlpSinkConfig {
    /// Validates the values.
    ///
    /// # Errors
    /// The key of an invalid value, and why it is invalid.
    pub fn check(&self) -> Result<(), String> {
        if self.signals.is_empty() {
            return Err("signals: must not be empty".into());
        }
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err("timeout: must be greater than zero".into());
        }
        self.client().check()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.endpoint())
    }

    /// Its transport.
    #[must_use]
    pub fn protocol(&self) -> OtlpProtocol {
        self.protocol.unwrap_or_default()
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> String {
        let default = match self.protocol() {
            OtlpProtocol::Grpc => "http://localhost:4317",
            OtlpProtocol::Http => "http://localhost:4318",
        };
        self.endpoint.clone().unwrap_or_else(|| default.to_owned())
    }

    /// The client's configuration.
    #[must_use]
    pub fn client(&self) -> OtlpClientConfig {
        OtlpClientConfig {
            endpoint: self.endpoint(),
            is_signal_endpoint: self.is_signal_endpoint,
            protocol: self.protocol(),
            tls: self.tls.clone(),
            headers: self.headers.clone().into_iter().collect(),
            compression: self.compression.unwrap_or_default(),
            timeout: self.timeout.unwrap_or(TIMEOUT),
        }
    }

    /// The items that it gets.
    pub(super) fn selection(&self) -> OtlpSelection {
        OtlpSelection {
            logs: self.signals.contains(&ExportSignal::Logs),
            traces: self.signals.contains(&ExportSignal::Traces),
            metrics: self.signals.contains(&ExportSignal::Metrics),
            min_severity: self.min_severity.0,
            only_stories: self.forward.unwrap_or_default() == Forward::Stories,
        }
    }
}
