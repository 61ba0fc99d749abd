//! `tapio run`, `tapio server`, `tapio check`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use super::signals::Signals;
use super::{BAD_USAGE, Outcome, Usage, print, story, tell};
use crate::runtime::{Agent, Config, LogConfig, LogFormat, StartError, snapshot_json};
use crate::server::Server;
use tapio_core::clock;
use tapio_core::shutdown::Shutdown;

/// What a newcomer sees first: a healthy machine may have no story for hours.
const WELCOME: &str = "tapio: watching this machine; stories appear here as they happen.\n       \
     In another terminal: `tapio demo` causes harmless faults, `tapio tail` shows every event.";

/// When a newcomer is told that something is seen.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// How often rules and collectors are looked after.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// How often it is looked whether sources that have an end are there.
const SOURCES_END: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  tapio run --standalone\n  tapio run --config /etc/tapio/tapio.yaml"
)]
pub(super) struct RunArgs {
    /// The configuration file; without one, the defaults hold
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Bring an embedded server in the same process and print stories as they happen
    #[arg(long)]
    standalone: bool,
    /// End when every source has been read to its end
    #[arg(long)]
    until_finished: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  tapio server --config /etc/tapio/server.yaml")]
pub(super) struct ServerArgs {
    /// The configuration file; without one, the defaults hold
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  tapio check --config tapio.yaml")]
pub(super) struct CheckArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Reads the configuration, or takes the defaults.
///
/// # Errors
/// A mistake in the file, as [`Usage`].
pub(super) fn config(path: Option<&Path>) -> anyhow::Result<Config> {
    match path {
        None => Ok(Config::default()),
        Some(path) => Config::read(path).map_err(|e| Usage(e.to_string()).into()),
    }
}

/// Sends the log to standard error.
pub(super) fn start_log(config: &LogConfig) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.level)
        .map_err(|e| Usage(format!("log.level: {e}")))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Json => log.json().try_init(),
        LogFormat::Text => {
            let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            log.with_ansi(terminal).with_target(false).try_init()
        }
    };
    started.map_err(|e| anyhow::anyhow!("the log: {e}"))
}

pub(super) fn run(args: &RunArgs) -> Outcome {
    let config = config(args.config.as_deref())?;
    start_log(&config.log)?;
    let signals = Signals::of_end().and_then(Signals::and_again).context("signals")?;
    let mut agent = Agent::start(config, args.standalone).map_err(|e| match e {
        StartError::Rules(complaints) => anyhow::Error::from(Usage(complaints)),
        other => other.into(),
    })?;
    tracing::info!(admin = %agent.admin_addr(), "tapio runs: /status, /metrics, /healthz, /readyz");
    let seen = Shutdown::default();
    let stories = match agent.server() {
        Some(server) => Some(print_stories(server.grpc_addr.to_string(), seen.clone())?),
        None => None,
    };
    if stories.is_some() {
        tell(WELCOME);
    }
    look_after(&mut agent, args, &signals);
    tracing::info!("draining");
    agent.drain();
    seen.request();
    if let Some(stories) = stories {
        // A story that can't be printed any more is in the store.
        let _ = stories.join();
    }
    let account = agent.finish().account;
    tracing::info!(cons1 = %snapshot_json(&account), "ended");
    if !account.holds() || account.total.held > 0 {
        tell("tapio: CONS-1 doesn't hold; this is a defect of tapio");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks after the agent until it is to end.
fn look_after(agent: &mut Agent, args: &RunArgs, signals: &Signals) {
    let most = if args.until_finished { SOURCES_END } else { LOOK_AFTER };
    let (mut looked, mut first_word) = (clock::instant(), Some(clock::instant() + FIRST_WORD));
    let over =
        |agent: &Agent| signals.end() || (args.until_finished && agent.sources_are_finished());
    while !over(agent) {
        signals.wait(most.min(LOOK_AFTER.saturating_sub(looked.elapsed())));
        if signals.again() {
            reload(agent, args.config.as_deref());
        } else if looked.elapsed() >= LOOK_AFTER {
            looked = clock::instant();
            agent.poll();
        }
        if args.standalone && first_word.take_if(|at| *at <= clock::instant()).is_some() {
            let seen = agent.account().total.received;
            tell(&format!("tapio: {seen} events in the first ten seconds; all go to the store"));
        }
    }
}

/// Reads the configuration and its rules again (SIGHUP).
fn reload(agent: &mut Agent, path: Option<&Path>) {
    match config(path) {
        Ok(config) => agent.reload_rules(Some(config.dataflow)),
        Err(e) => {
            tracing::error!("the new configuration is refused, the old rules stay in force: {e}")
        }
    }
}

/// Prints each story when it opens and when it ends.
fn print_stories(server: String, seen: Shutdown) -> std::io::Result<std::thread::JoinHandle<()>> {
    let colours = story::colours();
    super::live::follow_stories(server, seen, move |story| {
        if let Some(text) = story::live_text(story, colours) {
            // Standard output may be closed; the stories are in the store all the same.
            let _ = print(&text);
        }
    })
}

pub(super) fn server(args: &ServerArgs) -> Outcome {
    let config = config(args.config.as_deref())?;
    start_log(&config.log)?;
    let signals = Signals::of_end().context("signals")?;
    let mut server = Server::start(config.server())?;
    while !signals.end() && !server.is_finished() {
        signals.wait(LOOK_AFTER);
    }
    server.stop();
    tracing::info!(stats = %serde_json::to_string(&server.status()).unwrap_or_default(), "ended");
    Ok(ExitCode::SUCCESS)
}

pub(super) fn check(args: &CheckArgs) -> Outcome {
    let config = config(Some(&args.config))?;
    let loaded = tapio_dataflow::rules::load(&config.dataflow.rules);
    loaded.errors.iter().for_each(|e| tell(&e.to_string()));
    if !loaded.errors.is_empty() {
        return Ok(ExitCode::from(BAD_USAGE));
    }
    let running: Vec<&str> =
        config.collectors.rows().iter().filter(|r| r.enabled).map(|r| r.name).collect();
    print(&format!("{}: fine; collectors: {}", args.config.display(), running.join(", ")))?;
    Ok(ExitCode::SUCCESS)
}
