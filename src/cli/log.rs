//! The log on standard error, of which the level can be changed.

use std::io::IsTerminal as _;
use std::sync::Arc;

use tapio_core::redact::{RedactConfig, RedactingWriter};
use tracing_subscriber::EnvFilter;

use super::output::Usage;
use crate::runtime::{Config, LogConfig, LogFormat};

/// The running log.
pub(super) struct Log {
    config: LogConfig,
    redact: RedactConfig,
    set_filter: Box<dyn Fn(EnvFilter) -> anyhow::Result<()>>,
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
    let config = &config.log;
    let writer = move || RedactingWriter::new(std::io::stderr(), Arc::clone(&redactor));
    let log = tracing_subscriber::fmt().with_writer(writer);
    let log = log.with_env_filter(filter(config)?);
    let (started, set_filter): (_, Box<dyn Fn(EnvFilter) -> anyhow::Result<()>>) =
        match config.format {
            LogFormat::Json => {
                let log = log.json().with_filter_reloading();
                let handle = log.reload_handle();
                (log.try_init(), Box::new(move |filter| Ok(handle.reload(filter)?)))
            }
            LogFormat::Text => {
                let terminal = std::io::stderr().is_terminal();
                let log = log.with_ansi(terminal).with_target(false).with_filter_reloading();
                let handle = log.reload_handle();
                (log.try_init(), Box::new(move |filter| Ok(handle.reload(filter)?)))
            }
        };
    started.map_err(|e| anyhow::anyhow!("can't start the log: {e}"))?;
    Ok(Log { config: config.clone(), redact, set_filter })
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
        (self.set_filter)(filter(config)?)?;
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
