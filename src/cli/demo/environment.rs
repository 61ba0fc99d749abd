//! The demo's environment: an agent with its server in this process, the children that fail, and
//! queries for the events and stories that the server stored.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use prost::Message as _;
use serde_json::Value as Json;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::live;
use crate::runtime::{Agent, Config};
use tapio_collectors::Health;
use tapio_core::clock;
use tapio_core::event::Story;
use tapio_core::ring::Snapshot;
use tapio_wire::{ClientAccess, batch_json, proto, story_from_proto};

/// Time limit for attaching the programs, and for a story.
const TIMEOUT: Duration = Duration::from_secs(6);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Events and stories per query: the server's maximum.
const QUERY_LIMIT: u32 = 10_000;

/// A fault that was caused.
pub(super) struct CausedFault {
    /// Its name in the output.
    pub(super) name: &'static str,
    /// The patterns of the stories that must be emitted for it.
    pub(super) patterns: &'static [&'static str],
    /// The kinds of the members of such stories.
    kinds: &'static [&'static str],
    /// The children that failed.
    pub(super) pids: BTreeSet<u32>,
}

impl CausedFault {
    pub(super) fn new(
        name: &'static str,
        patterns: &'static [&'static str],
        kinds: &'static [&'static str],
    ) -> Self {
        Self { name, patterns, kinds, pids: BTreeSet::new() }
    }

    /// Whether an event is about one of the children.
    fn is_about(&self, event: &Json) -> bool {
        event["entity"]["process.pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
            .is_some_and(|pid| self.pids.contains(&pid))
    }
}

/// The demo's own folder. Removed when the value is dropped, unless it is to be kept.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    keep: bool,
}

impl Folder {
    pub(super) fn create(keep: bool) -> io::Result<Self> {
        let name = format!("tapio-demo-{}-{}", std::process::id(), clock::wall_ns());
        let path = std::env::temp_dir().join(name);
        // Fails if it exists: another user may have prepared it.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path, keep })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // Files that can't be removed stay in the folder for temporary files.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// The server's events and stories at one instant.
pub(super) struct StoredResults {
    /// Stories without lifecycles.
    stories: Vec<Story>,
    events: Vec<Json>,
    /// Ids of stories about the children.
    about: BTreeSet<String>,
}

impl StoredResults {
    /// The events of a fault's children.
    pub(super) fn events(&self, fault: &CausedFault) -> Vec<&Json> {
        self.events.iter().filter(|e| fault.is_about(e)).collect()
    }

    /// The stories with events of a fault's children, oldest first.
    pub(super) fn stories(&self, fault: &CausedFault) -> Vec<&Story> {
        let ids: BTreeSet<&str> = self.events(fault).into_iter().flat_map(story_ids).collect();
        let mut stories: Vec<&Story> = self
            .stories
            .iter()
            .filter(|story| ids.contains(story.id.to_string().as_str()))
            .collect();
        stories.sort_by_key(|story| (story.first_ns, story.id));
        stories
    }

    /// Whether a story of each of the fault's patterns was emitted.
    pub(super) fn has_stories_of(&self, fault: &CausedFault) -> bool {
        let stories = self.stories(fault);
        fault.patterns.iter().all(|p| stories.iter().any(|story| story.pattern == *p))
    }

    /// The number of stories about other processes.
    pub(super) fn other_stories(&self) -> usize {
        self.stories.iter().filter(|story| !self.about.contains(&story.id.to_string())).count()
    }
}

/// The ids of the stories that an event belongs to.
fn story_ids(event: &Json) -> impl Iterator<Item = &str> {
    let memberships = event["correlation"].as_array().map_or(&[][..], |a| a);
    memberships.iter().filter_map(|membership| membership["id"].as_str())
}

/// The agent and its surroundings. Ends and cleans up when the value is dropped.
pub(super) struct DemoEnvironment {
    // Dropped first: its folder must exist until it has ended.
    agent: Option<Agent>,
    runtime: tokio::runtime::Runtime,
    server: String,
    folder: Folder,
    /// Set by SIGINT and SIGTERM, so that the demo cleans up before it exits.
    interrupted: Arc<AtomicBool>,
}

impl DemoEnvironment {
    /// Starts the agent and waits until the eBPF programs are attached.
    pub(super) fn open(keep: bool) -> anyhow::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        let folder = Folder::create(keep).context("can't create a temporary folder")?;
        let agent = Agent::start(config(&folder.path), true)?;
        let server = agent.server().map(|s| s.grpc_addr.to_string()).unwrap_or_default();
        let environment =
            Self { agent: Some(agent), runtime: live::runtime()?, server, folder, interrupted };
        environment.wait_until_attached()?;
        Ok(environment)
    }

    /// The folder of the data.
    pub(super) fn folder(&self) -> &Path {
        &self.folder.path
    }

    fn wait_until_attached(&self) -> anyhow::Result<()> {
        let began = clock::instant();
        while began.elapsed() < TIMEOUT {
            for status in self.agent.iter().flat_map(Agent::collectors) {
                if matches!(status.health, Health::Backoff | Health::Unavailable) {
                    anyhow::bail!("the kernel can't be observed: {}", status.last_error);
                }
                // The collector publishes its counters once every program is attached.
                if status.health.is_running() && !status.counters.is_empty() {
                    return Ok(());
                }
            }
            self.pause()?;
        }
        anyhow::bail!("the eBPF programs weren't attached within {TIMEOUT:?}")
    }

    /// Runs this program as a child with the hidden verb, under another name, and waits for its
    /// end.
    pub(super) fn run_child(
        &self,
        caused: &mut CausedFault,
        name: &str,
        arguments: &[&str],
    ) -> anyhow::Result<()> {
        let program = self.folder.path.join(name);
        if !program.exists() {
            symlink(std::env::current_exe()?, &program)?;
        }
        let mut child = Command::new(&program)
            .arg("demo-fault")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| program.display().to_string())?;
        caused.pids.insert(child.id());
        let mut message = String::new();
        if let Some(stderr) = &mut child.stderr {
            // Needed for the error below only.
            let _ = io::Read::read_to_string(stderr, &mut message);
        }
        let status = child.wait()?;
        if status.code().is_some_and(|code| code != 0) {
            anyhow::bail!("{name} didn't fail as intended: {}", message.trim());
        }
        Ok(())
    }

