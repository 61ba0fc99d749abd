//! The environment that all collectors of an agent share.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use super::kernel_facts::KernelFacts;
use super::live_rate::LiveRate;
use tapio_core::cpu::ThreadLayout;
use tapio_core::identity::{Directory, node_base};
use tapio_core::redact::Redactor;
use tapio_core::ring::{Ledger, MAX_COLLECTORS, Target};

/// The node, its entity directory, and persisted state. Clones share it.
#[derive(Clone)]
pub struct Site {
    /// The node's name, the value of `host.name`.
    pub node: Arc<str>,
    /// Identifies this start of this node's agent in event ids.
    pub origin: u64,
    /// The entity directory: collectors write what they learn, and all read it.
    pub directory: Arc<Directory>,
    /// Facts of the kernel that two sources report.
    pub kernel_facts: Arc<KernelFacts>,
    /// The cgroup that contains this node, if the node is a container (`node_base`); else empty.
    pub cgroup_base: Arc<str>,
    /// The folder for cursors; `None` if nothing is persisted (tests, replay).
    pub state_dir: Option<PathBuf>,
    /// Removes secrets from status notes and errors.
    pub redactor: Arc<Redactor>,
    /// The CPUs of the collectors' threads.
    pub layout: Arc<ThreadLayout>,
    /// The rate limit of the journal's units, once a reload has changed it.
    pub journal_rate: Arc<LiveRate>,
    ledger: Arc<OnceLock<Arc<Ledger>>>,
    accepted: Arc<[Arc<Accepted>; MAX_COLLECTORS]>,
}

/// Notified whenever events of a collector are accepted.
#[derive(Debug, Default)]
pub(crate) struct Accepted(Notify);

impl Accepted {
    /// Waits for acceptances since the last call. Cancel-safe.
    pub(crate) async fn next(&self) {
        self.0.notified().await;
    }
}

impl Target for Accepted {
    fn wake(&self) {
        // Without a waiting task, the next one to wait gets it.
        self.0.notify_one();
    }
}

impl Site {
    /// A site without persisted state.
    #[must_use]
    pub fn new(node: &str, origin: u64) -> Self {
        Self {
            node: node.into(),
            origin,
            directory: Arc::default(),
            kernel_facts: Arc::default(),
            cgroup_base: node_base(&own_cgroup()).into(),
            state_dir: None,
            redactor: Redactor::builtin(),
            layout: Arc::default(),
            journal_rate: Arc::default(),
            ledger: Arc::default(),
            accepted: Arc::new(std::array::from_fn(|_| Arc::default())),
        }
    }

    /// Sets the folder for cursors.
    #[must_use]
    pub fn with_state_dir(mut self, dir: PathBuf) -> Self {
        self.state_dir = Some(dir);
        self
    }

    /// Replaces the built-in redactor of status notes and errors.
    #[must_use]
    pub fn with_redactor(mut self, redactor: Arc<Redactor>) -> Self {
        self.redactor = redactor;
        self
    }

    /// Places the collectors' threads on CPUs.
    #[must_use]
    pub fn with_layout(mut self, layout: Arc<ThreadLayout>) -> Self {
        self.layout = layout;
        self
    }

    /// Sets the ledger, once all stages have registered with it. Later calls have no effect: a
    /// second ledger would belong to a second agent.
    pub fn set_ledger(&self, ledger: Arc<Ledger>) {
        for (collector, accepted) in (0u8..).zip(&*self.accepted) {
            let target: Arc<Accepted> = Arc::clone(accepted);
            ledger.set_acceptance_target(collector, target);
        }
        let _ = self.ledger.set(ledger);
    }

    /// Notified whenever events of a collector are accepted.
    #[must_use]
    pub(crate) fn accepted(&self, collector: u8) -> Arc<Accepted> {
        Arc::clone(&self.accepted[usize::from(collector) % MAX_COLLECTORS])
    }

    /// Whether all stages have started, so that every event is accounted for.
    #[must_use]
    pub fn has_ledger(&self) -> bool {
        self.ledger.get().is_some()
    }

    /// Events of a collector's generation that are neither accepted nor dropped yet; `None` until
    /// all stages have started.
    #[must_use]
    pub fn unsettled(&self, collector: u8, generation: u64) -> Option<u64> {
        Some(self.ledger.get()?.unsettled(collector, generation))
    }
}

/// The path of this process's cgroup: in the unified hierarchy, or, where it is in its root, in
/// systemd's own.
fn own_cgroup() -> String {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    cgroup_of_process(&text).to_owned()
}

/// The path in a file like `/proc/PID/cgroup` (cgroups(7)).
pub(crate) fn cgroup_of_process(text: &str) -> &str {
    let of =
        |prefix: &str| text.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(prefix));
    of(":").filter(|path| *path != "/").or_else(|| of("name=systemd:")).unwrap_or("/")
}
