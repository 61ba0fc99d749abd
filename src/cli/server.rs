//! `tapio server`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use super::notify::ServiceManager;
use super::output::Outcome;
use super::reload::{Reloading, reload_server};
use super::run::config;
use super::service::Service;
use super::signals::Signals;
use super::{log, process, telemetry};
use crate::runtime::{Sandbox, builtin_rule_texts};
use crate::server::Server;
use crate::telemetry::in_span;
use tapio_core::memory;

/// Interval at which the server's end is noticed.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
#[command(after_help = "Example:\n  tapio server --config /etc/tapio/server.yaml")]
pub(super) struct Args {
    /// Configuration file; without one, the defaults apply. SIGHUP reloads it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the page's files, instead of those in the program: for work on them
    #[arg(long, value_name = "DIR")]
    web_dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Outcome {
    let mut started = config(args.config.as_deref())?;
    started.set_web_dir(args.web_dir.as_deref());
    let log = log::start(&started)?;
    process::prepare();
    memory::fix_thresholds();
    let mut service = Service::new(ServiceManager::from_environment());
    let signals =
        Signals::of_shutdown().and_then(Signals::and_reload).context("can't handle signals")?;
    let sandbox = Sandbox::of_server(&started)?;
    let limits = sandbox.as_ref().map(|sandbox| &*sandbox.state);
    let mut telemetry = telemetry::start(&started, "-server", &log)?;
    let mut server = in_span("server.start", || Server::start(started.server()))?;
    server.describe_rules(builtin_rule_texts);
    telemetry::export_metrics(telemetry.as_mut(), server.metrics());
    while !signals.is_shutdown() && !server.is_finished() {
        service.report_server(server.http_addr, "receiving");
        signals.wait(POLL_INTERVAL);
        if !signals.take_reload() {
            continue;
        }
        service.manager.reloading();
        let new = config(args.config.as_deref());
        let reloading = Reloading { new, in_force: &mut started, log: &log, limits };
        reload_server(reloading, &mut server);
        service.manager.ready();
    }
    service.manager.stopping();
    server.stop();
    let stats = serde_json::to_string(&server.status()).unwrap_or_default();
    tracing::info!(%stats, "server ended");
    Ok(ExitCode::SUCCESS)
}