    /// Waits until the server has the fault's stories, or for [`TIMEOUT`]: a missing story is
    /// reported at the end.
    pub(super) fn wait_for_stories(&self, fault: &CausedFault) -> anyhow::Result<()> {
        let began = clock::instant();
        while began.elapsed() < TIMEOUT {
            if self.query(std::slice::from_ref(fault))?.has_stories_of(fault) {
                return Ok(());
            }
            self.pause()?;
        }
        Ok(())
    }

    fn pause(&self) -> anyhow::Result<()> {
        // Relaxed, paired with the signal handler's store: no other data depends on it.
        if self.interrupted.load(Ordering::Relaxed) {
            anyhow::bail!("interrupted");
        }
        std::thread::sleep(POLL_INTERVAL);
        Ok(())
    }

    /// Queries the server for the events and stories of these faults.
    pub(super) fn query(&self, faults: &[CausedFault]) -> anyhow::Result<StoredResults> {
        let stored = self.runtime.block_on(query(&self.server, faults));
        stored.map_err(anyhow::Error::msg).context("embedded server")
    }

    /// Drains the agent, which ends every story. The server still answers.
    pub(super) fn drain(&mut self) -> Snapshot {
        self.agent.as_mut().map(Agent::drain).unwrap_or_default()
    }
}

impl Drop for DemoEnvironment {
    fn drop(&mut self) {
        if let Some(agent) = self.agent.take() {
            // CONS-1 was checked after the drain.
            let _ = agent.finish();
        }
    }
}

/// A configuration with the eBPF collector only, free ports, and every file in the folder.
fn config(folder: &Path) -> Config {
    let mut config = Config { state_dir: Some(folder.join("state")), ..Config::default() };
    config.collectors.only = Some(vec!["ebpf".into()]);
    // What the server hasn't stored at the end is nobody's to send later: the drain waits for it.
    config.bridge.spool_bytes = 0;
    config.server.data_dir = folder.join("data");
    for listen in
        [&mut config.server.grpc_listen, &mut config.server.http_listen, &mut config.admin.listen]
    {
        *listen = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    }
    config
}

async fn query(server: &str, faults: &[CausedFault]) -> Result<StoredResults, String> {
    let mut client = live::connect(server, &ClientAccess::default()).await?;
    let kinds: BTreeSet<&str> = faults.iter().flat_map(|f| f.kinds.iter().copied()).collect();
    let mut events = Vec::new();
    for kind in kinds {
        let request = proto::ListEventsRequest {
            limit: QUERY_LIMIT,
            kind: kind.to_owned(),
            ..Default::default()
        };
        let response = client.list_events(request).await.map_err(|e| e.message().to_owned())?;
        for batch in response.into_inner().batches {
            let (items, _) = batch_json(&batch.encode_to_vec()).map_err(|e| e.to_string())?;
            let items = items.into_iter().map(|(_, json)| json);
            events.extend(items.filter(|e| faults.iter().any(|f| f.is_about(e))));
        }
    }
    let request = proto::ListStoriesRequest { limit: QUERY_LIMIT, ..Default::default() };
    let response = client.list_stories(request).await.map_err(|e| e.message().to_owned())?;
    let stories = response.into_inner().stories.into_iter();
    let stories = stories.filter_map(story_from_proto);
    let about = events.iter().flat_map(story_ids).map(str::to_owned).collect();
    Ok(StoredResults {
        stories: stories.filter(|story| !story.is_lifecycle()).collect(),
        events,
        about,
    })
}
