//! All units and jobs: applies signals and replies, and collects changes and the next requests.
//! Independent of the connection, so that it outlives one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use zbus::Message;

use super::bus::{ListedUnit, UnitProperties};
use super::properties::{Properties, UNIT_INTERFACE, unit_of_path};
use super::unit::{PendingFor, Snapshot, State, Transition, Unit};
use crate::events::Filter;
use tapio_core::identity::{self, Directory};

const MAX_UNITS: usize = 8_192;
const MAX_JOBS: usize = 8_192;
/// Time that an end stays pending for the signal that follows it: systemd sends it right after.
const NEXT_SIGNAL_TIMEOUT_NS: u64 = 200_000_000;
/// Time that an end stays pending for the start of the next invocation.
const START_TIMEOUT_NS: u64 = 5_000_000_000;

/// A request to the bus.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Lists all units.
    List,
    /// Reads a unit's properties. `signals`: the number of its signals at the time of the request.
    Read { unit: Arc<str>, signals: u64 },
    /// Reads the control group of a unit's new invocation.
    ControlGroup { unit: Arc<str> },
    /// Reads a job's type.
    JobType { id: u32, path: String },
    /// Finds the failed unit that ended a job.
    FailedDependency { id: u32, unit: Arc<str> },
    /// Checks that systemd responds.
    Ping,
}

/// The reply to a request; `None` if the object doesn't exist (any more).
pub(super) enum Reply {
    List(Vec<ListedUnit>),
    Read { unit: Arc<str>, signals: u64, properties: Option<UnitProperties> },
    ControlGroup { unit: Arc<str>, control_group: Option<String> },
    JobType { id: u32, job_type: Option<String> },
    FailedDependency { id: u32, failed: Option<String> },
    Pong,
}

/// A change to emit.
#[derive(Debug)]
pub(super) enum Change {
    Unit { unit: Arc<str>, transition: Transition },
    Job { unit: Arc<str>, invocation_id: Arc<str>, job: Job },
}

/// A job in progress, or one that failed.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) id: u32,
    unit: Arc<str>,
    /// `None` until the reply arrives.
    pub(super) job_type: Option<String>,
    /// Number of requests in flight about it.
    requests: u8,
    pub(super) result: String,
    pub(super) failed_dependency: Option<String>,
}

struct Entry {
    unit: Unit,
    /// The next snapshot, until its last signal has arrived.
    next: Snapshot,
    /// Number of signals received.
    signals: u64,
    /// The invocation whose control group is known or requested.
    control_group_of: Arc<str>,
}

/// The state of all units and jobs, with the changes to emit and the requests to send.
pub(super) struct UnitTable {
    filter: Filter,
    /// Earlier changes aren't emitted; in microseconds of CLOCK_MONOTONIC.
    baseline_us: u64,
    /// Whether inactive units may have changed since the cursor.
    check_inactive: bool,
    /// Whether there was no run before this one: units that have failed already are emitted once.
    is_first_start: bool,
    /// The units of the first list that aren't read yet.
    first_list: HashSet<Arc<str>>,
    units: HashMap<Arc<str>, Entry>,
    jobs: HashMap<u32, Job>,
    /// Units with a pending end, and its deadline in nanoseconds of CLOCK_MONOTONIC.
    pending: Vec<(Arc<str>, u64)>,
    pub(super) requests: VecDeque<Request>,
    pub(super) changes: Vec<Change>,
    /// The latest change of state, in microseconds of CLOCK_MONOTONIC.
    pub(super) latest_us: u64,
    /// Units and jobs that were dropped because the table is full.
    pub(super) refused: u64,
}

impl UnitTable {
    pub(super) fn new(filter: Filter, baseline_us: u64, check_inactive: bool) -> Self {
        Self {
            filter,
            baseline_us,
            check_inactive,
            is_first_start: !check_inactive,
            first_list: HashSet::new(),
            units: HashMap::new(),
            jobs: HashMap::new(),
            pending: Vec::new(),
            requests: VecDeque::new(),
            changes: Vec::new(),
            latest_us: baseline_us,
            refused: 0,
        }
    }

