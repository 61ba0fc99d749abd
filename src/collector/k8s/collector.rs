//! The collector's run loop: starts the feeds, applies their messages, saves checkpoints and
//! reports its status.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kube::client::Client;
use tokio::sync::{Notify, mpsc};

use super::checkpoint::Checkpoint;
use super::client;
use super::config::Config;
use super::feed::{Bookmarks, Feed, Start, Watched};
use super::messages::{FeedMessage, FeedStatus, Resource, WatchEvent};
use super::owners::{MissingPermissions, OwnerResolver};
use super::request::RequestError;
use super::session::{Output, Session};
use super::to_event::EventWriter;
use crate::runtime::cursor::Cursor;
use crate::runtime::poll_timer::PollTimer;
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, factory,
    tokio_runtime,
};
use tapio_core::clock;
use tapio_core::event::Reason;
use tapio_core::sandbox::FileRights;

/// Interval of attempts to save a checkpoint, while one is pending or due.
const SAVE_INTERVAL: Duration = Duration::from_millis(50);
/// Interval of checkpoints, and of checks for facts that only time brings.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(250);
/// Messages that the feeds may read ahead.
const CHANNEL_MESSAGES: usize = 256;
/// Bad objects that are logged one by one.
const MAX_LOGGED: u64 = 10;

// A full ring: the collector waits. The API server keeps unread versions for a while; after that
// the difference is emitted.
impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        self.enabled
    }

    fn reads_again(&self) -> bool {
        true
    }

    fn files(&self) -> Vec<(PathBuf, FileRights)> {
        let account = Some(client::SERVICE_ACCOUNT.into());
        let paths = account.into_iter().chain(self.kubeconfig.clone());
        paths.map(|path| (path, FileRights::Read)).collect()
    }

    fn factory(&self) -> CollectorFactory {
        factory(self.clone(), Kubernetes)
    }
}

struct Kubernetes(Config);

impl Collector for Kubernetes {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let runtime = tokio_runtime()?;
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
    let client_config = client::client_config(config).await?;
    let server = client_config.cluster_url.to_string();
    let node = node_name(config, context);
    let cursor = Cursor::open(context, "k8s", Checkpoint::check)
        .map_err(|e| CollectorError::new("checkpoint", e))?;
    let checkpoint = Checkpoint::read(cursor.saved(), &server, &node);
    context.report.note("server", format!("{server}, node {node}"));
    let (sender, messages) = mpsc::channel(CHANNEL_MESSAGES);
    let feeds = Feeds {
        config,
        client: client::client(client_config)?,
        node: &node,
        checkpoint: &checkpoint,
        messages: sender,
        missing_permissions: MissingPermissions::default(),
        connection_lost: Arc::default(),
    };
    let missing_permissions = Arc::clone(&feeds.missing_permissions);
    feeds.start();
    // The channel closes when the last feed ends.
    drop(feeds);
    let site = &context.site;
    let writer = EventWriter::new(site.node.clone(), site.origin, Arc::clone(&site.directory));
    let directory = Arc::clone(&site.directory);
    let session = Session::new(config, &node, directory, writer, checkpoint, clock::wall_ns());
    let run = Run {
        session,
        cursor,
        messages,
        missing_permissions,
        counts: Counts::default(),
        paused: false,
        unauthorized: None,
    };
    run.run(context).await
}

/// Starts the feeds; the fields are what they share.
struct Feeds<'a> {
    config: &'a Config,
    client: Client,
    node: &'a str,
    checkpoint: &'a Checkpoint,
    messages: mpsc::Sender<FeedMessage>,
    missing_permissions: MissingPermissions,
    connection_lost: Arc<Notify>,
}

