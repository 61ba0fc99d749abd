//! State machine of a pod's lifecycle: derives the facts to emit from successive states of the pod.
//!
//! [`PodLifecycle::step`] is pure. Each fact is emitted once. Its key consists of values of the API
//! (the time of a transition, a restart count, a container's id), not of the object's version: a
//! watch, a list after a gap and a second agent thus give it the same event id.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::objects::{ContainerStatus, Pod, Terminated, Text, Time, bare_id};

/// Interval of the events of a pod that doesn't start.
const PENDING_EVERY_NS: u64 = 300_000_000_000;

/// A fact of a pod's lifecycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PodFact {
    Scheduled,
    Running,
    /// `startup_ns`: since the pod was scheduled, for the first time only. The other fields are
    /// those of the container that was restarted most often.
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
        container: ContainerEnd,
        message: Text,
    },
    OomKilled {
        container: ContainerEnd,
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

/// A container and the end of its last run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ContainerEnd {
    pub(super) name: Text,
    /// The id of the run that ended.
    pub(super) id: Text,
    pub(super) image: Text,
    pub(super) restarts: u32,
    pub(super) last_reason: Text,
    pub(super) exit_code: Option<i32>,
}

/// A fact to emit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) fact: PodFact,
    /// The API's time, ns since the Unix epoch; `None` where only this agent's clock has one.
    pub(super) time_ns: Option<u64>,
    /// Identifies the fact among all facts of this pod.
    pub(super) natural_key: String,
}

/// The emitted facts of a pod. The checkpoint contains it, so that a restarted agent continues and
/// can emit that a pod was deleted meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct PodLifecycle {
    pub(super) name: Text,
    pub(super) namespace: Text,
    /// The topmost owner: kind and name.
    pub(super) workload: Option<(Text, Text)>,
    /// When it was assigned to its node.
    pub(super) scheduled_ns: Option<u64>,
    running: bool,
    /// Its phase is `Succeeded` or `Failed`, which includes eviction.
    ended: bool,
    evicted: bool,
    terminating: bool,
    /// It was ready before.
    was_ready: bool,
    /// The last emitted transition to ready.
    ready_ns: Option<u64>,
    /// Emitted events of waiting, one for each [`PENDING_EVERY_NS`].
    #[serde(rename = "pending")]
    pending_intervals: u64,
    /// The container that it waits for, and why.
    #[serde(rename = "waits")]
    waiting_for: Option<(Text, Text)>,
    containers: Vec<ContainerFacts>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct ContainerFacts {
    name: Text,
    /// The keys of the last emitted back-offs and OOM kills. The object contains two ends at a
    /// time.
    recent: VecDeque<Text>,
}

/// Most keys kept for a container.
const MAX_RECENT: usize = 8;

impl ContainerFacts {
    /// Records a key. Returns whether it is new.
    fn record(&mut self, key: &str) -> bool {
        if self.recent.iter().any(|emitted| **emitted == *key) {
            return false;
        }
        if self.recent.len() >= MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(key.into());
        true
    }
}

/// The key of an end: the id of the container that ended, or its time where the runtime gave no id.
fn end_key(end: &Terminated) -> Text {
    match bare_id(&end.container_id) {
        "" => end.finished_at.map_or(0, |t| t.ns).to_string().into(),
        id => id.into(),
    }
}

/// The first start of a container that its status still contains.
fn first_start(container: &ContainerStatus) -> Option<Time> {
    let ends = [&container.last_state.terminated, &container.state.terminated];
    let ended = ends.into_iter().flatten().filter_map(|end| end.started_at);
    let running = container.state.running.as_ref().and_then(|r| r.started_at);
    ended.chain(running).filter(|t| t.ns > 0).min()
}

fn last_end(container: &ContainerStatus) -> Option<&Terminated> {
    container.state.terminated.as_ref().or(container.last_state.terminated.as_ref())
}

