//! A pod's life: what was told of it, and what is to be told now that it looks like this.
//!
//! [`Told::step`] is pure. Each fact is told once, and is named by what the API itself says of it (a transition's time, a
//! restart count, a container's id), not by the version of the object that showed it: so a watch, a list after a gap, and a
//! second agent name it alike, and what is read again has the same id.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::objects::{ContainerStatus, Pod, Terminated, Text, Time, bare_id};

/// How often a pod that doesn't start is told.
pub(super) const PENDING_EVERY_NS: u64 = 300_000_000_000;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Scheduled,
    Running,
    /// Since it had its node, the first time only; restarts and last end of the container that was restarted most.
    Ready {
        startup_ns: Option<u64>,
        restarts: u32,
        last_reason: Text,
    },
    Pending {
        for_ns: u64,
        container: Text,
        reason: Text,
    },
    CrashLoop {
        container: Container,
        message: Text,
    },
    OomKilled {
        container: Container,
    },
    Evicted {
        reason: Text,
        message: Text,
    },
    Terminating {
        grace_s: Option<u64>,
        finalizers: String,
    },
    Deleted,
}

/// A container, and how it ended last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) name: Text,
    /// The id of the one that ended.
    pub(super) id: Text,
    pub(super) image: Text,
    pub(super) restarts: u32,
    pub(super) last_reason: Text,
    pub(super) exit_code: Option<i32>,
}

/// Something to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) what: What,
    /// When, as the API says; `None` where only this agent's clock does.
    pub(super) time_ns: Option<u64>,
    /// What names it, among all that ever happens to this pod.
    pub(super) natural: String,
}

/// What was told of a pod: enough to go on after a restart of the agent, and to tell that it is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    pub(super) name: Text,
    pub(super) namespace: Text,
    /// The topmost owner: kind and name.
    pub(super) workload: Option<(Text, Text)>,
    /// When it got its node.
    pub(super) scheduled_ns: Option<u64>,
    running: bool,
    /// It ended by itself, or was evicted.
    ended: bool,
    evicted: bool,
    terminating: bool,
    /// It was ready once.
    was_ready: bool,
    /// The transition to ready that was told last.
    ready_ns: Option<u64>,
    /// How many times five minutes of waiting were told.
    pending: u64,
    /// The container it waits for, and why.
    waits: Option<(Text, Text)>,
    containers: Vec<ToldContainer>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct ToldContainer {
    name: Text,
    /// What was told of it last, by name: back-offs and OOM kills. The object shows two ends at a time.
    recent: VecDeque<Text>,
}

/// Names of a container that are remembered.
const RECENT: usize = 8;

impl ToldContainer {
    /// Whether this is to be told.
    fn is_new(&mut self, name: &str) -> bool {
        if self.recent.iter().any(|told| **told == *name) {
            return false;
        }
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(name.into());
        true
    }
}

/// What names an end: the container that ended, or when it did, where the runtime gave no id.
fn end_name(end: &Terminated) -> Text {
    match bare_id(&end.container_id) {
        "" => end.finished_at.map_or(0, |t| t.ns).to_string().into(),
        id => id.into(),
    }
}

/// When a container started first, as far as it is still known.
fn first_start(container: &ContainerStatus) -> Option<Time> {
    let ends = [&container.last_state.terminated, &container.state.terminated];
    let ended = ends.into_iter().flatten().filter_map(|end| end.started_at);
    let running = container.state.running.as_ref().and_then(|r| r.started_at);
    ended.chain(running).filter(|t| t.ns > 0).min()
}

fn last_end(container: &ContainerStatus) -> Option<&Terminated> {
    container.state.terminated.as_ref().or(container.last_state.terminated.as_ref())
}

