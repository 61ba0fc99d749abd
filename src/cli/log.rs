//! The log on standard error, of which the level can be changed.

use std::io::IsTerminal as _;
use std::sync::Arc;

use tapio_core::redact::{RedactConfig, RedactingWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

use super::output::Usage;
use crate::runtime::{Config, LogConfig, LogFormat};
use crate::telemetry::LogLayer;

/// The running log.
pub(super) struct Log {
    config: LogConfig,
    redact: RedactConfig,
    filter: reload::Handle<EnvFilter, Registry>,
    /// Passes entries on to `telemetry.otlp` once that has started.
    pub(super) records: LogLayer,
}

fn filter(config: &LogConfig) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(&config.level).map_err(|e| Usage(format!("log.level: {e}")).into())
}

/// Starts logging to standard error, without secrets.
///
/// # Errors
/// An invalid level, as [`Usage`]; or another log runs already.
pub(super) fn start(config: &Config) -> anyhow::Result<Log> {
    let (redact, redactor) = (config.redact.clone(), config.redactor());
    let config = config.log.clone();
    let writer = move || RedactingWriter::new(std::io::stderr(), Arc::clone(&redactor));
    let (filters, filter) = reload::Layer::new(filter(&config)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match config.format {
        LogFormat::Json => lines.json().boxed(),
        LogFormat::Text => {
            lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed()
        }
    };
    let records = LogLayer::default();
    let log = tracing_subscriber::registry().with(filters).with(lines).with(records.clone());
    log.try_init().map_err(|e| anyhow::anyhow!("can't start the log: {e}"))?;
    Ok(Log { config, redact, filter, records })
}

impl Log {
    /// Changes the level. Returns the change as text; `None` if there is none.
    ///
    /// # Errors
    /// An invalid level; the one in force stays.
    pub(super) fn set_level(&mut self, config: &LogConfig) -> anyhow::Result<Option<String>> {
        if config.level == self.config.level {
            return Ok(None);
        }
        self.filter.reload(filter(config)?)?;
        let change = format!("log.level: {} → {}", self.config.level, config.level);
        self.config.level.clone_from(&config.level);
        Ok(Some(change))
    }

    /// The keys of values that differ and take effect at the next start.
    pub(super) fn needs_restart(&self, config: &Config) -> impl Iterator<Item = String> {
        let format = (config.log.format != self.config.format).then_some("log.format");
        let redact = (config.redact != self.redact).then_some("redact");
        format.into_iter().chain(redact).map(str::to_owned)
    }
}
