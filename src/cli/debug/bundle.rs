//! `tapio debug bundle`: what a report of a problem needs, in one file without secrets. It works
//! whether the agent runs or not.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use serde_json::{Value as Json, json};

use super::admin_client::AgentArgs;
use super::archive::Archive;
use super::process;
use crate::cli::doctor;
use crate::cli::output::{Outcome, Progress, message, print};
use crate::runtime::{Config, yaml_text};
use crate::store::{InspectedLog, inspect, lock_holder};
use tapio_core::clock;
use tapio_core::event::rfc3339;
use tapio_core::redact::{REDACTED, Redactor};

/// Lines of the unit's log.
const LOG_LINES: &str = "2000";
/// Largest entry, in bytes; the beginning of a larger one is left out.
const MAX_ENTRY_BYTES: usize = 16 << 20;
/// Shorter secrets aren't removed: they would match everywhere.
const MIN_SECRET_BYTES: usize = 4;

/// The admin pages of a running agent, and their entries.
const PAGES: &[(&str, &str)] = &[
    ("/status", "status.json"),
    ("/readyz", "readyz.txt"),
    ("/metrics", "metrics.txt"),
    ("/debug/status", "debug.json"),
    ("/debug/history", "history.jsonl"),
];

#[derive(clap::Args)]
pub(super) struct Args {
    /// The file to write; by default tapio-bundle-NODE-TIME.tar.gz
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The unit whose log is included; by default that of the running agent
    #[arg(long, value_name = "UNIT")]
    unit: Option<String>,
    #[command(flatten)]
    agent: AgentArgs,
}

/// The entries, and what couldn't be collected.
struct Bundle<'a> {
    config: &'a Config,
    redactor: std::sync::Arc<Redactor>,
    secrets: Vec<String>,
    entries: Vec<(String, String)>,
    missing: Vec<String>,
}