fn told(container: &ContainerStatus, end: Option<&Terminated>) -> Container {
    Container {
        name: container.name.clone(),
        id: bare_id(end.map_or(&container.container_id, |e| &e.container_id)).into(),
        image: container.image.clone(),
        restarts: container.restart_count,
        last_reason: end.map(|e| e.reason.clone()).unwrap_or_default(),
        exit_code: end.map(|e| e.exit_code),
    }
}

impl Told {
    /// Looks at the pod as it is now; what is new goes into `out`, in the order in which it happened.
    pub(super) fn step(&mut self, pod: &Pod, out: &mut Vec<Transition>) {
        self.name.clone_from(&pod.metadata.name);
        self.namespace.clone_from(&pod.metadata.namespace);
        self.workload.clone_from(&pod.workload);
        let first = out.len();
        self.starts(pod, out);
        for container in pod.containers() {
            self.ends(container, out);
        }
        // Of a container in back-off the end that led to it is told first.
        for container in pod.containers() {
            self.loops(container, out);
        }
        self.is_ready(pod, out);
        self.leaves(pod, out);
        self.waits = waits_for(pod);
        self.containers.retain(|told| pod.containers().any(|c| c.name == told.name));
        // By the API's own times where it has them; equal ones stay in the order of life.
        out[first..].sort_by_key(|t| t.time_ns.unwrap_or(u64::MAX));
    }

    fn starts(&mut self, pod: &Pod, out: &mut Vec<Transition>) {
        let scheduled = pod.condition("PodScheduled").filter(|c| &*c.status == "True");
        let since =
            scheduled.and_then(|c| c.last_transition_time).or(pod.metadata.creation_timestamp);
        if self.scheduled_ns.is_none() && !pod.spec.node_name.is_empty() {
            self.scheduled_ns = Some(since.map_or(0, |t| t.ns));
            out.push(transition(What::Scheduled, since.map(|t| t.ns), "scheduled".into()));
        }
        let started = pod.status.container_statuses.iter().filter_map(first_start).max();
        self.ended = matches!(&*pod.status.phase, "Succeeded" | "Failed");
        // A short one may have ended before anybody saw it running.
        let ran = &*pod.status.phase == "Running" || self.ended && started.is_some();
        if ran && !self.running {
            self.running = true;
            out.push(transition(What::Running, started.map(|t| t.ns), "running".into()));
        }
    }

    fn container(&mut self, name: &str) -> &mut ToldContainer {
        let at = self.containers.iter().position(|c| &*c.name == name).unwrap_or_else(|| {
            self.containers.push(ToldContainer { name: name.into(), ..ToldContainer::default() });
            self.containers.len() - 1
        });
        &mut self.containers[at]
    }

    fn ends(&mut self, container: &ContainerStatus, out: &mut Vec<Transition>) {
        let ends = [&container.last_state.terminated, &container.state.terminated];
        for end in ends.into_iter().flatten().filter(|end| &*end.reason == "OOMKilled") {
            let natural = format!("oom_killed/{}/{}", container.name, end_name(end));
            if self.container(&container.name).is_new(&natural) {
                let what = What::OomKilled { container: told(container, Some(end)) };
                out.push(transition(what, end.finished_at.map(|t| t.ns), natural));
            }
        }
    }

    fn loops(&mut self, container: &ContainerStatus, out: &mut Vec<Transition>) {
        let Some(waiting) = &container.state.waiting else { return };
        if &*waiting.reason != "CrashLoopBackOff" {
            return;
        }
        let end = last_end(container);
        // A restart count alone may begin again, when the runtime forgets what ended.
        let (name, restarts) = (&container.name, container.restart_count);
        let ended = end.map(end_name).unwrap_or_default();
        let natural = format!("crash_loop/{name}/{restarts}/{ended}");
        if self.container(name).is_new(&natural) {
            let what = What::CrashLoop {
                container: told(container, end),
                message: waiting.message.clone(),
            };
            out.push(transition(what, end.and_then(|e| e.finished_at).map(|t| t.ns), natural));
        }
    }

