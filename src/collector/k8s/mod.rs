//! Collector `k8s`: the lives of this node's pods, the node's conditions, rollouts and Events, from the API server; and who is
//! who, for all collectors.
//!
//! | file | purpose |
//! | --- | --- |
//! | `client.rs` | how to reach the API server |
//! | `wire.rs` | requests, their answers and what went wrong with them |
//! | `feed.rs` | one resource, listed and watched for ever: [`Feed`] |
//! | `owners.rs` | the Deployment behind a ReplicaSet, the CronJob behind a Job |
//! | `look.rs` | a watch without a server, for the fuzz target |
//! | `objects.rs` | Kubernetes' objects, pruned while they are parsed |
//! | `pods.rs` | a pod's life, as a pure state machine |
//! | `conditions.rs` | the node's conditions and rollouts, likewise |
//! | `events.rs` | what an Event says, and which are new |
//! | `addresses.rs` | services and the pods behind them |
//! | `known.rs` | pods as the directory has them |
//! | `saved.rs` | what is kept over restarts |
//! | `session.rs` | what the feeds say, into the directory, the state machines and out as events |
//! | `texts.rs` | texts that are kept once |
//! | `tell.rs` | from what happened to events |
//!
//! Each resource has a feed, a task of its own; the feeds hand what they read to the session through one bounded channel, so
//! when the session waits (a full ring, a position that can't be saved) they do, and so does the server.

mod addresses;
mod client;
mod conditions;
mod events;
mod feed;
mod known;
mod look;
mod objects;
mod owners;
mod pods;
mod saved;
mod session;
mod tell;
mod texts;
mod wire;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kube::client::Client;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

use crate::runtime::cursor::Cursor;
use crate::runtime::poll_timer::PollTimer;
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, factory,
};
#[doc(hidden)]
pub use look::look;
use tapio_core::clock;
use tapio_core::event::Reason;

use feed::{Bookmarks, Condition, Feed, Said, Start, Watched};
use owners::{Owners, Refusals};
use saved::Saved;
use session::{Now, Session};
use wire::Trouble;

/// How often it looks whether a position can be saved, while one waits or is to come.
const TICK: Duration = Duration::from_millis(50);
/// How often a position is taken down, and it is looked at what time alone brings.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What the feeds may have read ahead.
const AHEAD: usize = 256;
/// Bad objects that are logged one by one.
const LOGGED: u64 = 10;

/// The section `collectors.k8s`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether to run it. Without a cluster it costs nothing.
    pub enabled: bool,
    /// A kubeconfig to use instead of the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context; its current one if unset.
    pub context: Option<String>,
    /// This node's name in the cluster; `$NODE_NAME`, else the agent's node name, if unset.
    pub node: Option<String>,
    /// Whether to watch the pods of all nodes, for their addresses, and not only those behind services.
    pub cluster_pods: bool,
    /// Whether to tell what belongs to no node (rollouts, Jobs, pods without a node). All agents of a cluster tell it under
    /// the same ids; in a large one let one agent do.
    pub objects_without_node: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            kubeconfig: None,
            context: None,
            node: None,
            cluster_pods: false,
            objects_without_node: true,
        }
    }
}

/// Waits for a full ring. The API server keeps what isn't read yet, for a while; after that the difference is told.
impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        self.enabled
    }

    fn factory(&self) -> CollectorFactory {
        factory(self.clone(), Kubernetes)
    }
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
enum Resource {
    Pods,
    Nodes,
    Events,
    Deployments,
    Services,
    Endpoints,
}

impl Resource {
    /// Its name where permissions are given, and what is lost without it.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Pods => {
                ("pods", "the lives of this node's pods aren't told, and containers have no names")
            }
            Self::Nodes => ("nodes", "the node's conditions aren't told"),
            Self::Events => ("events", "Events aren't told"),
            Self::Deployments => ("deployments.apps", "rollouts aren't told"),
            Self::Services => ("services", "addresses of services have no names"),
            Self::Endpoints => (
                "endpointslices.discovery.k8s.io",
                "pods of other nodes have no names, and nobody knows who is behind a service",
            ),
        }
    }
}

/// From the feeds to the session.
enum Message {
    Pod(Box<Said<objects::Pod>>),
    Node(Said<objects::Node>),
    Event(Box<Said<objects::Event>>),
    Deployment(Said<objects::Deployment>),
    Service(Said<objects::Service>),
    Endpoints(Said<objects::Endpoints>),
    /// How a feed is.
    Feed(Resource, Condition),
    /// An object that can't be read, and why.
    Bad(Resource, String),
}

struct Kubernetes(Config);

impl Collector for Kubernetes {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| CollectorError::new("runtime", e))?;
        let ended = runtime.block_on(collect(&self.0, context));
        // The feeds are tasks of this runtime and end with it.
        runtime.shutdown_background();
        ended
    }
}

