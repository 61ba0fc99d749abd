//! A runtime that has the CRI only (CRI-O): compares its list of containers with the table. A
//! container that starts and ends between two polls is missed; the kernel's events have it.

use std::collections::HashMap;
use std::time::Duration;

use tonic::Status;

use super::api::cri::{Container, ContainerState, PodSandboxMetadata};
use super::client::Client;
use super::collector::Run;
use super::table::{Facts, Key, Transition};
use tapio_core::clock;

/// Interval between two polls.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The namespace reported for containers of the CRI.
const NAMESPACE: &str = "k8s.io";

/// A time of the CRI; 0 for none.
fn ns(time: i64) -> u64 {
    u64::try_from(time).unwrap_or_default()
}

impl Run<'_> {
    /// Polls the lists until shutdown, or until the connection ends.
    pub(super) async fn poll(&mut self, client: &Client) -> Result<(), Status> {
        let version = client.cri_version().await?;
        self.context.report.note("cri", version);
        let mut next_poll = clock::instant();
        let mut timer = self.poll_timer();
        while !self.context.shutdown.is_requested() {
            let is_paused = self.save_cursor(&mut timer).map_err(Status::internal)?;
            if !is_paused && clock::instant() >= next_poll {
                self.poll_pods(client).await?;
                self.emitted_until_ns = 0;
                next_poll = clock::instant() + POLL_INTERVAL;
                timer.wake_soon();
            }
            if !is_paused {
                timer.wake_by(next_poll);
            }
            timer.next().await;
        }
        Ok(())
    }

    /// Compares the lists of sandboxes and containers with the table.
    async fn poll_pods(&mut self, client: &Client) -> Result<(), Status> {
        let observation = self.containers.next_observation();
        let mut pods = HashMap::new();
        for sandbox in client.cri_sandboxes().await? {
            let pod = sandbox.metadata.unwrap_or_default();
            let facts = Facts { sandbox: true, ..pod_facts(&pod, ns(sandbox.created_at)) };
            pods.insert(sandbox.id.clone(), pod);
            self.insert(&sandbox.id, facts);
        }
        for container in client.cri_containers(None).await? {
            let pod = pods.get(&container.pod_sandbox_id).cloned().unwrap_or_default();
            self.poll_container(client, &container, &pod).await?;
        }
        for key in self.containers.unseen_since(observation, NAMESPACE) {
            self.deleted(&key, clock::wall_ns());
        }
        Ok(())
    }

    /// Records that a container exists; emits its creation if that is new.
    fn insert(&mut self, id: &str, facts: Facts) -> Key {
        let key = Key { namespace: NAMESPACE.to_owned(), id: id.to_owned() };
        let created_ns = facts.created_ns;
        self.writer.update_directory(&key, &facts, clock::wall_ns());
        if self.containers.insert(&key, facts) && created_ns > self.emitted_until_ns {
            self.emit(&key, Transition::Created, created_ns);
        }
        key
    }

    /// Compares one container with the table.
    async fn poll_container(
        &mut self,
        client: &Client,
        container: &Container,
        pod: &PodSandboxMetadata,
    ) -> Result<(), Status> {
        let metadata = container.metadata.clone().unwrap_or_default();
        let facts = Facts {
            name: metadata.name,
            restarts: Some(metadata.attempt),
            image: container.image.clone().unwrap_or_default().image,
            ..pod_facts(pod, ns(container.created_at))
        };
        let key = self.insert(&container.id, facts);
        let state = container.state();
        let tracked = self.containers.get(&key).cloned().unwrap_or_default();
        let runs = state == ContainerState::ContainerRunning;
        let ended = state == ContainerState::ContainerExited;
        let has_changed = (runs && tracked.started_ns == 0) || (ended && !tracked.exited);
        if !has_changed {
            return Ok(());
        }
        let Some(status) = client.cri_status(&container.id).await? else {
            return Ok(());
        };
        // The CRI has no process numbers; the time of the start identifies the run.
        let (started_ns, ended_ns) = (ns(status.started_at), ns(status.finished_at));
        if started_ns > 0
            && self.containers.started(&key, 1, started_ns)
            && started_ns > self.emitted_until_ns
        {
            self.emit(&key, Transition::Started { pid: 0 }, started_ns);
        }
        if ended && self.containers.exited(&key, 1) && ended_ns > self.emitted_until_ns {
            let code = u32::try_from(status.exit_code).ok();
            self.emit(&key, Transition::Exited { pid: 0, code }, ended_ns);
        }
        Ok(())
    }
}

/// The names that a container has from its pod.
fn pod_facts(pod: &PodSandboxMetadata, created_ns: u64) -> Facts {
    Facts {
        created_ns,
        pod_uid: pod.uid.clone(),
        pod_name: pod.name.clone(),
        pod_namespace: pod.namespace.clone(),
        ..Facts::default()
    }
}
