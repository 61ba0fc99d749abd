//! The configuration: one YAML file in which everything is optional. Unknown keys are refused;
//! every error has its line and column.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::comments::without_long;
use super::config_paths::paths_in;
use super::memory::MemoryLimit;
use super::sections::{
    AdminConfig, DataflowConfig, DebugConfig, EvidenceConfig, LogConfig, SandboxConfig,
};
use super::variables::Variables;
use crate::bridge::BridgeConfig;
use crate::export::{ExportConfig, complete_from_env};
use crate::notify::check_receivers;
use crate::server::ServerConfig;
use crate::telemetry::TelemetryConfig;
use tapio_collectors::CollectorsConfig;
use tapio_core::cpu::ThreadsConfig;
use tapio_core::redact::{RedactConfig, Redactor};
use tapio_dataflow::rules::{Position, yaml_cause};
use tapio_wire::OtlpService;

/// The server without which an agent without sinks would deliver to nobody.
const DEFAULT_SERVER: &str = "127.0.0.1:7600";

/// An error in the configuration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{file}{}: {cause}", Position { line: *line, column: *column })]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 where the error has no line.
    pub line: u64,
    /// The column, from 1; 0 where the error has no line.
    pub column: u64,
    /// The error.
    pub cause: String,
}

/// The configuration of the agent and the server.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The node's name; by default the host's name.
    pub node: Option<String>,
    /// The cluster's name: part of every trace id, so that two clusters never share a trace.
    pub cluster: String,
    /// The folder of the persisted state and the agent's lock.
    pub state_dir: Option<PathBuf>,
    /// The most memory that the agent may use.
    pub memory_limit: MemoryLimit,
    /// The correlator.
    pub dataflow: DataflowConfig,
    /// The ranking of root causes.
    pub evidence: EvidenceConfig,
    /// The collectors.
    pub collectors: CollectorsConfig,
    /// The bridge, which delivers to the server.
    pub bridge: BridgeConfig,
    /// Exports of the stream as OTLP.
    pub export: ExportConfig,
    /// tapio's own logs, metrics and spans.
    pub telemetry: TelemetryConfig,
    /// The server, for `tapio server` and `tapio run --standalone`.
    pub server: ServerConfig,
    /// The CPUs of the agent's threads.
    pub threads: ThreadsConfig,
    /// The admin pages.
    pub admin: AdminConfig,
    /// The agent's log.
    pub log: LogConfig,
    /// The debugging of a running agent.
    pub debug: DebugConfig,
    /// The limits of the process's rights.
    pub sandbox: SandboxConfig,
    /// The existing files and folders that the file names.
    #[serde(skip)]
    pub paths: Vec<PathBuf>,
    /// The values of files and secret variables that the file names.
    #[serde(skip)]
    pub secrets: Vec<String>,
    /// The secrets that are removed from events, `/status` and the log.
    pub redact: RedactConfig,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// With line, column and cause.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| ConfigError {
            file: file.clone(),
            line: 0,
            column: 0,
            cause: format!("can't be read: {e}"),
        })?;
        let mut config = Self::parse(&file, &text, |name| std::env::var(name).ok())?;
        // For reloads.
        config.paths.push(path.to_owned());
        Ok(config)
    }

    /// Parses the text of a file; `env` returns the values of `${NAME}`. `${file:PATH}` is read
    /// from the folder of `file`.
    ///
    /// # Errors
    /// With line, column and cause.
    pub fn parse(
        file: &str,
        text: &str,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let error =
            |line, column, cause| ConfigError { file: file.to_owned(), line, column, cause };
        let text = &*without_long(text);
        let folder = Path::new(file).parent().unwrap_or(Path::new("")).to_owned();
        let expanded = Variables { env: &env, folder }.expand(text);
        let expanded = expanded.map_err(|(line, column, cause)| error(line, column, cause))?;
        let mut config: Self = if expanded
            .text
            .lines()
            .all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'))
        {
            Self::default()
        } else {
            serde_saphyr::from_str(&expanded.text).map_err(|e| {
                let (line, column) = e.location().map_or((0, 0), |l| (l.line(), l.column()));
                let cause = yaml_cause(&e, &expanded.text);
                error(line, expanded.column(line, column), expanded.hide(cause))
            })?
        };
        let mut sinks = config.export.otlp.iter_mut();
        let completed = sinks.try_for_each(|sink| complete_from_env(sink, &env));
        let completed = completed.and_then(|()| config.telemetry.complete_from_env(&env));
        completed.map_err(|cause| error(0, 0, cause))?;
        config.paths = paths_in(&expanded.text);
        check_receivers(&config.server.notify).map_err(|(place, cause)| {
            let column = expanded.column(place.line, place.column);
            error(place.line, column, expanded.hide(format!("server.notify: {cause}")))
        })?;
        config.secrets = expanded.secrets(&config.redactor());
        config.check().map_err(|(key, cause)| {
            let (line, column) = find_key(text, &key);
            error(line, column, expanded.hide(format!("{key}: {cause}")))
        })?;
        Ok(config)
    }

    /// Checks the values; the error is the dotted key and the cause.
    fn check(&self) -> Result<(), (String, String)> {
        let split = |section: &str, e: String| {
            let (key, cause) = e.split_once(": ").unwrap_or(("", &e));
            (format!("{section}.{key}"), cause.to_owned())
        };
        self.bridge.check().map_err(|e| split("bridge", e))?;
        self.export.check().map_err(|e| split("export", e))?;
        if !self.export.otlp.is_empty() && self.bridge.spool_bytes == 0 {
            let cause = "sinks read the spool; bridge.spool_bytes must not be 0";
            return Err(("export.otlp".into(), cause.into()));
        }
        self.telemetry.check().map_err(|e| split("telemetry", e))?;
        self.server.check().map_err(|e| split("server", e))?;
        self.collectors.check().map_err(|e| split("collectors", e))?;
        self.redact.check().map_err(|e| split("redact", e))?;
        self.thread_layout(&self.collectors.rows())?;
        let admin = self.admin.access();
        admin.check(&[("listen", &self.admin.listen)]).map_err(|e| split("admin", e))?;
        self.debug.recorder.check().map_err(|e| split("debug", e))?;
        self.dataflow.check().map_err(|e| split("dataflow", e))?;
        self.evidence.weights.check()?;
        self.node.as_deref().map_or(Ok(()), check_node).map_err(|cause| ("node".into(), cause))
    }

    /// Removes secrets as configured; as built in where the section is invalid, which parsing
    /// refuses.
    #[must_use]
    pub fn redactor(&self) -> Arc<Redactor> {
        if self.redact == RedactConfig::default() {
            return Redactor::builtin();
        }
        Redactor::new(&self.redact).map_or_else(|_| Redactor::builtin(), Arc::new)
    }

    /// The node's name.
    #[must_use]
    pub fn node_name(&self) -> String {
        self.node.clone().unwrap_or_else(|| {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            if name.is_empty() { "localhost".into() } else { name }
        })
    }

    /// The state folder: by default `/var/lib/tapio` for root, otherwise in the user's own folder.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        if let Some(dir) = &self.state_dir {
            return dir.clone();
        }
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        // Of systemd; the first of several (systemd.exec(5)).
        if let Some(dirs) = variable("STATE_DIRECTORY")
            && let Some(first) = std::env::split_paths(&dirs).next()
        {
            return first;
        }
        let system = PathBuf::from("/var/lib/tapio");
        if rustix::process::geteuid().is_root() {
            return system;
        }
        let home = || variable("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        let base = variable("XDG_STATE_HOME").map(PathBuf::from).or_else(home);
        // Never a folder that everybody may create before: without a home, the system's is refused.
        base.map_or(system, |base| base.join("tapio"))
    }

    /// The bridge's configuration, with the default server where neither a server nor a sink is
    /// configured.
    #[must_use]
    pub fn bridge(&self) -> BridgeConfig {
        let mut bridge = self.bridge.clone();
        bridge.flush_interval = self.dataflow.flush_interval;
        if bridge.endpoint.is_empty() && self.export.otlp.is_empty() {
            bridge.endpoint = DEFAULT_SERVER.into();
        }
        bridge
    }

    /// tapio as a service in what sinks get.
    #[must_use]
    pub fn otlp_service(&self) -> OtlpService {
        let [name, version, environment] = self.dataflow.service();
        OtlpService { name, version, environment, cluster: self.cluster.clone() }
    }

    /// Serves the page from a folder, which a confined process may read.
    pub fn set_web_dir(&mut self, dir: Option<&Path>) {
        self.paths.extend(dir.map(Path::to_owned));
        self.server.web_dir = dir.map(Path::to_owned);
    }

    /// The server's configuration, with a default store that this user can write to.
    #[must_use]
    pub fn server(&self) -> ServerConfig {
        let mut server = self.server.clone();
        server.cluster.clone_from(&self.cluster);
        if server.data_dir == ServerConfig::default().data_dir {
            server.data_dir = self.state_dir().join("store");
        }
        server
    }

    /// The number of shards on this node.
    #[must_use]
    pub fn shards(&self) -> usize {
        match self.dataflow.shards {
            0 => (std::thread::available_parallelism().map_or(1, usize::from) / 2).clamp(1, 64),
            n => n,
        }
    }
}