/// This node's name in the cluster.
fn node_name(config: &Config, context: &Context) -> String {
    let from_pod = || std::env::var("NODE_NAME").ok().filter(|n| !n.is_empty());
    config.node.clone().or_else(from_pod).unwrap_or_else(|| context.site.node.to_string())
}

async fn collect(config: &Config, context: &mut Context) -> Result<Ended, CollectorError> {
    let access = client::access(config).await?;
    let server = access.cluster_url.to_string();
    let node = node_name(config, context);
    let cursor = Cursor::open(context.site.state_dir.as_deref(), "k8s")
        .map_err(|e| CollectorError::new("the kept position", e))?;
    let saved = Saved::read(cursor.saved(), &server, &node);
    context.report.note("server", format!("{server}, node {node}"));
    let client = client::client(access)?;
    let (to, messages) = mpsc::channel(AHEAD);
    let refusals = Refusals::default();
    let (refused, doubt) = (refusals.clone(), Arc::default());
    Plan { config, client, node: &node, saved: &saved, to, refusals: refused, doubt }.start();
    let teller = {
        let site = &context.site;
        tell::Teller::new(site.node.clone(), site.origin, Arc::clone(&site.directory))
    };
    let directory = context.site.directory.clone();
    let session = Session::new(config, &node, directory, teller, saved, clock::wall_ns());
    let tallies = Tallies::default();
    Running { session, cursor, messages, refusals, tallies, paused: false, unauthorized: None }
        .run(context)
        .await
}

/// What the feeds are made of.
struct Plan<'a> {
    config: &'a Config,
    client: Client,
    node: &'a str,
    saved: &'a Saved,
    to: mpsc::Sender<Message>,
    refusals: Refusals,
    doubt: Arc<Notify>,
}

impl Plan<'_> {
    fn start(&self) {
        let of_node = (!self.config.cluster_pods).then(|| format!("spec.nodeName={}", self.node));
        let pods = |said| Message::Pod(Box::new(said));
        self.feed(Resource::Pods, &["/api/v1/pods"], of_node, pods);
        let this = Some(format!("metadata.name={}", self.node));
        self.feed(Resource::Nodes, &["/api/v1/nodes"], this, Message::Node);
        self.feed(Resource::Events, &["/api/v1/events"], None, |said| {
            Message::Event(Box::new(said))
        });
        self.feed(Resource::Deployments, &["/apis/apps/v1/deployments"], None, Message::Deployment);
        self.feed(Resource::Services, &["/api/v1/services"], None, Message::Service);
        let slices = [
            "/apis/discovery.k8s.io/v1/endpointslices",
            "/apis/discovery.k8s.io/v1beta1/endpointslices",
            "/api/v1/endpoints",
        ];
        self.feed(Resource::Endpoints, &slices, None, Message::Endpoints);
    }

    fn feed<T: Watched>(
        &self,
        resource: Resource,
        paths: &[&str],
        field_selector: Option<String>,
        wrap: fn(Said<T>) -> Message,
    ) {
        let feed = Feed {
            client: self.client.clone(),
            resource,
            paths: paths.iter().map(|p| (*p).to_owned()).collect(),
            field_selector,
            start: if resource == Resource::Events { Start::Now } else { Start::List },
            at: self.saved.position(resource).map(str::to_owned),
            names_first: matches!(resource, Resource::Pods | Resource::Deployments),
            to: self.to.clone(),
            wrap,
            owners: Owners::new(self.client.clone(), self.node, self.refusals.clone()),
            node: self.node.to_owned(),
            bookmarks: Bookmarks::Expected,
            doubt: Arc::clone(&self.doubt),
        };
        drop(tokio::spawn(feed.run()));
    }
}

/// Numbers for `/metrics`.
#[derive(Default)]
struct Tallies {
    watches: u64,
    expired: u64,
    throttled: u64,
    forbidden: u64,
    lost: u64,
    bad: u64,
    saved_bytes: u64,
}

struct Running {
    session: Session,
    cursor: Cursor,
    messages: mpsc::Receiver<Message>,
    refusals: Refusals,
    tallies: Tallies,
    /// Nothing more is to be offered until a position was saved.
    paused: bool,
    /// The credentials aren't accepted (any more).
    unauthorized: Option<String>,
}