pub(super) fn run(args: &Args) -> Outcome {
    let config = args.agent.config()?;
    let now_ns = clock::wall_ns();
    let time: String = rfc3339(now_ns).chars().take(19).filter(|c| *c != ':').collect();
    let node: String = config.node_name().chars().map(file_char).take(40).collect();
    let name = format!("tapio-bundle-{node}-{time}");
    let path = args.output.clone().unwrap_or_else(|| format!("{name}.tar.gz").into());
    let mut bundle = Bundle::new(&config);
    let progress = Progress::of_items("collecting", "parts", None);
    bundle.collect(args, &progress)?;
    let mut options = File::options();
    // Never an existing file's contents, nor another user's link.
    let opened = options.write(true).create_new(true).mode(0o600).open(&path);
    let file = opened.with_context(|| path.display().to_string())?;
    let mut archive = Archive::new(file, now_ns / 1_000_000_000);
    for (entry, text) in &bundle.entries {
        archive.add(&format!("{name}/{entry}"), text.as_bytes())?;
    }
    archive.finish()?.sync_all()?;
    drop(progress);
    for missing in &bundle.missing {
        message(&format!("tapio: not in the bundle: {missing}"));
    }
    print(&path.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn file_char(c: char) -> char {
    if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }
}

impl<'a> Bundle<'a> {
    fn new(config: &'a Config) -> Self {
        let sinks = config.export.otlp.iter().chain(&config.telemetry.otlp);
        let mut secrets: Vec<String> = Vec::new();
        for value in sinks.flat_map(|sink| sink.headers.values()) {
            // Of `Bearer TOKEN`, the token may stand alone elsewhere.
            let words =
                value.split_whitespace().filter(|word| !word.eq_ignore_ascii_case("bearer"));
            secrets.extend(words.map(str::to_owned));
            secrets.push(value.clone());
        }
        for receiver in &config.server.notify {
            secrets.extend(receiver.value.secrets().into_iter().map(str::to_owned));
        }
        secrets.extend(config.secrets.iter().cloned());
        secrets.retain(|secret| secret.len() >= MIN_SECRET_BYTES);
        // The longest first: another may be a part of it.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let redactor = config.redactor();
        Self { config, redactor, secrets, entries: Vec::new(), missing: Vec::new() }
    }

    fn collect(&mut self, args: &Args, progress: &Progress) -> anyhow::Result<()> {
        let config = self.config;
        let executable = std::env::current_exe().unwrap_or_default();
        let version = format!(
            "tapio {}\nexecutable {}\ncollected {}\n",
            env!("CARGO_PKG_VERSION"),
            executable.display(),
            rfc3339(clock::wall_ns())
        );
        self.add("version.txt", version);
        self.add("config.yaml", yaml_text(&config.shown(false)));
        let changes = Config::default().changes(config);
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        self.add("config-changes.txt", changes.join("\n") + "\n");
        progress.add(3);
        self.add_json("doctor.json", doctor::document(config));
        progress.add(1);
        self.add("kernel.txt", process::kernel());
        let client = args.agent.client(config)?;
        for (path, entry) in PAGES {
            match client.page(path) {
                Ok(text) => {
                    self.add(entry, text);
                    progress.add(1);
                }
                Err(error) => {
                    self.missing.push(format!("the agent's pages ({}): {error}", client.address()));
                    break;
                }
            }
        }
        self.state(args);
        progress.add(4);
        self.logs();
        progress.add(4);
        let missing = self.missing.join("\n");
        self.add("missing.txt", missing + "\n");
        Ok(())
    }

    /// The agent's process and its log.
    fn state(&mut self, args: &Args) {
        let state_dir = self.config.state_dir();
        let pid = lock_holder(&state_dir.join("agent.lock")).filter(|pid| *pid > 0);
        if let Some(pid) = pid {
            self.add("process.txt", process::limits(pid));
            self.add("threads.txt", process::threads(pid));
            self.add("cgroup.txt", process::cgroups(pid));
        } else {
            let dir = state_dir.display();
            self.missing.push(format!("the agent's process: no agent of this node uses {dir}"));
            self.add("cgroup.txt", process::cgroups(std::process::id()));
        }
        let unit = args.unit.clone().or_else(|| pid.and_then(unit_of));
        let unit = unit.unwrap_or_else(|| "tapio.service".into());
        match journal(&unit) {
            Ok(text) if text.is_empty() => {
                self.missing.push(format!("the log of {unit}: no lines"))
            }
            Ok(text) => self.add("log.txt", text),
            Err(cause) => self.missing.push(format!("the log of {unit}: {cause}")),
        }
    }

    /// The heads of the logs on disk, and the names of the state folder.
    fn logs(&mut self) {
        let (state_dir, data_dir) = (self.config.state_dir(), self.config.server().data_dir);
        for (entry, dir) in [
            ("spool.json", state_dir.join("spool")),
            ("recovery.json", state_dir.join("recovery")),
            ("store.json", data_dir),
        ] {
            match inspect(&dir) {
                Ok(logs) => self.add_json(entry, logs.iter().map(log_json).collect()),
                Err(error) => self.missing.push(format!("{}: {error}", dir.display())),
            }
        }
        match std::fs::read_dir(&state_dir) {
            Ok(entries) => {
                let mut lines: Vec<String> =
                    entries.flatten().map(|entry| listed(&entry)).collect();
                lines.sort();
                self.add("state-dir.txt", lines.concat());
            }
            Err(error) => self.missing.push(format!("{}: {error}", state_dir.display())),
        }
    }

    fn add_json(&mut self, entry: &str, mut value: Json) {
        self.redactor.redact_json(&mut value);
        let text = serde_json::to_string_pretty(&value).unwrap_or_default();
        self.add(entry, text + "\n");
    }

    /// Adds a text without secrets.
    fn add(&mut self, entry: &str, text: String) {
        let from = text.len().saturating_sub(MAX_ENTRY_BYTES);
        let from = (from..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let mut text = self.redactor.text(&text[from..]).into_owned();
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), REDACTED);
        }
        self.entries.push((entry.to_owned(), text));
    }
}

fn log_json(log: &InspectedLog) -> Json {
    let segments = log.segments.iter().map(|segment| {
        json!({
            "name": segment.name, "bytes": segment.bytes, "modified": segment.modified_s,
            "number": segment.head.as_ref().ok(), "error": segment.head.as_ref().err(),
        })
    });
    json!({
        "dir": log.dir.display().to_string(), "held_by_pid": log.holder,
        "segments": segments.collect::<Vec<_>>(),
    })
}

fn listed(entry: &std::fs::DirEntry) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let name = entry.file_name().to_string_lossy().into_owned();
    match entry.metadata() {
        Ok(m) => format!("{name} mode {:o} user {} bytes {}\n", m.mode(), m.uid(), m.len()),
        Err(error) => format!("{name} {error}\n"),
    }
}

/// The systemd unit of a process, from the path of its cgroup.
fn unit_of(pid: u32) -> Option<String> {
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let paths = cgroups.lines().filter_map(|line| line.rsplit(':').next());
    let names = paths.flat_map(|path| path.rsplit('/'));
    names.into_iter().find(|name| name.ends_with(".service")).map(str::to_owned)
}

/// The last lines of a unit's log.
fn journal(unit: &str) -> Result<String, String> {
    if !["/run/systemd/system", "/var/log/journal", "/run/log/journal"]
        .iter()
        .any(|path| Path::new(path).exists())
    {
        return Err("no journal on this node".into());
    }
    let mut command = Command::new("journalctl");
    command.args(["--no-pager", "--quiet", "--output=short-iso", "--lines", LOG_LINES]);
    let output = command.arg("--unit").arg(unit).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("journalctl: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