impl Feeds<'_> {
    fn start(&self) {
        let of_node = (!self.config.cluster_pods).then(|| format!("spec.nodeName={}", self.node));
        let pod = |event| FeedMessage::Pod(Box::new(event));
        self.spawn(Resource::Pods, &["/api/v1/pods"], of_node, pod);
        let this_node = Some(format!("metadata.name={}", self.node));
        self.spawn(Resource::Nodes, &["/api/v1/nodes"], this_node, FeedMessage::Node);
        let event = |event| FeedMessage::Event(Box::new(event));
        self.spawn(Resource::Events, &["/api/v1/events"], None, event);
        let deployments = &["/apis/apps/v1/deployments"];
        self.spawn(Resource::Deployments, deployments, None, FeedMessage::Deployment);
        self.spawn(Resource::Services, &["/api/v1/services"], None, FeedMessage::Service);
        let slices = [
            "/apis/discovery.k8s.io/v1/endpointslices",
            "/apis/discovery.k8s.io/v1beta1/endpointslices",
            "/api/v1/endpoints",
        ];
        self.spawn(Resource::Endpoints, &slices, None, FeedMessage::Endpoints);
    }

    fn spawn<T: Watched>(
        &self,
        resource: Resource,
        paths: &[&str],
        field_selector: Option<String>,
        wrap: fn(WatchEvent<T>) -> FeedMessage,
    ) {
        let missing = Arc::clone(&self.missing_permissions);
        let feed = Feed {
            client: self.client.clone(),
            resource,
            paths: paths.iter().map(|p| (*p).to_owned()).collect(),
            field_selector,
            start: if resource == Resource::Events { Start::Now } else { Start::List },
            position: self.checkpoint.position(resource).map(str::to_owned),
            identify_first: matches!(resource, Resource::Pods | Resource::Deployments),
            messages: self.messages.clone(),
            wrap,
            owners: OwnerResolver::new(self.client.clone(), self.node, missing),
            node: self.node.to_owned(),
            bookmarks: Bookmarks::Expected,
            connection_lost: Arc::clone(&self.connection_lost),
        };
        drop(tokio::spawn(feed.run()));
    }
}

/// Counters for `/metrics`.
#[derive(Default)]
struct Counts {
    watches: u64,
    expired: u64,
    throttled: u64,
    forbidden: u64,
    lost: u64,
    bad_objects: u64,
    checkpoint_bytes: u64,
}

/// One run of the collector.
struct Run {
    session: Session,
    cursor: Cursor,
    messages: mpsc::Receiver<FeedMessage>,
    missing_permissions: MissingPermissions,
    counts: Counts,
    /// Whether to emit nothing until a checkpoint has been saved.
    paused: bool,
    /// Why the server rejects the credentials.
    unauthorized: Option<String>,
}

impl Run {
    async fn run(mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let mut turns = PollTimer::new(&context.shutdown, SAVE_INTERVAL);
        let mut next_checkpoint = clock::instant();
        loop {
            tokio::select! {
                () = turns.next() => {
                    if clock::instant() >= next_checkpoint {
                        self.tick(context);
                        next_checkpoint = clock::instant() + CHECKPOINT_INTERVAL;
                    }
                    self.save(context);
                    if self.session.changed || self.cursor.is_pending() {
                        turns.wake_soon();
                    }
                }
                Some(message) = self.messages.recv(), if !self.paused => {
                    self.apply(message, context);
                    self.apply_available(context);
                    turns.wake_soon();
                }
            }
            if context.shutdown.is_requested() {
                self.finish(context);
                return Ok(Ended::Stopped);
            }
            if let Some(cause) = self.unauthorized.take() {
                // The next run reads the credentials again.
                self.finish(context);
                return Err(CollectorError::new("API server rejects the credentials", cause));
            }
        }
    }

    /// Applies the messages in the channel, then wakes the readers of the rings.
    fn apply_available(&mut self, context: &mut Context) {
        while !context.shutdown.is_requested()
            && let Ok(message) = self.messages.try_recv()
        {
            self.apply(message, context);
        }
        context.sink.flush();
    }

    /// Saves the last checkpoint, once the last events are stored or dropped and counted.
    fn finish(&mut self, context: &mut Context) {
        self.take_checkpoint();
        if let Err(error) = self.cursor.finish(context) {
            note_unsaved(context, &error);
        }
    }

    /// Takes a checkpoint, to be saved once every event before it is stored or dropped and counted.
    fn take_checkpoint(&mut self) {
        if std::mem::take(&mut self.session.changed) {
            let text = self.session.checkpoint.to_text();
            self.counts.checkpoint_bytes = text.len() as u64;
            self.cursor.advance(&text);
        }
    }