impl Running {
    async fn run(mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let mut timer = PollTimer::new(&context.shutdown, TICK);
        let mut next_look = clock::instant();
        loop {
            tokio::select! {
                () = timer.next() => {
                    if clock::instant() >= next_look {
                        self.look(context);
                        next_look = clock::instant() + LOOK_EVERY;
                    }
                    self.settle(context);
                    if self.session.changed || self.cursor.is_pending() {
                        timer.wake_soon();
                    }
                }
                Some(message) = self.messages.recv(), if !self.paused => {
                    self.take(message, context);
                    // What is at hand is told at once; then the rings' readers are woken.
                    while !context.shutdown.is_requested() && let Ok(message) = self.messages.try_recv() {
                        self.take(message, context);
                    }
                    context.sink.flush();
                    timer.wake_soon();
                }
            }
            if context.shutdown.is_requested() {
                self.last_position(context);
                return Ok(Ended::Stopped);
            }
            if let Some(why) = self.unauthorized.take() {
                // Started again it reads them again, from wherever they are.
                self.last_position(context);
                return Err(CollectorError::new(
                    "the API server doesn't accept the credentials",
                    why,
                ));
            }
        }
    }

    /// Saves where it ends, once what was told last is settled.
    fn last_position(&mut self, context: &mut Context) {
        self.position();
        if let Err(error) = self.cursor.finish(context) {
            context.report.note("position", format!("can't be saved: {error}"));
        }
    }

    /// Takes down where everything is now, to be saved once what was told is settled.
    fn position(&mut self) {
        if std::mem::take(&mut self.session.changed) {
            let position = self.session.saved.text();
            self.tallies.saved_bytes = position.len() as u64;
            self.cursor.advance(&position);
        }
    }

    fn settle(&mut self, context: &Context) {
        match self.cursor.try_save(context) {
            Ok(paused) => self.paused = paused,
            Err(error) => {
                // It is tried again; the agent goes on meanwhile, and after a kill tells again from the last one.
                self.paused = false;
                context.report.note("position", format!("can't be saved: {error}"));
            }
        }
    }

    /// What time alone brings.
    fn look(&mut self, context: &mut Context) {
        let mut now = Now { ns: clock::wall_ns(), sink: &mut context.sink };
        self.session.tick(&mut now);
        context.sink.flush();
        self.position();
        self.tell(context);
    }

    fn take(&mut self, message: Message, context: &mut Context) {
        let mut now = Now { ns: clock::wall_ns(), sink: &mut context.sink };
        match message {
            Message::Pod(said) => self.session.pod(*said, &mut now),
            Message::Node(said) => self.session.node(said, &mut now),
            Message::Event(said) => self.session.event(*said, &mut now),
            Message::Deployment(said) => self.session.deployment(said, &mut now),
            Message::Service(said) => self.session.service(said, &mut now),
            Message::Endpoints(said) => self.session.endpoints(said, &mut now),
            Message::Feed(_, Condition::Trouble(Trouble::Unauthorized(why))) => {
                self.unauthorized = Some(why);
            }
            Message::Feed(resource, condition) => self.condition(resource, condition, context),
            Message::Bad(resource, cause) => self.bad(resource, &cause, context),
        }
    }

    fn condition(&mut self, resource: Resource, condition: Condition, context: &Context) {
        let (name, cost) = resource.words();
        let tallies = &mut self.tallies;
        let (tally, state) = match condition {
            Condition::Watching => (&mut tallies.watches, "ok".to_owned()),
            Condition::Expired => {
                (&mut tallies.expired, "listed again: the version was too old".to_owned())
            }
            Condition::Trouble(Trouble::Forbidden(_)) => (
                &mut tallies.forbidden,
                format!("needs the permission to list and watch {name}: {cost}"),
            ),
            Condition::Trouble(Trouble::Throttled(_)) => {
                (&mut tallies.throttled, "the server asks to come again later".to_owned())
            }
            Condition::Trouble(trouble) => (&mut tallies.lost, format!("{trouble}: tried again")),
        };
        *tally += 1;
        if state != "ok" {
            tracing::debug!(resource = name, state, "kubernetes");
        }
        context.report.note(name, state);
    }

    fn bad(&mut self, resource: Resource, cause: &str, context: &mut Context) {
        let (name, _) = resource.words();
        context.sink.refuse(Reason::BadInput, 1);
        self.tallies.bad += 1;
        if self.tallies.bad <= LOGGED {
            tracing::warn!("{name}: an object can't be read: {cause}: it is refused");
        }
        context.report.note(
            "objects that can't be read",
            format!("{}, the last one of {name}", self.tallies.bad),
        );
    }

    fn tell(&self, context: &Context) {
        let report = &context.report;
        for (name, value) in self.session.sizes() {
            report.count(name, value);
        }
        let tallies = &self.tallies;
        for (name, value) in [
            ("watches", tallies.watches),
            ("expired", tallies.expired),
            ("throttled", tallies.throttled),
            ("forbidden", tallies.forbidden),
            ("lost", tallies.lost),
            ("bad_objects", tallies.bad),
            ("saved_bytes", tallies.saved_bytes),
        ] {
            report.count(name, value);
        }
        for resource in &*self.refusals.lock().unwrap_or_else(PoisonError::into_inner) {
            let state = "needs the permission to get them: owners are taken from names, as far as those say";
            report.note(resource, state);
        }
    }
}