fn container_end(container: &ContainerStatus, end: Option<&Terminated>) -> ContainerEnd {
    ContainerEnd {
        name: container.name.clone(),
        id: bare_id(end.map_or(&container.container_id, |e| &e.container_id)).into(),
        image: container.image.clone(),
        restarts: container.restart_count,
        last_reason: end.map(|e| e.reason.clone()).unwrap_or_default(),
        exit_code: end.map(|e| e.exit_code),
    }
}

impl PodLifecycle {
    /// Processes the pod's current state; appends new facts to `out`, in order of time.
    pub(super) fn step(&mut self, pod: &Pod, out: &mut Vec<Transition>) {
        self.name.clone_from(&pod.metadata.name);
        self.namespace.clone_from(&pod.metadata.namespace);
        self.workload.clone_from(&pod.workload);
        let first = out.len();
        self.emit_start(pod, out);
        for container in pod.containers() {
            self.emit_oom_kills(container, out);
        }
        // The end that led to a back-off is emitted before it.
        for container in pod.containers() {
            self.emit_back_off(container, out);
        }
        self.emit_ready(pod, out);
        self.emit_departure(pod, out);
        self.waiting_for = waiting_container(pod);
        self.containers.retain(|facts| pod.containers().any(|c| c.name == facts.name));
        // By the API's time where it has one; equal ones keep the lifecycle's order.
        out[first..].sort_by_key(|t| t.time_ns.unwrap_or(u64::MAX));
    }

    fn emit_start(&mut self, pod: &Pod, out: &mut Vec<Transition>) {
        let scheduled = pod.condition("PodScheduled").filter(|c| &*c.status == "True");
        let since =
            scheduled.and_then(|c| c.last_transition_time).or(pod.metadata.creation_timestamp);
        if self.scheduled_ns.is_none() && !pod.spec.node_name.is_empty() {
            self.scheduled_ns = Some(since.map_or(0, |t| t.ns));
            out.push(transition(PodFact::Scheduled, since.map(|t| t.ns), "scheduled".into()));
        }
        let started = pod.status.container_statuses.iter().filter_map(first_start).max();
        self.ended = matches!(&*pod.status.phase, "Succeeded" | "Failed");
        // A short-lived pod may have ended before it was observed running.
        let ran = &*pod.status.phase == "Running" || self.ended && started.is_some();
        if ran && !self.running {
            self.running = true;
            out.push(transition(PodFact::Running, started.map(|t| t.ns), "running".into()));
        }
    }

    fn container(&mut self, name: &str) -> &mut ContainerFacts {
        let at = self.containers.iter().position(|c| &*c.name == name).unwrap_or_else(|| {
            self.containers.push(ContainerFacts { name: name.into(), ..ContainerFacts::default() });
            self.containers.len() - 1
        });
        &mut self.containers[at]
    }

    fn emit_oom_kills(&mut self, container: &ContainerStatus, out: &mut Vec<Transition>) {
        let ends = [&container.last_state.terminated, &container.state.terminated];
        for end in ends.into_iter().flatten().filter(|end| &*end.reason == "OOMKilled") {
            let key = format!("oom_killed/{}/{}", container.name, end_key(end));
            if self.container(&container.name).record(&key) {
                let fact = PodFact::OomKilled { container: container_end(container, Some(end)) };
                out.push(transition(fact, end.finished_at.map(|t| t.ns), key));
            }
        }
    }

    fn emit_back_off(&mut self, container: &ContainerStatus, out: &mut Vec<Transition>) {
        let Some(waiting) = &container.state.waiting else { return };
        if &*waiting.reason != "CrashLoopBackOff" {
            return;
        }
        let end = last_end(container);
        // The restart count alone isn't unique: it starts again when the runtime removes ended
        // runs.
        let (name, restarts) = (&container.name, container.restart_count);
        let ended = end.map(end_key).unwrap_or_default();
        let key = format!("crash_loop/{name}/{restarts}/{ended}");
        if self.container(name).record(&key) {
            let fact = PodFact::CrashLoop {
                container: container_end(container, end),
                message: waiting.message.clone(),
            };
            out.push(transition(fact, end.and_then(|e| e.finished_at).map(|t| t.ns), key));
        }
    }

