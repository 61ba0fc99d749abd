//! The log on standard error, of which level and format can be changed.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tapio_core::redact::RedactingWriter;
use tracing::Metadata;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::{Context, Filter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, reload};

use super::output::Usage;
use crate::runtime::{Config, LogConfig, LogFormat, LogLevel, check_level};
use crate::telemetry::LogLayer;

/// The running log.
pub(super) struct Log {
    /// Its level.
    pub(super) level: Arc<LogLevel>,
    is_json: Arc<AtomicBool>,
    /// Passes entries on to `telemetry.otlp` once that has started.
    pub(super) records: LogLayer,
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    check_level(level).map_err(|cause| format!("log.level: {cause}"))?;
    EnvFilter::try_new(level).map_err(|e| format!("log.level: {e}"))
}

/// Whether the layer of a format writes.
fn writes<S: 'static>(is_json: &Arc<AtomicBool>, json: bool) -> impl Filter<S> + 'static + use<S> {
    let is_json = Arc::clone(is_json);
    // Relaxed, paired with the store in `reload`: nothing else depends on it.
    dynamic_filter_fn(move |_: &Metadata<'_>, _: &Context<'_, S>| {
        is_json.load(Ordering::Relaxed) == json
    })
}

/// Starts logging to standard error, without secrets.
///
/// # Errors
/// An invalid level, as [`Usage`]; or another log runs already.
pub(super) fn start(config: &Config) -> anyhow::Result<Log> {
    let redactor = config.redactor();
    let config = &config.log;
    let writer = move || RedactingWriter::new(std::io::stderr(), Arc::clone(&redactor));
    let (filters, handle) = reload::Layer::new(filter(&config.level).map_err(Usage)?);
    let is_json = Arc::new(AtomicBool::new(config.format == LogFormat::Json));
    // Each format has a layer of its own, of which one writes: both keep the fields of spans.
    let lines = tracing_subscriber::fmt::layer().with_writer(writer.clone());
    let colours = std::io::stderr().is_terminal();
    let text = lines.with_ansi(colours).with_target(false).with_filter(writes(&is_json, false));
    let json = tracing_subscriber::fmt::layer().with_writer(writer).json();
    let json = json.with_filter(writes(&is_json, true));
    let records = LogLayer::default();
    let log = tracing_subscriber::registry().with(filters).with(text).with(json);
    let log = log.with(records.clone());
    log.try_init().map_err(|e| anyhow::anyhow!("can't start the log: {e}"))?;
    let level = LogLevel::new(config.level.clone(), move |level| {
        handle.reload(filter(level)?).map_err(|e| e.to_string())
    });
    Ok(Log { level: Arc::new(level), is_json, records })
}

impl Log {
    /// Takes over level and format.
    ///
    /// # Errors
    /// An invalid level, as [`Usage`]; nothing has changed then.
    pub(super) fn reload(&self, config: &LogConfig) -> anyhow::Result<()> {
        // A temporary level doesn't put the configured one to the test.
        filter(&config.level).map_err(Usage)?;
        self.level.configure(&config.level).map_err(Usage)?;
        self.is_json.store(config.format == LogFormat::Json, Ordering::Relaxed);
        Ok(())
    }
}
