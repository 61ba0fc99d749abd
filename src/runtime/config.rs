//! The configuration: one YAML file, everything optional, unknown keys refused with their place.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::bridge::BridgeConfig;
use crate::server::ServerConfig;
use tapio_collectors::CollectorsConfig;
use tapio_dataflow::LaneOptions;

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{file}:{line}:{column}: {cause}")]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 where no line is to blame.
    pub line: u64,
    /// The column, from 1.
    pub column: u64,
    /// What is wrong.
    pub cause: String,
}

/// Everything that can be configured.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The node's name; the host's name where it isn't given.
    pub node: Option<String>,
    /// The cluster's name: part of every trace id, so that two clusters' stories never meet.
    pub cluster: String,
    /// Where the agent keeps what must survive it, and its lock.
    pub state_dir: Option<PathBuf>,
    /// The correlator.
    pub dataflow: DataflowConfig,
    /// The sources.
    pub collectors: CollectorsConfig,
    /// The way to the server.
    pub bridge: BridgeConfig,
    /// The server: for `tapio server` and `tapio run --standalone`.
    pub server: ServerConfig,
    /// The agent's own pages.
    pub admin: AdminConfig,
    /// The agent's log.
    pub log: LogConfig,
}

/// The correlator. The keys are the specification's.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataflowConfig {
    /// Whether events are grouped; off: they pass with the trace they came with.
    pub enable_semantic_grouping: bool,
    /// How long a story may be open, whatever its rule allows.
    #[serde(with = "tapio_core::durations")]
    pub group_retention_period: std::time::Duration,
    /// What the agent calls itself.
    pub service_name: String,
    /// The agent's version, for what it sends.
    pub service_version: String,
    /// `deployment.environment.name` of what is sent.
    pub environment: String,
    /// Events (of usual size) a ring holds.
    pub buffer_size: usize,
    /// The longest an event waits for its batch to fill.
    #[serde(with = "tapio_core::durations")]
    pub flush_interval: std::time::Duration,
    /// Shards; 0: one for every two cores.
    pub shards: usize,
    /// Rule files and folders, beside the built-in rules.
    pub rules: Vec<PathBuf>,
    /// Whether the rules that come with tapio are in force.
    pub builtin_rules: bool,
    /// Join keys with something pending, for each shard.
    pub max_keys: usize,
    /// Stories open at once, for each shard.
    pub max_stories: usize,
    /// Bytes on disk for what open stories are made of, so that they survive a restart; 0: none do.
    pub recall_bytes: u64,
}

impl DataflowConfig {
    /// `service.name`, `service.version` and `deployment.environment.name` of what is sent.
    #[must_use]
    pub fn service(&self) -> [String; 3] {
        [&self.service_name, &self.service_version, &self.environment].map(String::clone)
    }
}

impl Default for DataflowConfig {
    fn default() -> Self {
        let lane = LaneOptions::default();
        Self {
            enable_semantic_grouping: true,
            group_retention_period: std::time::Duration::from_secs(30 * 60),
            service_name: "tapio".into(),
            service_version: env!("CARGO_PKG_VERSION").into(),
            environment: String::new(),
            buffer_size: 10_000,
            flush_interval: std::time::Duration::from_secs(1),
            shards: 0,
            rules: Vec::new(),
            builtin_rules: true,
            max_keys: lane.max_keys,
            max_stories: lane.max_stories,
            recall_bytes: 64 * 1024 * 1024,
        }
    }
}

/// The agent's pages: `/metrics`, `/healthz`, `/readyz`, `/status`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Where they are served.
    pub listen: std::net::SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: (std::net::Ipv4Addr::LOCALHOST, 7603).into() }
    }
}

