//! `tapio server`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use super::log::{self, Log};
use super::output::Outcome;
use super::run::config;
use super::signals::Signals;
use crate::runtime::Config;
use crate::server::{Server, ServerHandle};

/// Interval at which the server's end is noticed.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
#[command(after_help = "Example:\n  tapio server --config /etc/tapio/server.yaml")]
pub(super) struct Args {
    /// Configuration file; without one, the defaults apply. SIGHUP reloads it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Outcome {
    let started = config(args.config.as_deref())?;
    let mut log = log::start(&started.log)?;
    let signals =
        Signals::of_shutdown().and_then(Signals::and_reload).context("can't handle signals")?;
    let mut server = Server::start(started.server())?;
    while !signals.is_shutdown() && !server.is_finished() {
        signals.wait(POLL_INTERVAL);
        if signals.take_reload()
            && let Err(e) = config(args.config.as_deref())
                .and_then(|config| reload(&config, &mut server, &mut log))
        {
            tracing::error!("configuration reload refused, keeping the one in force: {e:#}");
        }
    }
    server.stop();
    let stats = serde_json::to_string(&server.status()).unwrap_or_default();
    tracing::info!(%stats, "server ended");
    Ok(ExitCode::SUCCESS)
}

/// Applies a configuration, and logs how it differs from the one in force.
///
/// # Errors
/// An invalid value; nothing has changed then.
fn reload(config: &Config, server: &mut ServerHandle, log: &mut Log) -> anyhow::Result<()> {
    let level = log.set_level(&config.log)?;
    let changes = server.reload(config.server())?;
    let applied = changes.applied.iter().map(|change| format!("server.{change}"));
    let applied: Vec<String> = applied.chain(level).collect();
    let format = log.needs_restart(&config.log).then(|| "log.format".to_owned());
    let need_restart = changes.need_restart.iter().map(|key| format!("server.{key}"));
    let need_restart: Vec<String> = need_restart.chain(format).collect();
    if applied.is_empty() {
        tracing::info!("configuration reloaded: no value changed that can be reloaded");
    } else {
        tracing::info!("configuration reloaded: {}", applied.join(", "));
    }
    if !need_restart.is_empty() {
        tracing::warn!(
            "configuration reloaded: changes of {} take effect at the next start",
            need_restart.join(", ")
        );
    }
    Ok(())
}
