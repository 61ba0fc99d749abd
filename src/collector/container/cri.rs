//! A runtime that speaks the CRI only (CRI-O): its list of containers, compared with what is known. What lives and dies
//! between two looks isn't seen; the kernel's own events have it.

use std::collections::HashMap;
use std::time::Duration;

use tonic::Status;

use super::Run;
use super::api::cri::{Container, ContainerState, PodSandboxMetadata};
use super::client::Client;
use super::observed::{Facts, Happened, Key};
use tapio_core::clock;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Where containers of the CRI are said to live.
const NAMESPACE: &str = "k8s.io";

/// A time of the CRI, which has none as zero.
fn ns(time: i64) -> u64 {
    u64::try_from(time).unwrap_or_default()
}

impl Run<'_> {
    /// Looks again and again until asked to stop, or until the connection ends.
    pub(super) async fn poll(&mut self, client: &Client) -> Result<(), Status> {
        let version = client.cri_version().await?;
        self.context.report.note("cri", version);
        let mut next_look = clock::instant();
        let mut timer = self.poll_timer();
        while !self.context.shutdown.is_requested() {
            let pause = self.settle(&mut timer).map_err(Status::internal)?;
            if !pause && clock::instant() >= next_look {
                self.look_at_pods(client).await?;
                self.told_before_ns = 0;
                next_look = clock::instant() + LOOK_EVERY;
                timer.wake_soon();
            }
            if !pause {
                timer.wake_by(next_look);
            }
            timer.next().await;
        }
        Ok(())
    }

    async fn look_at_pods(&mut self, client: &Client) -> Result<(), Status> {
        let mark = self.observed.mark();
        let mut pods = HashMap::new();
        for sandbox in client.cri_sandboxes().await? {
            let pod = sandbox.metadata.unwrap_or_default();
            let facts = Facts { sandbox: true, ..of_pod(&pod, ns(sandbox.created_at)) };
            pods.insert(sandbox.id.clone(), pod);
            self.there(&sandbox.id, facts);
        }
        for container in client.cri_containers(None).await? {
            let pod = pods.get(&container.pod_sandbox_id).cloned().unwrap_or_default();
            self.look_at_container(client, &container, &pod).await?;
        }
        for key in self.observed.unseen_since(mark, NAMESPACE) {
            self.deleted(&key, clock::wall_ns());
        }
        Ok(())
    }

    fn there(&mut self, id: &str, facts: Facts) -> Key {
        let key = Key { namespace: NAMESPACE.to_owned(), id: id.to_owned() };
        let created_ns = facts.created_ns;
        self.teller.learn(&key, &facts, clock::wall_ns());
        if self.observed.exists(&key, facts) && created_ns > self.told_before_ns {
            self.happened(&key, Happened::Created, created_ns);
        }
        key
    }

    async fn look_at_container(
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
            ..of_pod(pod, ns(container.created_at))
        };
        let key = self.there(&container.id, facts);
        let state = container.state();
        let known = self.observed.get(&key).cloned().unwrap_or_default();
        let runs = state == ContainerState::ContainerRunning;
        let ended = state == ContainerState::ContainerExited;
        let news = (runs && known.started_ns == 0) || (ended && !known.exited);
        if !news {
            return Ok(());
        }
        let Some(status) = client.cri_status(&container.id).await? else {
            return Ok(());
        };
        // The CRI names no process. The start's time tells one run of it from the next.
        let (began_ns, ended_ns) = (ns(status.started_at), ns(status.finished_at));
        if began_ns > 0
            && self.observed.started(&key, 1, began_ns)
            && began_ns > self.told_before_ns
        {
            self.happened(&key, Happened::Started { pid: 0 }, began_ns);
        }
        if ended && self.observed.exited(&key, 1) && ended_ns > self.told_before_ns {
            let code = u32::try_from(status.exit_code).ok();
            self.happened(&key, Happened::Exited { pid: 0, code }, ended_ns);
        }
        Ok(())
    }
}

fn of_pod(pod: &PodSandboxMetadata, created_ns: u64) -> Facts {
    Facts {
        created_ns,
        pod_uid: pod.uid.clone(),
        pod_name: pod.name.clone(),
        pod_namespace: pod.namespace.clone(),
        ..Facts::default()
    }
}