    /// Restores a unit that was running as of the cursor: if systemd doesn't list it, it has
    /// stopped.
    pub(super) fn restore(&mut self, unit: &str, invocation_id: &str, changed_us: u64) {
        if let Some(entry) = self.entry(unit) {
            entry.unit.restore(invocation_id, changed_us);
        }
    }

    /// The running units, each with its invocation and its last change in microseconds of
    /// CLOCK_MONOTONIC.
    pub(super) fn running(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        let running = self.units.iter().filter(|(_, entry)| !entry.unit.last().active.has_ended());
        running.map(|(name, entry)| {
            let last = entry.unit.last();
            (&**name, &*last.invocation_id, last.changed.mono_us)
        })
    }

    /// Number of units.
    pub(super) fn len(&self) -> usize {
        self.units.len()
    }

    /// Begins a connection: requests of the one before get no reply.
    pub(super) fn begin_connection(&mut self) {
        self.jobs.clear();
        self.requests.clear();
        self.requests.push_back(Request::List);
    }

    /// Applies a signal. Signals with an unexpected body are ignored.
    pub(super) fn handle_signal(&mut self, message: &Message, directory: &Directory, now_ns: u64) {
        let header = message.header();
        let (Some(member), Some(path)) = (header.member(), header.path()) else {
            return;
        };
        let body = message.body();
        match member.as_str() {
            "PropertiesChanged" => {
                let unit = unit_of_path(path.as_str());
                let Some(unit) = unit.filter(|unit| self.filter.selects(unit)) else { return };
                type Changed<'a> = (&'a str, Properties<'a>, Vec<&'a str>);
                if let Ok((interface, changed, _)) = body.deserialize::<Changed<'_>>() {
                    self.properties_changed(&unit, interface, &changed, directory, now_ns);
                }
            }
            "JobNew" => {
                if let Ok((id, path, unit)) =
                    body.deserialize::<(u32, zbus::ObjectPath<'_>, &str)>()
                {
                    self.job_new(id, path.as_str(), unit);
                }
            }
            "JobRemoved" => {
                if let Ok((id, _, _, result)) =
                    body.deserialize::<(u32, zbus::ObjectPath<'_>, &str, &str)>()
                {
                    self.job_removed(id, result);
                }
            }
            "UnitRemoved" => {
                if let Ok((unit, _)) = body.deserialize::<(&str, zbus::ObjectPath<'_>)>() {
                    self.unit_removed(unit, directory, now_ns);
                }
            }
            // The end of a reload: the configuration may have added and removed units.
            "Reloading" if body.deserialize::<bool>().is_ok_and(|begins| !begins) => {
                self.request_list();
            }
            _ => {}
        }
    }

    fn request_list(&mut self) {
        if !self.requests.contains(&Request::List) {
            self.requests.push_back(Request::List);
        }
    }

    /// The entry of a unit, created if there is room.
    fn entry(&mut self, unit: &str) -> Option<&mut Entry> {
        if !self.units.contains_key(unit) {
            if self.units.len() >= MAX_UNITS {
                self.refused += 1;
                return None;
            }
            let entry = Entry {
                unit: Unit::since(self.baseline_us),
                next: Snapshot::default(),
                signals: 0,
                control_group_of: Arc::default(),
            };
            self.units.insert(unit.into(), entry);
        }
        self.units.get_mut(unit)
    }

    fn properties_changed(
        &mut self,
        unit: &str,
        interface: &str,
        changed: &Properties<'_>,
        directory: &Directory,
        now_ns: u64,
    ) {
        let Some(entry) = self.entry(unit) else { return };
        entry.signals += 1;
        // systemd sends the type's interface first and that of all units last: the snapshot is
        // complete then.
        if interface == UNIT_INTERFACE {
            entry.next.apply_unit(changed);
            self.apply_snapshot(unit, directory, now_ns);
        } else {
            entry.next.apply_typed(changed);
        }
    }

