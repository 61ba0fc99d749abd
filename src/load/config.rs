//! Configuration of the load generator.

use std::time::Duration;

use tapio_wire::ClientAccess;

/// The load to send.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadConfig {
    /// Address of an agent's receiver or a server: `host:port`.
    pub target: String,
    /// How the target is authenticated, and the sender.
    pub access: ClientAccess,
    /// Events per second; `None`: as many as the target accepts.
    pub rate: Option<u64>,
    /// How long to send.
    pub duration: Duration,
    /// Kinds that are relevant to rules, sent in turn.
    pub kinds: Vec<String>,
    /// The share of events of these kinds, 0 to 1; the others are `load.event`.
    pub match_share: f64,
    /// Number of distinct pods.
    pub keys: u64,
    /// Events per batch, all due at once; `None`: as many as give 2,000 batches per second, at
    /// least 16.
    pub batch_events: Option<u64>,
    /// The name of the node.
    pub node: String,
    /// Time limit for the last acks.
    pub ack_timeout: Duration,
}

impl Default for LoadConfig {
    fn default() -> Self {
        Self {
            target: "127.0.0.1:7602".into(),
            access: ClientAccess::default(),
            rate: None,
            duration: Duration::from_secs(10),
            kinds: Vec::new(),
            match_share: 0.0,
            keys: 1_000,
            batch_events: None,
            node: "load".into(),
            ack_timeout: Duration::from_secs(30),
        }
    }
}
