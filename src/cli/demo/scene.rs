//! Where the demo happens: an agent with its server in this process, the children that fail, and
//! what the server knows of them.

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
use tapio_wire::{batch_json, proto, story_from_proto};

/// How long the programs may take to attach, and a story to be told.
const PATIENCE: Duration = Duration::from_secs(6);
const LOOK: Duration = Duration::from_millis(50);
/// Events and stories asked for at a time: the most the server gives.
const MOST: u32 = 10_000;

/// A fault that was caused.
pub(super) struct Caused {
    /// What it is called.
    pub(super) name: &'static str,
    /// The patterns of the stories that must come of it.
    pub(super) patterns: &'static [&'static str],
    /// The kinds of event such stories are made of.
    kinds: &'static [&'static str],
    /// The children that failed.
    pub(super) pids: BTreeSet<u32>,
}

impl Caused {
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

/// A folder of the demo's own.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    keep: bool,
}

impl Folder {
    pub(super) fn make(keep: bool) -> io::Result<Self> {
        let name = format!("tapio-demo-{}-{}", std::process::id(), clock::wall_ns());
        let path = std::env::temp_dir().join(name);
        // It must be new, so nobody else can have prepared it.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path, keep })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // What can't be removed is in the folder for temporary files.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// What the server knows, at one instant.
pub(super) struct Seen {
    /// Stories that rules found.
    stories: Vec<Story>,
    events: Vec<Json>,
    /// Ids of stories about the children.
    about: BTreeSet<String>,
}

impl Seen {
    /// The events of a fault's children.
    pub(super) fn events(&self, caused: &Caused) -> Vec<&Json> {
        self.events.iter().filter(|e| caused.is_about(e)).collect()
    }

    /// The stories with events of a fault's children, oldest first.
    pub(super) fn stories(&self, caused: &Caused) -> Vec<&Story> {
        let ids: BTreeSet<&str> = self.events(caused).into_iter().flat_map(story_ids).collect();
        let mut stories: Vec<&Story> =
            self.stories.iter().filter(|g| ids.contains(g.id.to_string().as_str())).collect();
        stories.sort_by_key(|g| (g.first_ns, g.id));
        stories
    }

    /// Whether all the stories a fault must make are there.
    pub(super) fn tells(&self, caused: &Caused) -> bool {
        let stories = self.stories(caused);
        caused.patterns.iter().all(|p| stories.iter().any(|g| g.pattern == *p))
    }

    /// How many stories are about other processes.
    pub(super) fn others(&self) -> usize {
        self.stories.iter().filter(|g| !self.about.contains(&g.id.to_string())).count()
    }
}

/// The stories an event says it belongs to.
fn story_ids(event: &Json) -> impl Iterator<Item = &str> {
    let places = event["correlation"].as_array().map_or(&[][..], |a| a);
    places.iter().filter_map(|place| place["id"].as_str())
}

/// The agent and its surroundings. Ends and cleans up with the value.
pub(super) struct Scene {
    // First, so that it ends while its folder is there.
    agent: Option<Agent>,
    runtime: tokio::runtime::Runtime,
    server: String,
    folder: Folder,
    /// Set by Ctrl-C and SIGTERM, so that the demo cleans up before it goes.
    interrupted: Arc<AtomicBool>,
}

impl Scene {
    /// Starts the agent and waits until the kernel is watched.
    pub(super) fn open(keep: bool) -> anyhow::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        let folder = Folder::make(keep).context("no folder for temporary files")?;
        let agent = Agent::start(config(&folder.path), true)?;
        let server = agent.server().map(|s| s.grpc_addr.to_string()).unwrap_or_default();
        let scene =
            Self { agent: Some(agent), runtime: live::runtime()?, server, folder, interrupted };
        scene.wait_until_it_watches()?;
        Ok(scene)
    }

    /// Where the data is.
    pub(super) fn folder(&self) -> &Path {
        &self.folder.path
    }

    fn wait_until_it_watches(&self) -> anyhow::Result<()> {
        let began = clock::instant();
        while began.elapsed() < PATIENCE {
            for status in self.agent.iter().flat_map(Agent::collectors) {
                if matches!(status.health, Health::Backoff | Health::Unavailable) {
                    anyhow::bail!("the kernel can't be watched: {}", status.last_error);
                }
                // The collector publishes its counters once every program is attached.
                if status.health == Health::Running && !status.counters.is_empty() {
                    return Ok(());
                }
            }
            self.pause()?;
        }
        anyhow::bail!("the programs weren't attached within {PATIENCE:?}")
    }

    /// Runs this program with a hidden verb, under a name of its own, and waits for its end.
    pub(super) fn child(
        &self,
        caused: &mut Caused,
        name: &str,
        fault: &[&str],
    ) -> anyhow::Result<()> {
        let program = self.folder.path.join(name);
        if !program.exists() {
            symlink(std::env::current_exe()?, &program)?;
        }
        let mut child = Command::new(&program)
            .arg("demo-fault")
            .args(fault)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| program.display().to_string())?;
        caused.pids.insert(child.id());
        let mut said = String::new();
        if let Some(stderr) = &mut child.stderr {
            // Only for the message below.
            let _ = io::Read::read_to_string(stderr, &mut said);
        }
        let status = child.wait()?;
        if status.code().is_some_and(|code| code != 0) {
            anyhow::bail!("{name} didn't fail as it should have: {}", said.trim());
        }
        Ok(())
    }