    /// Applies a unit's next snapshot.
    fn apply_snapshot(&mut self, unit: &str, directory: &Directory, now_ns: u64) {
        let Some((name, _)) = self.units.get_key_value(unit) else { return };
        let name = Arc::clone(name);
        let Some(entry) = self.units.get_mut(unit) else { return };
        entry.unit.apply(&entry.next, &mut push_to(&mut self.changes, &name));
        if let Some(pending_for) = entry.unit.pending_for() {
            let timeout_ns = match pending_for {
                PendingFor::NextSignal => NEXT_SIGNAL_TIMEOUT_NS,
                PendingFor::Start => START_TIMEOUT_NS,
            };
            self.pending.retain(|(pending, _)| *pending != name);
            self.pending.push((Arc::clone(&name), now_ns + timeout_ns));
        }
        self.latest_us = self.latest_us.max(entry.next.changed.mono_us);
        let runs = matches!(entry.next.active, State::Activating | State::Active);
        let id = &entry.next.invocation_id;
        if runs && !id.is_empty() && entry.control_group_of != *id {
            entry.control_group_of = Arc::clone(id);
            directory.unit_seen(
                identity::Unit {
                    name: Arc::clone(&name),
                    invocation_id: Arc::clone(id),
                    control_group: directory
                        .unit(&name)
                        .map_or_else(Arc::default, |u| Arc::clone(&u.control_group)),
                },
                now_ns,
            );
            self.requests.push_back(Request::ControlGroup { unit: name });
        }
    }

    /// Emits the pending ends whose deadline has passed.
    pub(super) fn release_pending(&mut self, now_ns: u64) {
        let (units, changes) = (&mut self.units, &mut self.changes);
        self.pending.retain(|(name, until_ns)| {
            if *until_ns > now_ns {
                return true;
            }
            if let Some(entry) = units.get_mut(name) {
                entry.unit.release_pending(&mut push_to(changes, name));
            }
            false
        });
    }

