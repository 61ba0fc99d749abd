//! The log on standard error, of which the level can be changed.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::output::Usage;
use crate::runtime::{LogConfig, LogFormat};

/// The running log.
pub(super) struct Log {
    config: LogConfig,
    set_filter: Box<dyn Fn(EnvFilter) -> anyhow::Result<()>>,
}

fn filter(config: &LogConfig) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(&config.level).map_err(|e| Usage(format!("log.level: {e}")).into())
}

/// Starts logging to standard error.
///
/// # Errors
/// An invalid level, as [`Usage`]; or another log runs already.
pub(super) fn start(config: &LogConfig) -> anyhow::Result<Log> {
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr);
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
    Ok(Log { config: config.clone(), set_filter })
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

    /// Whether the format differs, which takes effect at the next start.
    pub(super) fn needs_restart(&self, config: &LogConfig) -> bool {
        config.format != self.config.format
    }
}