    fn is_ready(&mut self, pod: &Pod, out: &mut Vec<Transition>) {
        let Some(ready) = pod.condition("Ready").filter(|c| &*c.status == "True") else { return };
        let since_ns = ready.last_transition_time.map_or(0, |t| t.ns);
        if self.ready_ns == Some(since_ns) {
            return;
        }
        let startup_ns = self.scheduled_ns.filter(|s| *s > 0).map(|s| since_ns.saturating_sub(s));
        let most = pod.containers().max_by_key(|c| c.restart_count);
        let what = What::Ready {
            startup_ns: startup_ns.filter(|_| !self.was_ready && since_ns > 0),
            restarts: most.map_or(0, |c| c.restart_count),
            last_reason: most.and_then(last_end).map(|e| e.reason.clone()).unwrap_or_default(),
        };
        self.ready_ns = Some(since_ns);
        self.was_ready = true;
        let time_ns = (since_ns > 0).then_some(since_ns);
        out.push(transition(what, time_ns, format!("ready/{since_ns}")));
    }

    fn leaves(&mut self, pod: &Pod, out: &mut Vec<Transition>) {
        let status = &pod.status;
        if !self.evicted && &*status.phase == "Failed" && &*status.reason == "Evicted" {
            self.evicted = true;
            let ends = pod.containers().filter_map(last_end).filter_map(|e| e.finished_at);
            let disrupted = pod.condition("DisruptionTarget").and_then(|c| c.last_transition_time);
            let what =
                What::Evicted { reason: status.reason.clone(), message: status.message.clone() };
            let time = disrupted.or(ends.max());
            out.push(transition(what, time.map(|t| t.ns), "evicted".into()));
        }
        if let Some(by) = pod.metadata.deletion_timestamp
            && !self.terminating
        {
            self.terminating = true;
            // The timestamp is when its grace period ends.
            let grace_s = pod.metadata.deletion_grace_period_seconds;
            let asked_ns = by.ns.saturating_sub(grace_s.unwrap_or(0).saturating_mul(1_000_000_000));
            let finalizers = pod.metadata.finalizers.join(",");
            let what = What::Terminating { grace_s, finalizers };
            out.push(transition(what, Some(asked_ns), "terminating".into()));
        }
    }

    /// What is due because time has passed.
    pub(super) fn tick(&mut self, now_ns: u64) -> Option<Transition> {
        if self.running || self.ended || self.terminating {
            return None;
        }
        let for_ns = now_ns.saturating_sub(self.scheduled_ns.filter(|s| *s > 0)?);
        let times = for_ns / PENDING_EVERY_NS;
        if times <= self.pending {
            return None;
        }
        self.pending = times;
        let (container, reason) = self.waits.clone().unwrap_or_default();
        let what = What::Pending { for_ns, container, reason };
        Some(transition(what, None, format!("pending/{times}")))
    }

    /// It is gone.
    pub(super) fn gone(&self) -> Transition {
        transition(What::Deleted, None, "deleted".into())
    }
}

fn transition(what: What, time_ns: Option<u64>, natural: String) -> Transition {
    Transition { what, time_ns, natural }
}

/// The first container that can't start yet.
fn waits_for(pod: &Pod) -> Option<(Text, Text)> {
    let status = &pod.status;
    let waits =
        |c: &ContainerStatus| c.state.waiting.as_ref().map(|w| (c.name.clone(), w.reason.clone()));
    // A container whose pod still prepares says PodInitializing; which one prepares says more.
    let preparing = status
        .init_container_statuses
        .iter()
        .find(|c| c.state.terminated.as_ref().is_none_or(|end| end.exit_code != 0));
    match preparing {
        Some(container) => {
            waits(container).or_else(|| Some((container.name.clone(), "PodInitializing".into())))
        }
        None => status.container_statuses.iter().find_map(waits),
    }
}

#[cfg(test)]
mod tests;
