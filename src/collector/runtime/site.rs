//! Where a collector works: the node, who is who on it, and what survives a restart.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tapio_core::identity::Directory;
use tapio_core::ring::Ledger;

/// What all collectors of an agent share. Cloning shares it.
#[derive(Clone)]
pub struct Site {
    /// The node's name, the value of `host.name`.
    pub node: Arc<str>,
    /// Identifies this start of this node's agent in event ids.
    pub origin: u64,
    /// Who is who: collectors that learn facts write them here, all read them.
    pub directory: Arc<Directory>,
    /// Where cursors are kept; `None` where nothing is to survive (tests, replay).
    pub state_dir: Option<PathBuf>,
    ledger: Arc<OnceLock<Arc<Ledger>>>,
}

impl Site {
    /// A site without state.
    #[must_use]
    pub fn new(node: &str, origin: u64) -> Self {
        Self {
            node: node.into(),
            origin,
            directory: Arc::default(),
            state_dir: None,
            ledger: Arc::default(),
        }
    }

    /// The same site with a folder for cursors.
    #[must_use]
    pub fn with_state_dir(mut self, dir: PathBuf) -> Self {
        self.state_dir = Some(dir);
        self
    }

    /// Says where all stages' counters are, once all stages are there.
    pub fn account_in(&self, ledger: Arc<Ledger>) {
        // A second ledger would be a second agent; the first one stays.
        let _ = self.ledger.set(ledger);
    }

    /// Whether the agent has started whole, and accounts for events.
    #[must_use]
    pub fn is_accounted(&self) -> bool {
        self.ledger.get().is_some()
    }

    /// Events of a collector that are neither stored nor dropped yet; `None` until the agent has
    /// started whole.
    #[must_use]
    pub fn held(&self, collector: u8) -> Option<u64> {
        self.ledger.get()?.held(collector)
    }
}