    /// Whether an end is pending.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    fn job_new(&mut self, id: u32, path: &str, unit: &str) {
        if !self.filter.selects(unit) || self.jobs.contains_key(&id) {
            return;
        }
        if self.jobs.len() >= MAX_JOBS {
            self.refused += 1;
            return;
        }
        let job = Job {
            id,
            unit: unit.into(),
            job_type: None,
            requests: 1,
            result: String::new(),
            failed_dependency: None,
        };
        self.jobs.insert(id, job);
        self.requests.push_back(Request::JobType { id, path: path.to_owned() });
    }

    fn job_removed(&mut self, id: u32, result: &str) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        // `skipped` and `once`: there was nothing to do; `collected`: no longer needed.
        if matches!(result, "done" | "skipped" | "once" | "collected") {
            self.jobs.remove(&id);
            return;
        }
        job.result = result.to_owned();
        if result == "dependency" {
            let unit = Arc::clone(&job.unit);
            job.requests += 1;
            self.requests.push_back(Request::FailedDependency { id, unit });
        }
        self.emit_complete_job(id);
    }

    /// Applies a reply about a job.
    fn job_replied(&mut self, id: u32, apply: impl FnOnce(&mut Job)) {
        if let Some(job) = self.jobs.get_mut(&id) {
            apply(job);
            job.requests = job.requests.saturating_sub(1);
            self.emit_complete_job(id);
        }
    }

    /// Emits a failed job once all replies about it have arrived.
    fn emit_complete_job(&mut self, id: u32) {
        let is_complete = |job: &Job| job.requests == 0 && !job.result.is_empty();
        if !self.jobs.get(&id).is_some_and(is_complete) {
            return;
        }
        let Some(job) = self.jobs.remove(&id) else { return };
        let last = self.units.get(&job.unit).map(|entry| entry.unit.last());
        let invocation_id = last.map_or_else(Arc::default, |s| Arc::clone(&s.invocation_id));
        self.changes.push(Change::Job { unit: Arc::clone(&job.unit), invocation_id, job });
    }

    fn unit_removed(&mut self, unit: &str, directory: &Directory, now_ns: u64) {
        let Some(entry) = self.units.get(unit) else { return };
        if entry.unit.last().active.has_ended() {
            if let Some((name, mut entry)) = self.units.remove_entry(unit) {
                entry.unit.release_pending(&mut push_to(&mut self.changes, &name));
            }
            directory.unit_gone(unit, now_ns);
        } else {
            // While systemd reloads, it removes all units and adds them again: only the list
            // shows the state of one that was running.
            self.request_list();
        }
    }

    /// Applies a reply.
    pub(super) fn handle_reply(&mut self, reply: Reply, directory: &Directory, now_ns: u64) {
        match reply {
            Reply::List(listed) => self.apply_list(&listed, directory, now_ns),
            Reply::Read { unit, signals, properties: Some(read) } => {
                self.apply_read(unit, signals, read, directory, now_ns);
            }
            Reply::ControlGroup { unit, control_group: Some(control_group) } => {
                let Some(entry) = self.units.get(&unit) else { return };
                let invocation_id = Arc::clone(&entry.next.invocation_id);
                let control_group = control_group.into();
                let seen = identity::Unit { name: unit, invocation_id, control_group };
                directory.unit_seen(seen, now_ns);
            }
            Reply::JobType { id, job_type } => {
                self.job_replied(id, |job| job.job_type = job_type);
            }
            Reply::FailedDependency { id, failed } => {
                self.job_replied(id, |job| job.failed_dependency = failed);
            }
            Reply::Read { .. } | Reply::ControlGroup { .. } | Reply::Pong => {}
        }
    }

    fn apply_read(
        &mut self,
        unit: Arc<str>,
        signals: u64,
        read: UnitProperties,
        directory: &Directory,
        now_ns: u64,
    ) {
        let is_in_first_list = self.first_list.remove(&unit);
        let baseline_us = self.baseline_us;
        let Some(entry) = self.entry(&unit) else { return };
        // A signal that arrived since the request is newer than the reply.
        if entry.signals != signals {
            return;
        }
        entry.next = read.snapshot;
        entry.control_group_of = Arc::clone(&entry.next.invocation_id);
        let seen = identity::Unit {
            name: Arc::clone(&unit),
            invocation_id: Arc::clone(&entry.next.invocation_id),
            control_group: read.control_group.into(),
        };
        directory.unit_seen(seen, now_ns);
        let had_failed = is_in_first_list
            && entry.next.active == State::Failed
            && entry.next.changed.mono_us <= baseline_us;
        let found = had_failed.then(|| Transition::found_failed(&entry.next));
        self.changes
            .extend(found.map(|transition| Change::Unit { unit: Arc::clone(&unit), transition }));
        self.apply_snapshot(&unit, directory, now_ns);
    }

    fn apply_list(&mut self, listed: &[ListedUnit], directory: &Directory, now_ns: u64) {
        let names: HashSet<&str> = listed.iter().map(|l| l.name.as_str()).collect();
        let unlisted: Vec<_> =
            self.units.keys().filter(|name| !names.contains(&***name)).map(Arc::clone).collect();
        for name in unlisted {
            let Some(mut entry) = self.units.remove(&name) else { continue };
            entry.unit.unloaded(&mut push_to(&mut self.changes, &name));
            directory.unit_gone(&name, now_ns);
        }
        let is_first = std::mem::take(&mut self.is_first_start);
        for unit in listed.iter().filter(|l| self.filter.selects(&l.name)) {
            let entry = self.units.get(unit.name.as_str());
            // An inactive unit without an entry has nothing to emit.
            if unit.is_inactive && entry.is_none() && !self.check_inactive {
                continue;
            }
            let signals = entry.map_or(0, |entry| entry.signals);
            let name: Arc<str> = unit.name.as_str().into();
            if is_first {
                self.first_list.insert(Arc::clone(&name));
            }
            self.requests.push_back(Request::Read { unit: name, signals });
        }
        self.check_inactive = false;
    }
}

/// Appends a unit's transitions to the changes.
fn push_to<'a>(changes: &'a mut Vec<Change>, unit: &'a Arc<str>) -> impl FnMut(Transition) + 'a {
    |transition| changes.push(Change::Unit { unit: Arc::clone(unit), transition })
}

#[cfg(test)]
mod tests;
