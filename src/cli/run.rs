//! `tapio run`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::notify::ServiceManager;
use super::output::{Outcome, Style, Usage, message};
use super::reload::{Reloading, reload_agent};
use super::service::{READY_INTERVAL, READY_TIMEOUT, Service};
use super::signals::Signals;
use super::{live, log, process, story, telemetry};
use crate::runtime::{
    Agent, AgentProcess, Config, Sandbox, StartError, release_start_memory, snapshot_json,
};
use crate::telemetry::in_span;
use tapio_collectors::{CollectorStatus, Row};
use tapio_core::clock;
use tapio_core::cpu::ThreadLayout;
use tapio_core::memory;
use tapio_core::ring::CollectorAccount;
use tapio_core::shutdown::Shutdown;
use tapio_wire::ClientAccess;

/// Printed first: a healthy node may have no story for hours.
const WELCOME: &str = "tapio: observing this node; stories are printed as they occur.\n       \
     In another terminal: `tapio demo` causes harmless faults, `tapio tail` prints every event.";

/// Time until the first count of events is printed, which shows that collection works.
const FIRST_REPORT: Duration = Duration::from_secs(10);

/// Interval at which the agent polls rule files and collectors.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Interval at which finite sources are checked for their end.
const SOURCES_INTERVAL: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tapio run --standalone\n  tapio run --config /etc/tapio/tapio.yaml"
)]
pub(super) struct RunArgs {
    /// Configuration file; without one, the defaults apply
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Run an embedded server in the same process and print stories as they occur
    #[arg(long)]
    standalone: bool,
    /// Folder of the page's files, instead of those in the program: for work on them
    #[arg(long, value_name = "DIR", requires = "standalone")]
    web_dir: Option<PathBuf>,
    /// Exit when every source has been read to its end
    #[arg(long)]
    until_finished: bool,
}

/// Reads the configuration, or returns the defaults.
///
/// # Errors
/// An error in the file, as [`Usage`].
pub(super) fn config(path: Option<&Path>) -> anyhow::Result<Config> {
    match path {
        None => Ok(Config::default()),
        Some(path) => Config::read(path).map_err(|e| Usage(e.to_string()).into()),
    }
}

/// Moves the process's only thread, and with it all that it starts, to the CPUs that the layout has
/// for them: before the agent allocates its memory, which is then on their NUMA node.
///
/// # Errors
/// When this machine doesn't allow what the configuration requires, as [`Usage`].
fn place_threads(config: &Config, rows: &[Row]) -> anyhow::Result<ThreadLayout> {
    let layout = config.thread_layout(rows).map_err(|(key, cause)| format!("{key}: {cause}"));
    let layout = layout.and_then(ThreadLayout::permitted).map_err(Usage)?;
    layout.main_placement().begin("main");
    tracing::info!("threads: {layout}");
    Ok(layout)
}