/// Validates a node's name.
fn check_node(node: &str) -> Result<(), String> {
    if node.is_empty() {
        return Err("must not be empty".into());
    }
    if node.chars().any(char::is_control) {
        return Err("must not have control characters".into());
    }
    let longest = tapio_wire::MAX_NODE_BYTES;
    if node.len() > longest {
        return Err(format!("must not be longer than {longest} bytes"));
    }
    Ok(())
}

impl Config {
    /// Line and column of a dotted key in a file's text, or of the section that would have it.
    #[must_use]
    pub fn position(text: &str, key: &str) -> Option<(u64, u64)> {
        Some(find_key(text, key)).filter(|(line, _)| *line > 0)
    }
}

/// Line and column of a dotted key; each part is looked up after the one before.
fn find_key(text: &str, key: &str) -> (u64, u64) {
    let mut lines = (1u64..).zip(text.lines());
    let mut found = (0, 0);
    for part in key.split('.') {
        let is_part =
            |line: &str| line.trim_start().strip_prefix(part).is_some_and(|r| r.starts_with(':'));
        match lines.by_ref().find(|(_, line)| is_part(line)) {
            Some((number, line)) => {
                found = (number, (line.len() - line.trim_start().len() + 1) as u64)
            }
            None => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let env = |name: &str| (name == "NODE").then(|| "n1".to_owned());
        Config::parse("t.yaml", text, env).map_err(|e| e.to_string())
    }

    #[test]
    fn every_key_is_optional() {
        assert!(parse("").unwrap().dataflow.enable_semantic_grouping);
        assert!(parse("# only a comment\n").is_ok());
        let config =
            parse("node: ${NODE}\ncluster: ${C:-prod}\ndataflow:\n  flush_interval: 2s\n").unwrap();
        assert_eq!((config.node_name().as_str(), config.cluster.as_str()), ("n1", "prod"));
        assert_eq!(config.dataflow.flush_interval.as_secs(), 2);
    }

    #[test]
    fn readme_example_is_valid() {
        let readme = include_str!("../../README.md");
        let blocks = readme.split("```yaml\n").skip(1).filter_map(|b| b.split("```").next());
        let example = blocks.into_iter().find(|b| b.contains("collectors:")).unwrap();
        let config = parse(example).unwrap();
        assert_eq!(config.cluster, "prod");
    }

    #[test]
    fn unreadable_file_has_no_position() {
        let error = Config::read(Path::new("/nonexistent/tapio.yaml")).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/tapio.yaml: can't be read: No such"), "{error}");
    }

    #[test]
    fn errors_have_line_and_column() {
        for (text, expected) in [
            ("nodee: a\n", "t.yaml:1:1: unknown field `nodee`"),
            ("dataflow:\n  shards: many\n", "t.yaml:2:11: "),
            ("dataflow:\n  shards: 65\n", "t.yaml:2:3: dataflow.shards: must be at most 64"),
            ("dataflow:\n  flush_interval: 5\n", "t.yaml:2:19: "),
            (
                "dataflow:\n  group_retention_period: 0s\n",
                "t.yaml:2:3: dataflow.group_retention_period: must be at least 1s",
            ),
            ("cluster: c\nnode: \"a\\nb\"\n", "t.yaml:2:1: node: must not have control"),
            ("node: ''\n", "t.yaml:1:1: node: must not be empty"),
            (
                "collectors:\n  node: { usage_share: 7 }\n",
                "t.yaml:2:3: collectors.node.usage_share: must be from 0 to 1",
            ),
            (
                "collectors:\n  node:\n    usage_share: .nan\n",
                "t.yaml:3:5: collectors.node.usage_share: must be from 0 to 1",
            ),
            (
                "node: a\ncollectors:\n  node:\n    some_percent: -3\n",
                "t.yaml:4:5: collectors.node.some_percent: must be from 0 to 100",
            ),
            ("log: { level: inof }\n", "t.yaml:1:15: log.level: \"inof\" isn't a level"),
            ("log:\n  level: info,tapio=debgu\n", "t.yaml:2:10: log.level: \"debgu\" isn't"),
            (
                "dataflow:\n  max_stories: 0\n",
                "t.yaml:2:3: dataflow.max_stories: must be at least 1",
            ),
            ("node: a\nbridge:\n  batch_bytes: 1\n", "t.yaml:3:3: bridge.batch_bytes"),
            (
                "node: n\nmemory_limit: 1MiB\n",
                "t.yaml:2:15: memory_limit: \"1MiB\": must be `auto`",
            ),
            ("threads:\n  core: 1\n", "t.yaml:2:3: unknown field `core`"),
            ("threads:\n  cpus: 3-1\n", "t.yaml:2:9: threads.cpus: \"3-1\" isn't a list of CPUs"),
            (
                "threads:\n  cpus: 0,1023\n",
                "t.yaml:2:3: threads.cpus: 0,1023: this process may use",
            ),
            ("threads: { numa_node: 99 }\n", "t.yaml:1:1: threads.numa_node: 99: no CPU of this"),
            (
                "threads: { numa_node: x }\n",
                "t.yaml:1:23: threads.numa_node: \"x\": must be `auto`",
            ),
            ("node: ${NOPE}\n", "t.yaml:1:7: ${NOPE} isn't set"),
            (
                "collectors:\n  only: [epbf]\n",
                "t.yaml:2:3: collectors.only: unknown collector `epbf`",
            ),
            ("node: [\n", "t.yaml:"),
            ("node: a\nnode: b\n", "t.yaml:2:1: duplicate key `node`"),
            ("node: a\n---\nnode: b\n", "t.yaml:3:1: a second document begins here"),
            ("- a\n", "t.yaml:1:1: expected a mapping"),
            ("dataflow: 5\n", "t.yaml:1:11: `dataflow`: expected a mapping"),
            ("collectors:\n  only: ebpf\n", "t.yaml:2:9: `only`: expected a list"),
            ("dataflow: {shards: -1}\n", "t.yaml:1:20: `shards`: expected a whole number"),
            ("log: { format: xml }\n", "t.yaml:1:16: unknown value `xml`"),
            ("redact:\n  patterns: ['(']\n", "t.yaml:2:3: redact.patterns: \"(\": unclosed group"),
            ("redact:\n  names: ['ä']\n", "t.yaml:2:3: redact.names: \"ä\" isn't a name"),
            ("redact:\n  enable: false\n", "t.yaml:2:3: unknown field `enable`"),
            ("node: ${file:none}\n", "t.yaml:1:7: ${file:none}: none can't be read: No such"),
            ("dataflow: {shards: ${NODE}, max_keys: x}\n", "t.yaml:1:20: "),
            ("dataflow: {service_name: ${NODE}, max_keys: x}\n", "t.yaml:1:45: "),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