/// How the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for a person.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// The agent's log, on standard error.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Text or JSON.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,tapio::bridge=debug`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// With the place and the cause.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| ConfigError {
            file: file.clone(),
            line: 0,
            column: 0,
            cause: format!("can't be read: {e}"),
        })?;
        Self::parse(&file, &text, |name| std::env::var(name).ok())
    }

    /// Reads a text; `env` gives the values of `${NAME}`.
    ///
    /// # Errors
    /// With the place and the cause.
    pub fn parse(
        file: &str,
        text: &str,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let error =
            |line, column, cause| ConfigError { file: file.to_owned(), line, column, cause };
        let text = expand(text, env).map_err(|(line, column, cause)| error(line, column, cause))?;
        let config: Self =
            if text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#')) {
                Self::default()
            } else {
                serde_saphyr::from_str(&text).map_err(|e| {
                    let (line, column) = e.location().map_or((0, 0), |l| (l.line(), l.column()));
                    let full = e.without_snippet().to_string();
                    let cause = full.split(" at line ").next().unwrap_or(&full);
                    error(line, column, cause.lines().next().unwrap_or("broken YAML").to_owned())
                })?
            };
        config.check().map_err(|(key, cause)| {
            let (line, column) = find_key(&text, &key);
            error(line, column, format!("{key}: {cause}"))
        })?;
        Ok(config)
    }

    /// Finds values that can't work.
    fn check(&self) -> Result<(), (String, String)> {
        let split = |section: &str, e: String| {
            let (key, cause) = e.split_once(": ").unwrap_or(("", &e));
            (format!("{section}.{key}"), cause.to_owned())
        };
        self.bridge.check().map_err(|e| split("bridge", e))?;
        self.server.check().map_err(|e| split("server", e))?;
        self.collectors.check().map_err(|e| split("collectors", e))?;
        let bad = |key: &str, cause: &str| Err((format!("dataflow.{key}"), cause.to_owned()));
        if self.dataflow.shards > 64 {
            return bad("shards", "at most 64");
        }
        if !(100..=10_000_000).contains(&self.dataflow.buffer_size) {
            return bad("buffer_size", "from 100 to 10000000 events");
        }
        if self.dataflow.max_keys == 0 || self.dataflow.max_stories == 0 {
            return bad("max_keys", "with max_stories must be at least 1");
        }
        if !matches!(self.dataflow.recall_bytes, 0 | 1_048_576..=68_719_476_736) {
            return bad("recall_bytes", "0, or from 1 MiB to 64 GiB");
        }
        if self.node.as_deref() == Some("") {
            return Err(("node".into(), "can't be empty".into()));
        }
        Ok(())
    }

    /// The node's name.
    #[must_use]
    pub fn node_name(&self) -> String {
        self.node.clone().unwrap_or_else(|| {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            if name.is_empty() { "localhost".into() } else { name }
        })
    }

    /// Where state is kept: `/var/lib/tapio` for root, else the user's own state folder.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        if let Some(dir) = &self.state_dir {
            return dir.clone();
        }
        if rustix::process::geteuid().is_root() {
            return "/var/lib/tapio".into();
        }
        let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".local/state"));
        let base = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home);
        base.unwrap_or_else(std::env::temp_dir).join("tapio")
    }

    /// The server's configuration: a store nobody placed goes where this user may write.
    #[must_use]
    pub fn server(&self) -> ServerConfig {
        let mut server = self.server.clone();
        if server.data_dir == ServerConfig::default().data_dir {
            server.data_dir = self.state_dir().join("store");
        }
        server
    }

    /// How many shards to run on this machine.
    #[must_use]
    pub fn shards(&self) -> usize {
        match self.dataflow.shards {
            0 => (std::thread::available_parallelism().map_or(1, usize::from) / 2).clamp(1, 64),
            n => n,
        }
    }
}

type Misplaced = (u64, u64, String);

/// Replaces `${NAME}` and `${NAME:-default}`; `$$` is a dollar sign. Comments stay as they are.
fn expand(text: &str, env: impl Fn(&str) -> Option<String>) -> Result<String, Misplaced> {
    let mut out = String::with_capacity(text.len());
    for (number, line) in (1u64..).zip(text.split_inclusive('\n')) {
        if line.trim_start().starts_with('#') {
            out.push_str(line);
            continue;
        }
        let mut rest = line;
        while let Some(dollar) = rest.find('$') {
            let column = (line.len() - rest.len() + dollar + 1) as u64;
            out.push_str(&rest[..dollar]);
            rest = &rest[dollar + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some(inner) = rest.strip_prefix('{') {
                let end = inner.find('}').ok_or((number, column, "`${` without `}`".to_owned()))?;
                let (name, default) = match inner[..end].split_once(":-") {
                    Some((name, default)) => (name, Some(default)),
                    None => (&inner[..end], None),
                };
                let value = env(name).or_else(|| default.map(str::to_owned));
                let value =
                    value.ok_or_else(|| (number, column, format!("${{{name}}} isn't set")))?;
                if value.contains('\n') {
                    return Err((number, column, format!("${{{name}}} has more than one line")));
                }
                out.push_str(&value);
                rest = &inner[end + 1..];
            } else {
                out.push('$');
            }
        }
        out.push_str(rest);
    }
    Ok(out)
}

/// Where a dotted key stands: the line of each part in turn.
fn find_key(text: &str, key: &str) -> (u64, u64) {
    let mut lines = (1u64..).zip(text.lines());
    let mut found = (0, 0);
    for part in key.split('.') {
        let stands =
            |line: &str| line.trim_start().strip_prefix(part).is_some_and(|r| r.starts_with(':'));
        match lines.by_ref().find(|(_, line)| stands(line)) {
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
    fn everything_is_optional() {
        assert!(parse("").unwrap().dataflow.enable_semantic_grouping);
        assert!(parse("# only a comment\n").is_ok());
        let config =
            parse("node: ${NODE}\ncluster: ${C:-prod}\ndataflow:\n  flush_interval: 2s\n").unwrap();
        assert_eq!((config.node_name().as_str(), config.cluster.as_str()), ("n1", "prod"));
        assert_eq!(config.dataflow.flush_interval.as_secs(), 2);
    }

    #[test]
    fn the_readmes_configuration_is_accepted() {
        let readme = include_str!("../../README.md");
        let blocks = readme.split("```yaml\n").skip(1).filter_map(|b| b.split("```").next());
        let example = blocks.into_iter().find(|b| b.contains("collectors:")).unwrap();
        let config = parse(example).unwrap();
        assert_eq!(config.cluster, "prod");
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, expected) in [
            ("nodee: a\n", "t.yaml:1:1: unknown field `nodee`"),
            ("dataflow:\n  shards: many\n", "t.yaml:2:11: "),
            ("dataflow:\n  shards: 65\n", "t.yaml:2:3: dataflow.shards: at most 64"),
            ("dataflow:\n  flush_interval: 5\n", "t.yaml:2:19: "),
            ("node: a\nbridge:\n  batch_bytes: 1\n", "t.yaml:3:3: bridge.batch_bytes"),
            ("node: ${NOPE}\n", "t.yaml:1:7: ${NOPE} isn't set"),
            (
                "collectors:\n  only: [epbf]\n",
                "t.yaml:2:3: collectors.only: unknown collector `epbf`",
            ),
            ("node: [\n", "t.yaml:"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
