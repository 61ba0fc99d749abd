//! The story that `tapio notify test` sends: opened, then closed, and marked as a test.

use std::io;

use super::config::{ReceiverConfig, check_receivers};
use super::kinds::receiver;
use super::notification::{Content, Notification, Occasion, notification_id};
use super::placed::Placed;
use tapio_core::clock;
use tapio_core::event::{Candidate, Severity, Story, StoryState, TraceId, stable_hash};

/// The rule of the story.
const RULE: &str = "tapio-notify-test";

/// The answers of a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The receiver.
    pub receiver: String,
    /// Its kind; empty where the configuration has none.
    pub kind: &'static str,
    /// The notifications that it was sent, each with the cause why it didn't take it.
    pub answers: Vec<(&'static str, Result<(), String>)>,
}

impl Trial {
    /// Whether the receiver took all of them.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.answers.iter().all(|(_, answer)| answer.is_ok())
    }
}

fn story(node: &str, now_ns: u64) -> Story {
    let id = TraceId(stable_hash(&[RULE.as_bytes(), node.as_bytes(), &now_ns.to_be_bytes()]));
    Story {
        id,
        trace_id: id,
        rule: RULE.into(),
        pattern: "test".into(),
        name: format!("Test of notifications from {node}"),
        intent: "Sent by `tapio notify test`; nothing happened.".into(),
        key: vec![("host.name".into(), node.to_owned())],
        first_ns: now_ns,
        last_ns: now_ns,
        severity: Severity::WARN,
        root_cause: vec![Candidate {
            cause: "somebody ran `tapio notify test`".into(),
            entity: None,
            evidence: Vec::new(),
            labels: Vec::new(),
            score: 1.0,
            terms: Vec::new(),
        }],
        actions: vec!["none: this is a test".into()],
        confidence: 1.0,
        ..Story::default()
    }
}

/// Sends a story that is marked as a test to each receiver, or to the one of this name: first that
/// it is opened, then that it is closed. Each is sent once.
///
/// # Errors
/// With the cause: an invalid configuration, or no receiver of this name.
pub fn try_receivers(
    receivers: &[Placed<ReceiverConfig>],
    only: Option<&str>,
    cluster: &str,
    node: &str,
) -> io::Result<Vec<Trial>> {
    let invalid = |cause| io::Error::new(io::ErrorKind::InvalidInput, cause);
    check_receivers(receivers).map_err(|(_, cause)| invalid(cause))?;
    let is_chosen = |config: &&ReceiverConfig| only.is_none_or(|name| config.name == name);
    let chosen = receivers.iter().map(|placed| &placed.value).filter(is_chosen);
    let chosen: Vec<&ReceiverConfig> = chosen.collect();
    if chosen.is_empty() {
        let names: Vec<&str> = receivers.iter().map(|r| r.value.name.as_str()).collect();
        return Err(invalid(match only {
            Some(name) => format!("no receiver {name:?}; there are: {}", names.join(", ")),
            None => "server.notify has no receivers".into(),
        }));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let mut trials = Vec::new();
        for config in chosen {
            trials.push(try_receiver(config, cluster, node).await);
        }
        trials
    }))
}

async fn try_receiver(config: &ReceiverConfig, cluster: &str, node: &str) -> Trial {
    let kind = config.kind().map_or("", |(kind, _)| kind);
    let mut trial = Trial { receiver: config.name.clone(), kind, answers: Vec::new() };
    let to = match receiver(config) {
        Ok(to) => to,
        Err(cause) => {
            trial.answers.push((Occasion::Opened.as_str(), Err(cause)));
            return trial;
        }
    };
    let now_ns = clock::wall_ns();
    let (mut story, mut reference) = (story(node, now_ns), None);
    for occasion in [Occasion::Opened, Occasion::Closed] {
        if occasion == Occasion::Closed {
            (story.state, story.revision) = (StoryState::Closed, 1);
            story.last_ns = clock::wall_ns();
        }
        let key = story.id.to_string();
        let notification = Notification {
            id: notification_id(&[&config.name, &key, occasion.as_str()]),
            occasion,
            time_ns: clock::wall_ns(),
            link: config.link.replace("{id}", &key).replace("{trace_id}", &key),
            key,
            node: node.to_owned(),
            cluster: cluster.to_owned(),
            content: Content::Story {
                story: Box::new(story.clone()),
                annotations: None,
                silence: None,
            },
            reference: reference.clone(),
            is_shared: false,
            is_test: true,
        };
        let answer = std::sync::Arc::clone(&to).send(notification).await;
        let answer = answer.map(|new| reference = new).map_err(|failure| failure.to_string());
        trial.answers.push((occasion.as_str(), answer));
    }
    trial
}