    fn save(&mut self, context: &mut Context) {
        match self.cursor.try_save(context) {
            Ok(paused) => self.paused = paused,
            Err(error) => {
                // The next attempt may succeed; after a kill the agent repeats the events since the
                // last saved checkpoint.
                self.paused = false;
                note_unsaved(context, &error);
            }
        }
    }

    /// Emits facts that only time brings, takes a checkpoint and reports the status.
    fn tick(&mut self, context: &mut Context) {
        let mut out = Output { now_ns: clock::wall_ns(), sink: &mut context.sink };
        self.session.tick(&mut out);
        context.sink.flush();
        self.take_checkpoint();
        self.report(context);
    }

    fn apply(&mut self, message: FeedMessage, context: &mut Context) {
        let mut out = Output { now_ns: clock::wall_ns(), sink: &mut context.sink };
        match message {
            FeedMessage::Pod(event) => self.session.pod(*event, &mut out),
            FeedMessage::Node(event) => self.session.node(event, &mut out),
            FeedMessage::Event(event) => self.session.event(*event, &mut out),
            FeedMessage::Deployment(event) => self.session.deployment(event, &mut out),
            FeedMessage::Service(event) => self.session.service(event, &mut out),
            FeedMessage::Endpoints(event) => self.session.endpoints(event, &mut out),
            FeedMessage::Status(_, FeedStatus::Failed(RequestError::Unauthorized(cause))) => {
                self.unauthorized = Some(cause);
            }
            FeedMessage::Status(resource, status) => self.feed_status(resource, status, context),
            FeedMessage::BadObject(resource, cause) => self.bad_object(resource, &cause, context),
        }
    }

    fn feed_status(&mut self, resource: Resource, status: FeedStatus, context: &Context) {
        let name = resource.rbac_name();
        let counts = &mut self.counts;
        let (count, state) = match status {
            FeedStatus::Watching => (&mut counts.watches, "ok".to_owned()),
            FeedStatus::Expired => {
                (&mut counts.expired, "listing again: the watched version is too old".to_owned())
            }
            FeedStatus::Failed(RequestError::Forbidden(_)) => {
                let effect = resource.missing_without();
                let state = format!("missing permission to list and watch {name}; {effect}");
                (&mut counts.forbidden, state)
            }
            FeedStatus::Failed(RequestError::Throttled(_)) => {
                (&mut counts.throttled, "throttled by the API server; retrying later".to_owned())
            }
            FeedStatus::Failed(error) => (&mut counts.lost, format!("{error}; retrying")),
        };
        *count += 1;
        if state != "ok" {
            tracing::debug!(collector = "k8s", resource = name, state, "feed status");
        }
        context.report.note(name, state);
    }

    fn bad_object(&mut self, resource: Resource, cause: &str, context: &mut Context) {
        let name = resource.rbac_name();
        context.sink.refuse(Reason::BadInput, 1);
        self.counts.bad_objects += 1;
        let bad = self.counts.bad_objects;
        if bad <= MAX_LOGGED {
            tracing::warn!(collector = "k8s", error = cause, "skipped an invalid object of {name}");
        }
        context.report.note("invalid objects", format!("{bad}, most recently of {name}"));
    }

    fn report(&self, context: &Context) {
        let report = &context.report;
        self.session.report(report);
        report.count("watches", self.counts.watches);
        report.count("watches_expired", self.counts.expired);
        report.count("requests_throttled", self.counts.throttled);
        report.count("requests_forbidden", self.counts.forbidden);
        report.count("connections_lost", self.counts.lost);
        report.count("objects_invalid", self.counts.bad_objects);
        report.count("checkpoint_bytes", self.counts.checkpoint_bytes);
        let missing = self.missing_permissions.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in &*missing {
            let state = format!(
                "missing permission to get {resource}; Deployment names are derived from pod labels; \
                 CronJob names will be missing"
            );
            report.note(resource, state);
        }
    }
}

fn note_unsaved(context: &Context, error: &std::io::Error) {
    context.report.note("cursor", format!("can't be saved: {error}; retrying"));
}