pub(super) fn run(args: &RunArgs) -> Outcome {
    let mut config = config(args.config.as_deref())?;
    config.set_web_dir(args.web_dir.as_deref());
    let mut in_force = config.clone();
    let log = log::start(&config)?;
    process::prepare();
    memory::fix_thresholds();
    let mut service = Service::new(ServiceManager::from_environment());
    let signals =
        Signals::of_shutdown().and_then(Signals::and_reload).context("can't handle signals")?;
    let (drained, mut stories) = (Shutdown::default(), None);
    let rows = config.collectors.rows();
    let layout = place_threads(&config, &rows)?;
    let sandbox = Sandbox::of_agent(&config, args.standalone, &rows)?;
    let limits = sandbox.as_ref().map(|sandbox| Arc::clone(&sandbox.state));
    let access = config.bridge.access();
    let mut telemetry = telemetry::start(&config, "", &log)?;
    let start = || {
        let log = Some(Arc::clone(&log.level));
        let process = AgentProcess { sandbox, layout, log };
        Agent::start_in(process, config, args.standalone, rows, |rules, server| {
            stories = server
                .map(|s| print_stories(s.grpc_endpoint().to_owned(), access, drained.clone()));
            rules
        })
    };
    let agent = in_span("agent.start", start);
    let mut agent = agent.map_err(|e| match e {
        StartError::Rules(errors) => anyhow::Error::from(Usage(errors)),
        other => other.into(),
    })?;
    telemetry::export_metrics(telemetry.as_mut(), agent.metrics());
    let stories = stories.transpose()?;
    tracing::info!(admin = %agent.admin_addr(), "agent started: /status, /metrics, /healthz, /readyz");
    let reload = |agent: &mut Agent| {
        let (new, limits) = (self::config(args.config.as_deref()), limits.as_deref());
        let reloading = Reloading { new, in_force: &mut in_force, log: &log, limits };
        reload_agent(reloading, agent);
    };
    supervise(&mut agent, args, &signals, reload, &mut service);
    tracing::info!("draining");
    service.manager.stopping();
    agent.drain();
    drained.request();
    if let Some(stories) = stories {
        // A story that can't be printed any more is in the store.
        let _ = stories.join();
    }
    let has_spool = agent.has_spool();
    let account = agent.finish().account;
    tracing::info!(cons1 = %snapshot_json(&account), "agent ended");
    let in_spool = has_spool.then_some(account.total.held).filter(|held| *held > 0);
    if let Some(events) = in_spool {
        tracing::info!(
            events,
            "the spool has events that the server hasn't stored; the next start sends them"
        );
    }
    drop(telemetry);
    if !account.holds() || (account.total.held > 0 && in_spool.is_none()) {
        message("tapio: accounting identity CONS-1 violated (defect in tapio): see the log");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Polls the agent until shutdown is requested, or until its sources have ended.
fn supervise(
    agent: &mut Agent,
    args: &RunArgs,
    signals: &Signals,
    mut reload: impl FnMut(&mut Agent),
    service: &mut Service,
) {
    let interval = if args.until_finished { SOURCES_INTERVAL } else { POLL_INTERVAL };
    let started = clock::instant();
    let (mut polled, mut first_report) = (started, args.standalone.then(|| started + FIRST_REPORT));
    let is_over = |agent: &Agent| {
        signals.is_shutdown() || (args.until_finished && agent.sources_are_finished())
    };
    let mut is_watching = false;
    while !is_over(agent) {
        if !is_watching && (agent.sources_are_settled() || started.elapsed() > READY_TIMEOUT) {
            is_watching = true;
            report_watching(agent, args.standalone);
            release_start_memory();
        }
        let interval =
            if service.is_starting() || !is_watching { READY_INTERVAL } else { interval };
        signals.wait(interval.min(POLL_INTERVAL.saturating_sub(polled.elapsed())));
        if signals.take_reload() {
            service.manager.reloading();
            reload(agent);
            service.manager.ready();
        } else if polled.elapsed() >= POLL_INTERVAL {
            polled = clock::instant();
            agent.poll();
            service.report_agent(agent);
        } else if service.is_starting() {
            service.report_agent(agent);
        }
        if first_report.take_if(|at| *at <= clock::instant()).is_some() {
            message(&first_report_text(&agent.account().total));
        }
    }
}

/// Reports that the sources are open: what happens from now on isn't missed.
fn report_watching(agent: &Agent, standalone: bool) {
    let collectors = agent.collectors();
    let names = |is_open: bool| -> Vec<&str> {
        let is_as = |c: &&CollectorStatus| (c.is_settled && c.health.has_source()) == is_open;
        collectors.iter().filter(is_as).map(|c| c.name).collect()
    };
    tracing::info!(
        collectors = names(true).join(" "),
        not_open = names(false).join(" "),
        "watching: the sources of these collectors are open"
    );
    if standalone {
        message(WELCOME);
    }
}

fn first_report_text(total: &CollectorAccount) -> String {
    let dropped: u64 = total.dropped.iter().map(|d| d.2).sum();
    let stored = match (dropped, total.held) {
        (0, 0) => "all stored".to_owned(),
        (dropped, held) => {
            format!("{} stored, {dropped} dropped, {held} held", total.forwarded)
        }
    };
    format!("tapio: received {} events in {} s, {stored}", total.received, FIRST_REPORT.as_secs())
}

/// Prints each story when it opens and when it ends, until the agent has drained.
fn print_stories(
    server: String,
    access: ClientAccess,
    drained: Shutdown,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let style = Style::from_environment();
    live::follow_stories(server, access, drained, move |story| {
        if let Some(text) = story::live_text(story, &style) {
            // Standard output may be closed; the stories are in the store all the same.
            let _ = style.print(&text);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::event::{Reason, Stage};

    #[test]
    fn first_report_counts_stored_dropped_and_held() {
        let mut total = CollectorAccount { received: 85, forwarded: 85, ..Default::default() };
        assert_eq!(first_report_text(&total), "tapio: received 85 events in 10 s, all stored");
        total.forwarded = 80;
        total.held = 3;
        total.dropped = vec![(Stage::Bridge, Reason::Shutdown, 2)];
        assert_eq!(
            first_report_text(&total),
            "tapio: received 85 events in 10 s, 80 stored, 2 dropped, 3 held"
        );
    }
}
