//! One connection to containerd: processes its events, and compares its lists with the table.

use std::time::Duration;

use tonic::Status;

use super::api::events::Envelope;
use super::api::payloads::TaskExit;
use super::api::tasks::{Process, Status as TaskState};
use super::client::{Client, arrival};
use super::collector::Run;
use super::runtime_event::RuntimeEvent;
use super::table::{Facts, Key, Transition, wall_ns};
use super::to_event::{Pulled, Times};
use tapio_core::clock;
use tapio_core::event::Reason;

/// Delay of the second comparison of the lists: at the first one the subscription may not have been
/// active yet.
const SECOND_COMPARISON: Duration = Duration::from_secs(1);
/// Interval of all further comparisons.
const COMPARISON_INTERVAL: Duration = Duration::from_secs(60);

impl Run<'_> {
    /// Processes events until shutdown, or until the connection ends.
    pub(super) async fn subscribe(&mut self, client: &Client) -> Result<(), Status> {
        let mut events = client.subscribe();
        self.compare_lists(client).await?;
        let mut next_comparison = clock::instant() + SECOND_COMPARISON;
        let mut timer = self.poll_timer();
        let mut is_paused = false;
        loop {
            tokio::select! {
                event = events.recv(), if !is_paused => match event {
                    Some(Ok(envelope)) => {
                        self.process(client, &envelope).await?;
                        timer.wake_soon();
                    }
                    Some(Err(status)) => return Err(status),
                    None => return Err(Status::unavailable("the subscription ended")),
                },
                () = timer.next() => {
                    is_paused = self.save_cursor(&mut timer).map_err(Status::internal)?;
                }
            }
            if self.context.shutdown.is_requested() {
                return Ok(());
            }
            if !is_paused && clock::instant() >= next_comparison {
                self.compare_lists(client).await?;
                next_comparison = clock::instant() + COMPARISON_INTERVAL;
                timer.wake_soon();
            }
            if !is_paused {
                timer.wake_by(next_comparison);
            }
        }
    }

    /// Whether the configuration includes a namespace.
    fn is_included(&self, namespace: &str) -> bool {
        self.config.namespaces.is_empty() || self.config.namespaces.iter().any(|n| n == namespace)
    }

    /// Processes an event.
    async fn process(&mut self, client: &Client, envelope: &Envelope) -> Result<(), Status> {
        if !self.is_included(&envelope.namespace) {
            return Ok(());
        }
        self.counts.events += 1;
        match RuntimeEvent::decode(envelope) {
            Ok(Some(event)) => self.apply(client, envelope, event).await,
            Ok(None) => Ok(()),
            Err(_) => {
                self.counts.unknown += 1;
                self.context.sink.refuse(Reason::BadInput, 1);
                Ok(())
            }
        }
    }

    /// Updates the table by an event, and emits the transition if it is new.
    async fn apply(
        &mut self,
        client: &Client,
        envelope: &Envelope,
        event: RuntimeEvent,
    ) -> Result<(), Status> {
        let time_ns = wall_ns(envelope.timestamp.as_ref());
        let key = |id: String| Key { namespace: envelope.namespace.clone(), id };
        match event {
            RuntimeEvent::ContainerCreated(created) => {
                self.created(client, key(created.id), &created.image, time_ns).await?;
            }
            RuntimeEvent::ContainerDeleted(deleted) => self.deleted(&key(deleted.id), time_ns),
            RuntimeEvent::TaskStarted(started) => {
                let key = key(started.container_id);
                self.ensure_tracked(client, &key, time_ns).await?;
                self.refresh_restarts(client, &key).await;
                self.started(&key, started.pid, time_ns);
            }
            RuntimeEvent::TaskExited(exit) => {
                let key = key(exit.container_id.clone());
                self.task_exited(client, key, &exit, time_ns).await?;
            }
            RuntimeEvent::TaskOutOfMemory(oom) => {
                let key = key(oom.container_id);
                self.ensure_tracked(client, &key, time_ns).await?;
                self.emit(&key, Transition::OutOfMemory, time_ns);
            }
            RuntimeEvent::ImageNamed(image) => {
                self.image(client, &envelope.namespace, &image.name, time_ns).await?;
            }
        }
        Ok(())
    }

    /// Adds a container to the table if it isn't there. If the runtime has deleted it already, only
    /// its id is known.
    async fn ensure_tracked(
        &mut self,
        client: &Client,
        key: &Key,
        time_ns: u64,
    ) -> Result<(), Status> {
        if self.containers.get(key).is_none() {
            let listed = client.container(&key.namespace, &key.id).await?;
            let facts = match &listed {
                Some(container) => self.complete(client, Facts::of(container), &key.id).await,
                None => Facts { created_ns: time_ns, ..Facts::default() },
            };
            self.writer.update_directory(key, &facts, clock::wall_ns());
            self.containers.insert(key, facts);
        }
        Ok(())
    }

    /// Requests the restart count again if it is missing: the CRI doesn't have a container while it
    /// is being created.
    async fn refresh_restarts(&mut self, client: &Client, key: &Key) {
        let Some(facts) = self.containers.get(key).map(|c| c.facts.clone()) else {
            return;
        };
        if facts.restarts.is_none() {
            let facts = self.complete(client, facts, &key.id).await;
            self.containers.insert(key, facts);
        }
    }

    /// Adds the restart count, which only the CRI has.
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
        self.writer.update_directory(&key, &facts, clock::wall_ns());
        if self.containers.insert(&key, facts) {
            self.emit(&key, Transition::Created, time_ns);
        }
        Ok(())
    }

    fn started(&mut self, key: &Key, pid: u32, time_ns: u64) {
        if self.containers.started(key, pid, time_ns) {
            self.emit(key, Transition::Started { pid }, time_ns);
        }
    }

    async fn task_exited(
        &mut self,
        client: &Client,
        key: Key,
        exit: &TaskExit,
        time_ns: u64,
    ) -> Result<(), Status> {
        // A process executed in a container (`exec`) isn't its first process.
        if exit.id != exit.container_id {
            return Ok(());
        }
        self.ensure_tracked(client, &key, time_ns).await?;
        let exited_ns = match wall_ns(exit.exited_at.as_ref()) {
            0 => time_ns,
            exited_ns => exited_ns,
        };
        self.exited(&key, exit.pid, Some(exit.exit_status), exited_ns);
        Ok(())
    }

    fn exited(&mut self, key: &Key, pid: u32, code: Option<u32>, time_ns: u64) {
        if self.containers.exited(key, pid) {
            self.emit(key, Transition::Exited { pid, code }, time_ns);
        }
    }

    pub(super) fn deleted(&mut self, key: &Key, time_ns: u64) {
        if self.containers.is_gone(key) {
            return;
        }
        // The exit of a container that still runs in the table was missed; its code is lost.
        let running = self.containers.get(key).filter(|c| c.pid != 0 && !c.exited);
        if let Some(pid) = running.map(|c| c.pid) {
            self.exited(key, pid, None, time_ns);
        }
        self.emit(key, Transition::Deleted, time_ns);
        if let Some(container) = self.containers.deleted(key) {
            self.writer.remove_from_directory(key, &container.facts, clock::wall_ns());
        }
    }

    /// Emits a transition, and advances the cursor.
    pub(super) fn emit(&mut self, key: &Key, transition: Transition, time_ns: u64) {
        let container = self.containers.get(key).cloned().unwrap_or_default();
        let times = Times { time_ns, observed_ns: clock::wall_ns() };
        self.writer.transition(key, &container, transition, times, &mut self.context.sink);
        self.advance(time_ns.min(times.observed_ns));
    }

    fn advance(&mut self, time_ns: u64) {
        self.newest_ns = self.newest_ns.max(time_ns);
        self.cursor.advance(&self.newest_ns.to_string());
    }

    /// Compares the lists with the table, and emits the differences.
    async fn compare_lists(&mut self, client: &Client) -> Result<(), Status> {
        let listed = client.namespaces().await?.unwrap_or_default();
        let mut namespaces = self.containers.namespaces();
        namespaces.extend(listed.into_iter().filter(|n| self.is_included(n)));
        for namespace in namespaces {
            self.compare_namespace(client, &namespace).await?;
            for image in client.images(&namespace).await? {
                // Recorded so that a second name of the same content doesn't count as a pull.
                self.containers.image(&namespace, &image.target.unwrap_or_default().digest);
            }
        }
        // From here on everything that isn't in the table is new.
        self.emitted_until_ns = 0;
        Ok(())
    }

    async fn compare_namespace(&mut self, client: &Client, namespace: &str) -> Result<(), Status> {
        let observation = self.containers.next_observation();
        // Tasks first: one that starts in between has an event, and its container is listed then.
        let tasks = client.tasks(namespace).await?;
        for container in client.containers(namespace).await? {
            let key = Key { namespace: namespace.to_owned(), id: container.id.clone() };
            let mut facts = Facts::of(&container);
            if self.containers.get(&key).is_none() {
                facts = self.complete(client, facts, &key.id).await;
            }
            let created_ns = facts.created_ns;
            self.writer.update_directory(&key, &facts, clock::wall_ns());
            if self.containers.insert(&key, facts) && created_ns > self.emitted_until_ns {
                self.emit(&key, Transition::Created, created_ns);
            }
        }
        for task in tasks {
            self.task(namespace, &task);
        }
        for key in self.containers.unseen_since(observation, namespace) {
            self.deleted(&key, clock::wall_ns());
        }
        Ok(())
    }

    /// Compares a listed task, the first process of a container, with the table.
    fn task(&mut self, namespace: &str, task: &Process) {
        let key = Key { namespace: namespace.to_owned(), id: task.id.clone() };
        let Some(container) = self.containers.get(&key) else {
            return;
        };
        // The list has no start times. The task started after its container was created.
        let created_ns = container.facts.created_ns;
        let runs =
            matches!(task.status(), TaskState::Running | TaskState::Paused | TaskState::Pausing);
        let ended = task.status() == TaskState::Stopped;
        if (runs || ended)
            && self.containers.started(&key, task.pid, 0)
            && created_ns > self.emitted_until_ns
        {
            self.emit(&key, Transition::Started { pid: task.pid }, created_ns);
        }
        let exited_ns = wall_ns(task.exited_at.as_ref());
        if ended && self.containers.exited(&key, task.pid) && exited_ns > self.emitted_until_ns {
            let exited = Transition::Exited { pid: task.pid, code: Some(task.exit_status) };
            self.emit(&key, exited, exited_ns);
        }
    }

    /// Processes a named image. It was pulled if its content is new and came from a registry.
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
        if digest.is_empty() || !self.containers.image(namespace, &digest) {
            return Ok(());
        }
        let Some(blob) = client.blob(namespace, &digest).await? else {
            return Ok(());
        };
        let (arrived_ns, from_registry) = arrival(&blob);
        if !from_registry || arrived_ns == 0 {
            return Ok(());
        }
        let pull_ns = time_ns.saturating_sub(arrived_ns);
        let pulled = Pulled { namespace, image: name, digest: &digest, pull_ns };
        let times = Times { time_ns, observed_ns: clock::wall_ns() };
        self.writer.pulled(&pulled, times, &mut self.context.sink);
        self.advance(time_ns);
        Ok(())
    }
}