    /// Waits until the server has the fault's stories, or not much longer: what is missing then is
    /// told at the end.
    pub(super) fn wait_for(&self, caused: &Caused) -> anyhow::Result<()> {
        let began = clock::instant();
        while began.elapsed() < PATIENCE {
            if self.look(std::slice::from_ref(caused))?.tells(caused) {
                return Ok(());
            }
            self.pause()?;
        }
        Ok(())
    }

    fn pause(&self) -> anyhow::Result<()> {
        // Relaxed, paired with the signal handler's store: nothing else goes with it.
        if self.interrupted.load(Ordering::Relaxed) {
            anyhow::bail!("interrupted");
        }
        std::thread::sleep(LOOK);
        Ok(())
    }

    /// Asks the server for everything about these faults.
    pub(super) fn look(&self, faults: &[Caused]) -> anyhow::Result<Seen> {
        let looked = self.runtime.block_on(ask(&self.server, faults));
        looked.map_err(anyhow::Error::msg).context("the embedded server")
    }

    /// Ends the watching: every story is told to its end. The server still answers.
    pub(super) fn drain(&mut self) -> Snapshot {
        self.agent.as_mut().map(Agent::drain).unwrap_or_default()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(agent) = self.agent.take() {
            // CONS-1 was looked at after the draining.
            let _ = agent.finish();
        }
    }
}

/// Only the kernel is watched, every port is a free one, every file in the folder.
fn config(folder: &Path) -> Config {
    let mut config = Config { state_dir: Some(folder.join("state")), ..Config::default() };
    // The faults are the kernel's to tell of.
    config.collectors.only = Some(vec!["ebpf".into()]);
    config.server.data_dir = folder.join("data");
    for listen in
        [&mut config.server.grpc_listen, &mut config.server.http_listen, &mut config.admin.listen]
    {
        *listen = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    }
    config
}

async fn ask(server: &str, faults: &[Caused]) -> Result<Seen, String> {
    let mut client = live::connect(server).await?;
    let kinds: BTreeSet<&str> = faults.iter().flat_map(|f| f.kinds.iter().copied()).collect();
    let mut events = Vec::new();
    for kind in kinds {
        let request =
            proto::ListEventsRequest { limit: MOST, kind: kind.to_owned(), ..Default::default() };
        let answer = client.list_events(request).await.map_err(|e| e.message().to_owned())?;
        for batch in answer.into_inner().batches {
            let (items, _) = batch_json(&batch.encode_to_vec()).map_err(|e| e.to_string())?;
            let items = items.into_iter().map(|(_, json)| json);
            events.extend(items.filter(|e| faults.iter().any(|f| f.is_about(e))));
        }
    }
    let request = proto::ListStoriesRequest { limit: MOST, ..Default::default() };
    let answer = client.list_stories(request).await.map_err(|e| e.message().to_owned())?;
    let stories = answer.into_inner().stories.into_iter();
    let stories = stories.filter_map(story_from_proto);
    let about = events.iter().flat_map(story_ids).map(str::to_owned).collect();
    Ok(Seen { stories: stories.filter(|g| !g.is_lifecycle()).collect(), events, about })
}
