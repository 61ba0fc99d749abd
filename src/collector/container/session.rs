//! One connection to containerd: its events as they come, and its lists compared with what is known.

use std::time::Duration;

use prost::Message as _;
use tonic::Status;

use super::Run;
use super::api::events::Envelope;
use super::api::payloads::{
    ContainerCreate, ContainerDelete, ImageName, TaskExit, TaskOom, TaskStart,
};
use super::api::tasks::{Process, Status as TaskState};
use super::client::{Client, arrival};
use super::events::{Pulled, Times};
use super::observed::{Facts, Happened, Key, wall_ns};
use tapio_core::clock;
use tapio_core::event::Reason;

/// The second look at the lists: events of a subscription that was still under way at the first.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Every further look.
const LOOK_EVERY: Duration = Duration::from_secs(60);

impl Run<'_> {
    /// Takes events in until asked to stop, or until the connection ends.
    pub(super) async fn listen(&mut self, client: &Client) -> Result<(), Status> {
        let mut events = client.subscribe();
        self.look(client).await?;
        let mut next_look = clock::instant() + SECOND_LOOK;
        let mut timer = self.poll_timer();
        let mut pause = false;
        loop {
            tokio::select! {
                event = events.recv(), if !pause => match event {
                    Some(Ok(envelope)) => {
                        self.take(client, &envelope).await?;
                        timer.wake_soon();
                    }
                    Some(Err(status)) => return Err(status),
                    None => return Err(Status::unavailable("the subscription ended")),
                },
                () = timer.next() => pause = self.settle(&mut timer).map_err(Status::internal)?,
            }
            if self.context.shutdown.is_requested() {
                return Ok(());
            }
            if !pause && clock::instant() >= next_look {
                self.look(client).await?;
                next_look = clock::instant() + LOOK_EVERY;
                timer.wake_soon();
            }
            if !pause {
                timer.wake_by(next_look);
            }
        }
    }

    fn is_wanted(&self, namespace: &str) -> bool {
        self.config.namespaces.is_empty() || self.config.namespaces.iter().any(|n| n == namespace)
    }

    /// Takes an event in.
    async fn take(&mut self, client: &Client, envelope: &Envelope) -> Result<(), Status> {
        if !self.is_wanted(&envelope.namespace) {
            return Ok(());
        }
        self.counts.events += 1;
        let time_ns = wall_ns(envelope.timestamp.as_ref());
        let body = envelope.event.as_ref().map(|any| &*any.value).unwrap_or_default();
        let key = |id: String| Key { namespace: envelope.namespace.clone(), id };
        let decoded = match envelope.topic.as_str() {
            "/containers/create" => match ContainerCreate::decode(body) {
                Ok(said) => {
                    self.created(client, key(said.id), &said.image, time_ns).await?;
                    Ok(())
                }
                Err(e) => Err(e),
            },
            "/containers/delete" => {
                ContainerDelete::decode(body).map(|said| self.deleted(&key(said.id), time_ns))
            }
            "/tasks/start" => match TaskStart::decode(body) {
                Ok(said) => {
                    let key = key(said.container_id);
                    self.known(client, &key, time_ns).await?;
                    self.count_restarts(client, &key).await;
                    self.started(&key, said.pid, time_ns);
                    Ok(())
                }
                Err(e) => Err(e),
            },
            "/tasks/exit" => match TaskExit::decode(body) {
                Ok(said) => {
                    self.exit_event(client, key(said.container_id.clone()), &said, time_ns).await?;
                    Ok(())
                }
                Err(e) => Err(e),
            },
            "/tasks/oom" => match TaskOom::decode(body) {
                Ok(said) => {
                    let key = key(said.container_id);
                    self.known(client, &key, time_ns).await?;
                    self.happened(&key, Happened::OutOfMemory, time_ns);
                    Ok(())
                }
                Err(e) => Err(e),
            },
            "/images/create" | "/images/update" => match ImageName::decode(body) {
                Ok(said) => {
                    self.image(client, &envelope.namespace, &said.name, time_ns).await?;
                    Ok(())
                }
                Err(e) => Err(e),
            },
            _ => Ok(()),
        };
        if decoded.is_err() {
            self.counts.unknown += 1;
            self.context.sink.refuse(Reason::BadInput, 1);
        }
        Ok(())
    }

    /// Asks who a container is, where that isn't known: it may be gone already, and then its id is all there is.
    async fn known(&mut self, client: &Client, key: &Key, time_ns: u64) -> Result<(), Status> {
        if self.observed.get(key).is_none() {
            let listed = client.container(&key.namespace, &key.id).await?;
            let facts = match &listed {
                Some(container) => self.complete(client, Facts::of(container), &key.id).await,
                None => Facts { created_ns: time_ns, ..Facts::default() },
            };
            self.teller.learn(key, &facts, clock::wall_ns());
            self.observed.exists(key, facts);
        }
        Ok(())
    }

    /// Asks once more how often a container was restarted: while it was being created the CRI didn't know it yet.
    async fn count_restarts(&mut self, client: &Client, key: &Key) {
        let Some(facts) = self.observed.get(key).map(|k| k.facts.clone()) else {
            return;
        };
        if facts.restarts.is_none() {
            let facts = self.complete(client, facts, &key.id).await;
            self.observed.exists(key, facts);
        }
    }

    /// Adds what only the CRI knows.
    async fn complete(&self, client: &Client, facts: Facts, id: &str) -> Facts {
        if facts.pod_uid.is_empty() || facts.sandbox {
            return facts;
        }
        Facts { restarts: client.restarts(id).await, ..facts }
    }

    async fn created(
        &mut self,
        client: &Client,
        key: Key,
        image: &str,
        time_ns: u64,
    ) -> Result<(), Status> {
        let listed = client.container(&key.namespace, &key.id).await?;
        let facts = match &listed {
            Some(container) => self.complete(client, Facts::of(container), &key.id).await,
            None => Facts { created_ns: time_ns, image: image.to_owned(), ..Facts::default() },
        };
        self.teller.learn(&key, &facts, clock::wall_ns());
        if self.observed.exists(&key, facts) {
            self.happened(&key, Happened::Created, time_ns);
        }
        Ok(())
    }

    fn started(&mut self, key: &Key, pid: u32, time_ns: u64) {
        if self.observed.started(key, pid, time_ns) {
            self.happened(key, Happened::Started { pid }, time_ns);
        }
    }

    async fn exit_event(
        &mut self,
        client: &Client,
        key: Key,
        said: &TaskExit,
        time_ns: u64,
    ) -> Result<(), Status> {
        // A process that was executed in a container isn't the container.
        if said.id != said.container_id {
            return Ok(());
        }
        self.known(client, &key, time_ns).await?;
        let at_ns = match wall_ns(said.exited_at.as_ref()) {
            0 => time_ns,
            at_ns => at_ns,
        };
        self.exited(&key, said.pid, Some(said.exit_status), at_ns);
        Ok(())
    }

    fn exited(&mut self, key: &Key, pid: u32, code: Option<u32>, time_ns: u64) {
        if self.observed.exited(key, pid) {
            self.happened(key, Happened::Exited { pid, code }, time_ns);
        }
    }

    pub(super) fn deleted(&mut self, key: &Key, time_ns: u64) {
        // Of one that runs the end wasn't heard, and how it ended isn't to be had any more.
        if let Some(pid) = self.observed.get(key).filter(|k| k.pid != 0 && !k.exited).map(|k| k.pid)
        {
            self.exited(key, pid, None, time_ns);
        }
        self.happened(key, Happened::Deleted, time_ns);
        if let Some(known) = self.observed.deleted(key) {
            self.teller.forget(key, &known.facts, clock::wall_ns());
        }
    }

    /// Tells what happened, unless an earlier start of the agent did.
    pub(super) fn happened(&mut self, key: &Key, happened: Happened, time_ns: u64) {
        let known = self.observed.get(key).cloned().unwrap_or_default();
        let times = Times { time_ns, observed_ns: clock::wall_ns() };
        self.teller.tell(key, &known, happened, times, &mut self.context.sink);
        self.advance(time_ns.min(times.observed_ns));
    }

    fn advance(&mut self, time_ns: u64) {
        self.newest_ns = self.newest_ns.max(time_ns);
        self.cursor.advance(&self.newest_ns.to_string());
    }

    /// Compares the lists with what is known, and tells the difference.
    async fn look(&mut self, client: &Client) -> Result<(), Status> {
        let there = client.namespaces().await?.unwrap_or_default();
        let mut namespaces = self.observed.namespaces();
        namespaces.extend(there.into_iter().filter(|n| self.is_wanted(n)));
        for namespace in namespaces {
            self.look_at(client, &namespace).await?;
            for image in client.images(&namespace).await? {
                // Only so that a second name of the same content isn't taken for a pull.
                self.observed.image(&namespace, &image.target.unwrap_or_default().digest);
            }
        }
        // From here on everything that isn't known is news.
        self.told_before_ns = 0;
        Ok(())
    }

    async fn look_at(&mut self, client: &Client, namespace: &str) -> Result<(), Status> {
        let mark = self.observed.mark();
        // Processes first: one that starts in between is told by its event, and its container is known then.
        let tasks = client.tasks(namespace).await?;
        for container in client.containers(namespace).await? {
            let key = Key { namespace: namespace.to_owned(), id: container.id.clone() };
            let mut facts = Facts::of(&container);
            if self.observed.get(&key).is_none() {
                facts = self.complete(client, facts, &key.id).await;
            }
            let created_ns = facts.created_ns;
            self.teller.learn(&key, &facts, clock::wall_ns());
            if self.observed.exists(&key, facts) && created_ns > self.told_before_ns {
                self.happened(&key, Happened::Created, created_ns);
            }
        }
        for task in tasks {
            self.task(namespace, &task);
        }
        for key in self.observed.unseen_since(mark, namespace) {
            self.deleted(&key, clock::wall_ns());
        }
        Ok(())
    }

    /// A container's first process, as a list has it.
    fn task(&mut self, namespace: &str, task: &Process) {
        let key = Key { namespace: namespace.to_owned(), id: task.id.clone() };
        let Some(known) = self.observed.get(&key) else {
            return;
        };
        // When it started isn't listed: not before its container was made, and before now.
        let created_ns = known.facts.created_ns;
        let runs =
            matches!(task.status(), TaskState::Running | TaskState::Paused | TaskState::Pausing);
        let ended = task.status() == TaskState::Stopped;
        if (runs || ended)
            && self.observed.started(&key, task.pid, 0)
            && created_ns > self.told_before_ns
        {
            self.happened(&key, Happened::Started { pid: task.pid }, created_ns);
        }
        let at_ns = wall_ns(task.exited_at.as_ref());
        if ended && self.observed.exited(&key, task.pid) && at_ns > self.told_before_ns {
            let happened = Happened::Exited { pid: task.pid, code: Some(task.exit_status) };
            self.happened(&key, happened, at_ns);
        }
    }

    /// An image was given a name. It was pulled if its content is new and came from a registry.
    async fn image(
        &mut self,
        client: &Client,
        namespace: &str,
        name: &str,
        time_ns: u64,
    ) -> Result<(), Status> {
        let Some(image) = client.image(namespace, name).await? else {
            return Ok(());
        };
        let digest = image.target.unwrap_or_default().digest;
        if digest.is_empty() || !self.observed.image(namespace, &digest) {
            return Ok(());
        }
        let Some(blob) = client.blob(namespace, &digest).await? else {
            return Ok(());
        };
        let (began_ns, from_registry) = arrival(&blob);
        if !from_registry || began_ns == 0 {
            return Ok(());
        }
        let pull_ns = time_ns.saturating_sub(began_ns);
        let pulled = Pulled { namespace, image: name, digest: &digest, pull_ns };
        let times = Times { time_ns, observed_ns: clock::wall_ns() };
        self.teller.pulled(&pulled, times, &mut self.context.sink);
        self.advance(time_ns);
        Ok(())
    }
}
