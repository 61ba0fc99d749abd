//! `tapio check`
//!
//! | file | purpose |
//! | --- | --- |
//! | `files.rs` | certificates, keys and tokens |
//! | `ports.rs` | addresses |
//! | `folders.rs` | folders, and the logs in them |
//! | `report.rs` | what is found |

mod files;
mod folders;
mod ports;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use super::output::{BAD_USAGE, Outcome, message, print};
use super::run::config;
use crate::runtime::Config;
use report::Report;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tapio check --config /etc/tapio/tapio.yaml\n  tapio check --config new.yaml --running /etc/tapio/tapio.yaml\n  tapio check --config tapio.yaml --no-environment\n\nExit code 2: tapio can't start with this configuration."
)]
pub(super) struct CheckArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the file only: no certificates, rules, ports, folders and disks of this machine
    #[arg(long)]
    no_environment: bool,
    /// The configuration that is in force: print which changes a reload takes
    #[arg(long, value_name = "FILE")]
    running: Option<PathBuf>,
}

pub(super) fn check(args: &CheckArgs) -> Outcome {
    let config = config(Some(&args.config))?;
    let file = args.config.display().to_string();
    let text = std::fs::read_to_string(&args.config).unwrap_or_default();
    let place = |key: &str| match Config::position(&text, key) {
        Some((line, column)) => format!("{file}:{line}:{column}: "),
        None => format!("{file}: "),
    };
    let mut report = Report::default();
    if !args.no_environment {
        rules(&config, &mut report);
        files::check(&config, &mut report);
        let running = folders::check(&config, &mut report);
        ports::check(&config, &running, &mut report);
    }
    report.print(&place)?;
    if !report.errors.is_empty() {
        message(&format!("{file}: errors: {}", report.errors.len()));
        return Ok(ExitCode::from(BAD_USAGE));
    }
    let rows = config.collectors.rows();
    let enabled: Vec<&str> = rows.iter().filter(|r| r.enabled).map(|r| r.name).collect();
    print(&format!("{file}: valid; collectors: {}", enabled.join(", ")))?;
    if let Ok(layout) = config.thread_layout(&rows) {
        print(&format!("{file}: threads: {layout}"))?;
    }
    reloads(args, &config)?;
    Ok(ExitCode::SUCCESS)
}

/// The rules that the configuration names. Their errors have places of their own.
fn rules(config: &Config, report: &mut Report) {
    let loaded = tapio_dataflow::rules::load(&config.dataflow.rules);
    for error in &loaded.errors {
        message(&error.to_string());
    }
    if !loaded.errors.is_empty() {
        report.error("dataflow.rules", format!("errors in rules: {}", loaded.errors.len()));
    }
}

/// Prints what a reload takes: of the changes to the configuration in force, or in general.
fn reloads(args: &CheckArgs, new: &Config) -> anyhow::Result<()> {
    let file = args.config.display();
    let Some(running) = &args.running else {
        let keys: Vec<&str> = Config::reloaded_keys().collect();
        print(&format!("{file}: a reload (SIGHUP) takes {}", keys.join(", ")))?;
        return Ok(());
    };
    let changes = config(Some(running))?.changes(new);
    for (takes, is_reloaded) in [("a reload takes", true), ("a restart is needed for", false)] {
        for change in changes.iter().filter(|change| change.is_reloaded == is_reloaded) {
            print(&format!("{file}: {takes} {change}"))?;
        }
    }
    Ok(())
}