    fn emit_ready(&mut self, pod: &Pod, out: &mut Vec<Transition>) {
        let Some(ready) = pod.condition("Ready").filter(|c| &*c.status == "True") else { return };
        let since_ns = ready.last_transition_time.map_or(0, |t| t.ns);
        if self.ready_ns == Some(since_ns) {
            return;
        }
        let startup_ns = self.scheduled_ns.filter(|s| *s > 0).map(|s| since_ns.saturating_sub(s));
        let most = pod.containers().max_by_key(|c| c.restart_count);
        let fact = PodFact::Ready {
            startup_ns: startup_ns.filter(|_| !self.was_ready && since_ns > 0),
            restarts: most.map_or(0, |c| c.restart_count),
            last_reason: most.and_then(last_end).map(|e| e.reason.clone()).unwrap_or_default(),
        };
        self.ready_ns = Some(since_ns);
        self.was_ready = true;
        let time_ns = (since_ns > 0).then_some(since_ns);
        out.push(transition(fact, time_ns, format!("ready/{since_ns}")));
    }

    fn emit_departure(&mut self, pod: &Pod, out: &mut Vec<Transition>) {
        let status = &pod.status;
        if !self.evicted && &*status.phase == "Failed" && &*status.reason == "Evicted" {
            self.evicted = true;
            let ends = pod.containers().filter_map(last_end).filter_map(|e| e.finished_at);
            let disrupted = pod.condition("DisruptionTarget").and_then(|c| c.last_transition_time);
            let fact =
                PodFact::Evicted { reason: status.reason.clone(), message: status.message.clone() };
            let time = disrupted.or(ends.max());
            out.push(transition(fact, time.map(|t| t.ns), "evicted".into()));
        }
        if let Some(until) = pod.metadata.deletion_timestamp
            && !self.terminating
        {
            self.terminating = true;
            // The timestamp is the end of the grace period.
            let grace_s = pod.metadata.deletion_grace_period_seconds;
            let requested_ns =
                until.ns.saturating_sub(grace_s.unwrap_or(0).saturating_mul(1_000_000_000));
            let finalizers = pod.metadata.finalizers.join(",");
            let fact = PodFact::Terminating { grace_s, finalizers };
            out.push(transition(fact, Some(requested_ns), "terminating".into()));
        }
    }

    /// Returns a fact that is due because time has passed.
    pub(super) fn tick(&mut self, now_ns: u64) -> Option<Transition> {
        if self.running || self.ended || self.terminating {
            return None;
        }
        let for_ns = now_ns.saturating_sub(self.scheduled_ns.filter(|s| *s > 0)?);
        let intervals = for_ns / PENDING_EVERY_NS;
        if intervals <= self.pending_intervals {
            return None;
        }
        self.pending_intervals = intervals;
        let (container, reason) = self.waiting_for.clone().unwrap_or_default();
        let fact = PodFact::Pending { for_ns, container, reason };
        Some(transition(fact, None, format!("pending/{intervals}")))
    }

    /// The fact that the pod was deleted.
    pub(super) fn deleted(&self) -> Transition {
        transition(PodFact::Deleted, None, "deleted".into())
    }
}

fn transition(fact: PodFact, time_ns: Option<u64>, natural_key: String) -> Transition {
    Transition { fact, time_ns, natural_key }
}

/// The first container that can't start yet, and why.
fn waiting_container(pod: &Pod) -> Option<(Text, Text)> {
    let status = &pod.status;
    let waiting =
        |c: &ContainerStatus| c.state.waiting.as_ref().map(|w| (c.name.clone(), w.reason.clone()));
    // Regular containers only report PodInitializing then; the init container is more specific.
    let initializing = status
        .init_container_statuses
        .iter()
        .find(|c| c.state.terminated.as_ref().is_none_or(|end| end.exit_code != 0));
    match initializing {
        Some(container) => {
            waiting(container).or_else(|| Some((container.name.clone(), "PodInitializing".into())))
        }
        None => status.container_statuses.iter().find_map(waiting),
    }
}

#[cfg(test)]
mod tests;
