//! The measured pipelines: none (generator → sink), tapio, or a peer.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::{Value as Json, json};

use super::START_TIMEOUT;
use super::child::{free_port, http_json};
use super::group::Group;
use crate::load::otlp::{KEY_ATTRIBUTE, STEP_ATTRIBUTE, STEPS};

/// Time limit for the start of a peer.
const PEER_START_TIMEOUT: Duration = Duration::from_secs(60);

/// A pipeline to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The generator sends to the sink itself.
    Direct,
    /// An agent with this number of generated rules, and a limit on its memory if it has one.
    Tapio { rules: usize, memory_limit_bytes: Option<u64> },
    /// A shell command.
    Peer(String),
}

impl Subject {
    /// Its name in reports: of a peer the program's.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Direct => "direct".into(),
            Self::Tapio { .. } => "tapio".into(),
            Self::Peer(command) => {
                // Variables may be set before the program.
                let mut words = command.split_whitespace().filter(|word| !word.contains('='));
                let program = words.find(|word| *word != "exec").unwrap_or("peer");
                program.rsplit('/').next().unwrap_or(program).to_owned()
            }
        }
    }

    /// Starts it. `dir` is an empty folder of its own.
    ///
    /// # Errors
    /// When it doesn't accept connections in time.
    pub(super) fn start(&self, dir: &Path, sink_port: u16) -> anyhow::Result<Running> {
        match self {
            Self::Direct => Ok(Running { port: sink_port, group: None, admin: None }),
            Self::Tapio { rules, memory_limit_bytes } => {
                start_tapio(dir, sink_port, *rules, *memory_limit_bytes)
            }
            Self::Peer(command) => start_peer(command, dir, sink_port, &self.name()),
        }
    }
}

/// A pipeline that runs.
pub(super) struct Running {
    /// Its OTLP/gRPC port on the loopback interface.
    pub(super) port: u16,
    /// Its processes; `None`: it has none.
    pub(super) group: Option<Group>,
    /// The port of tapio's status.
    admin: Option<u16>,
}

impl Running {
    /// tapio's `/status`; `None` for others.
    pub(super) fn status(&self) -> anyhow::Result<Option<Json>> {
        // A broken pipe is the agent's, not that of a reader of the report that has left.
        let status = |port| http_json(port, "/status").map_err(|e| anyhow!("/status: {e:#}"));
        self.admin.map(status).transpose()
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it doesn't end, or tapio failed.
    pub(super) fn end(self) -> anyhow::Result<()> {
        let Some(group) = self.group else { return Ok(()) };
        let status = group.end()?;
        if self.admin.is_some() && !status.success() {
            bail!("`tapio run` ended: {status}");
        }
        Ok(())
    }
}

/// Rules for sequences of two steps over the generated records, by key.
fn generated_rules(count: usize) -> String {
    let mut text = String::new();
    for i in 0..count {
        let event = |step: usize| {
            let step = step % STEPS;
            format!("{{ kind: otlp.log, attributes.{STEP_ATTRIBUTE}: s{step:03} }}")
        };
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "---\nrule: bench-{i}\nevents: {{ a: {}, b: {} }}\n\
             sequence: {{ by: [attributes.{KEY_ATTRIBUTE}], within: 10s, \
             steps: [{{ event: a }}, {{ event: b }}] }}\n\
             story: {{ pattern: bench }}",
            event(i),
            event(i + 1),
        );
    }
    text
}

fn start_tapio(
    dir: &Path,
    sink_port: u16,
    rules: usize,
    memory_limit_bytes: Option<u64>,
) -> anyhow::Result<Running> {
    let (port, http) = (free_port()?, free_port()?);
    // A file without a rule is an error.
    let mut dataflow = String::new();
    if rules > 0 {
        std::fs::write(dir.join("rules.yaml"), generated_rules(rules))?;
        dataflow = format!("dataflow: {{ rules: [\"{}/rules.yaml\"] }}\n", dir.display());
    }
    let memory = memory_limit_bytes
        .map_or_else(String::new, |bytes| format!("memory_limit: {}KiB\n", bytes / 1024));
    let sections = format!(
        "{memory}{dataflow}collectors: {{ only: [otlp], otlp: {{ enabled: true, \
         grpc_listen: \"127.0.0.1:{port}\", http_listen: \"127.0.0.1:{http}\" }} }}\n"
    );
    let mut running = start_agent(dir, sink_port, "all", &sections)?;
    if let Some(group) = &mut running.group {
        group.wait_for(START_TIMEOUT, || accepts(port))?;
    }
    Ok(Running { port, ..running })
}

/// Starts an agent with these sections of a configuration, which exports every event to the sink.
/// Returns once its status is available.
///
/// # Errors
/// When it isn't in time.
pub(super) fn start_agent(
    dir: &Path,
    sink_port: u16,
    forward: &str,
    sections: &str,
) -> anyhow::Result<Running> {
    let admin = free_port()?;
    let config = format!(
        "state_dir: \"{}/agent\"\nnode: bench\n{sections}\
         export: {{ otlp: [{{ name: sink, endpoint: \"http://127.0.0.1:{sink_port}\", \
         protocol: grpc, compression: none, forward: {forward}, signals: [logs] }}] }}\n\
         admin: {{ listen: \"127.0.0.1:{admin}\" }}\nlog: {{ level: error }}\n",
        dir.display()
    );
    let path = dir.join("bench.yaml");
    std::fs::write(&path, config)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("run").arg("--config").arg(path).stdin(Stdio::null()).stdout(Stdio::null());
    let mut group = Group::start(command, "`tapio run`")?;
    group.wait_for(START_TIMEOUT, || http_json(admin, "/status").is_ok())?;
    Ok(Running { port: 0, group: Some(group), admin: Some(admin) })
}

fn start_peer(command: &str, dir: &Path, sink_port: u16, name: &str) -> anyhow::Result<Running> {
    let port = free_port()?;
    let log = std::fs::File::create(dir.join("peer.log"))?;
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", command])
        .env("OTLP_IN", format!("127.0.0.1:{port}"))
        .env("OTLP_OUT", format!("127.0.0.1:{sink_port}"))
        .env("BENCH_DIR", dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let mut group = Group::start(shell, format!("peer {name}"))?;
    group.wait_for(PEER_START_TIMEOUT, || accepts(port)).with_context(|| {
        let log = std::fs::read_to_string(dir.join("peer.log")).unwrap_or_default();
        let last = log.lines().rev().take(3).collect::<Vec<_>>();
        match last.is_empty() {
            true => format!("peer {name} said nothing"),
            false => last.into_iter().rev().collect::<Vec<_>>().join("; "),
        }
    })?;
    Ok(Running { port, group: Some(group), admin: None })
}

fn accepts(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Whether tapio holds no event any more.
pub(super) fn is_drained(status: &Json) -> bool {
    status["cons1"]["total"]["held"] == json!(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_is_named_after_its_program() {
        let name = |command: &str| Subject::Peer(command.into()).name();
        assert_eq!(name("exec /opt/otelcol/otelcol --config x.yaml"), "otelcol");
        assert_eq!(name("RUST_LOG=warn ./rotel start"), "rotel");
        assert_eq!(name(""), "peer");
    }

    #[test]
    fn generated_rules_are_valid() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rules.yaml");
        std::fs::write(&file, generated_rules(150)).unwrap();
        let loaded = tapio_dataflow::rules::load(&[file]);
        assert_eq!((loaded.rules.len(), loaded.errors.len()), (150, 0), "{:?}", loaded.errors);
    }
}
