//! The units that are watched: takes in signals and answers, says what happened and what to ask next.
//! Knows no connection, so that it outlives one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use zbus::Message;

use super::bus::{Listed, Read};
use super::properties::{Properties, UNIT, unit_of_path};
use super::unit::{Hold, Snapshot, State, Told, Unit};
use crate::events::Filter;
use tapio_core::identity::{self, Directory};

/// Units that are watched at a time.
const MOST_UNITS: usize = 8_192;
/// Jobs that are under way at a time.
const MOST_JOBS: usize = 8_192;
/// How long an end waits for the signal that says that it is none: systemd sends it right behind.
const BRIEFLY_NS: u64 = 200_000_000;
/// How long it waits for a start that is about to be.
const FOR_A_START_NS: u64 = 5_000_000_000;

/// Something to be asked of the bus.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// All units.
    List,
    /// A unit's properties; what was heard of it when this was asked.
    Read { unit: Arc<str>, heard: u64 },
    /// The control group of a unit's new run.
    Group { unit: Arc<str> },
    /// What a job does.
    Job { id: u32, path: String },
    /// Which unit's failure ended a job.
    Dependency { id: u32, unit: Arc<str> },
    /// Whether systemd is there.
    Ping,
}

/// The bus's answer; `None` where there is no such object (any more).
pub(super) enum Answer {
    List(Vec<Listed>),
    Read { unit: Arc<str>, heard: u64, read: Option<Read> },
    Group { unit: Arc<str>, group: Option<String> },
    Job { id: u32, kind: Option<String> },
    Dependency { id: u32, failed: Option<String> },
    Pong,
}

/// Something to be told.
#[derive(Debug)]
pub(super) enum News {
    Unit { unit: Arc<str>, told: Told },
    Job { unit: Arc<str>, invocation_id: Arc<str>, job: Job },
}

/// A job that systemd works on, or that ended otherwise than done.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) id: u32,
    unit: Arc<str>,
    /// `None` while it isn't known.
    pub(super) kind: Option<String>,
    /// Questions about it that are under way.
    asked: u8,
    pub(super) result: String,
    pub(super) failed_dependency: Option<String>,
}

struct Entry {
    unit: Unit,
    /// The snapshot as signals complete it.
    next: Snapshot,
    /// Signals heard of it.
    heard: u64,
    /// The run whose control group is known or asked for.
    grouped: Arc<str>,
}

/// What is known of the units, and what is to be asked and told.
pub(super) struct Watch {
    filter: Filter,
    /// Nothing is told from before, in microseconds of CLOCK_MONOTONIC.
    baseline_us: u64,
    /// Whether units that are inactive may have changed since the telling ended last.
    look_at_all: bool,
    units: HashMap<Arc<str>, Entry>,
    jobs: HashMap<u32, Job>,
    /// Units that hold an end back, and until when, in nanoseconds of CLOCK_MONOTONIC.
    holding: Vec<(Arc<str>, u64)>,
    pub(super) asks: VecDeque<Ask>,
    pub(super) news: Vec<News>,
    /// The latest change of state that was seen, in microseconds of CLOCK_MONOTONIC.
    pub(super) latest_us: u64,
    /// Units and jobs that weren't watched because there are too many.
    pub(super) refused: u64,
}

impl Watch {
    pub(super) fn new(filter: Filter, baseline_us: u64, look_at_all: bool) -> Self {
        Self {
            filter,
            baseline_us,
            look_at_all,
            units: HashMap::new(),
            jobs: HashMap::new(),
            holding: Vec::new(),
            asks: VecDeque::new(),
            news: Vec::new(),
            latest_us: baseline_us,
            refused: 0,
        }
    }

    /// Takes over a unit that ran when the telling ended last: should it be gone, it has stopped.
    pub(super) fn remember(&mut self, unit: &str, invocation_id: &str, changed_us: u64) {
        if let Some(entry) = self.entry(unit) {
            entry.unit.remember(invocation_id, changed_us);
        }
    }

    /// The units that run, each with its run and its last change in microseconds of CLOCK_MONOTONIC.
    pub(super) fn running(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        let running = self.units.iter().filter(|(_, entry)| !entry.unit.last().active.has_ended());
        running.map(|(name, entry)| {
            let last = entry.unit.last();
            (&**name, &*last.invocation_id, last.changed.mono_us)
        })
    }

    /// How many units are watched.
    pub(super) fn len(&self) -> usize {
        self.units.len()
    }

    /// A connection begins: what was asked of the one before won't be answered.
    pub(super) fn begin(&mut self) {
        self.jobs.clear();
        self.asks.clear();
        self.asks.push_back(Ask::List);
    }

    /// A signal. What can't be read isn't systemd's, or of no use here.
    pub(super) fn heard(&mut self, message: &Message, directory: &Directory, now_ns: u64) {
        let header = message.header();
        let (Some(member), Some(path)) = (header.member(), header.path()) else {
            return;
        };
        let body = message.body();
        match member.as_str() {
            "PropertiesChanged" => {
                let Some(unit) = unit_of_path(path.as_str()).filter(|u| self.filter.selects(u))
                else {
                    return;
                };
                type Changed<'a> = (&'a str, Properties<'a>, Vec<&'a str>);
                if let Ok((interface, changed, _)) = body.deserialize::<Changed<'_>>() {
                    self.changed(&unit, interface, &changed, directory, now_ns);
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
            // Units may have come and gone with the configuration.
            "Reloading" if body.deserialize::<bool>().is_ok_and(|begins| !begins) => self.list(),
            _ => {}
        }
    }

    fn list(&mut self) {
        if !self.asks.contains(&Ask::List) {
            self.asks.push_back(Ask::List);
        }
    }

    fn entry(&mut self, unit: &str) -> Option<&mut Entry> {
        if !self.units.contains_key(unit) {
            if self.units.len() >= MOST_UNITS {
                self.refused += 1;
                return None;
            }
            let entry = Entry {
                unit: Unit::since(self.baseline_us),
                next: Snapshot::default(),
                heard: 0,
                grouped: Arc::default(),
            };
            self.units.insert(unit.into(), entry);
        }
        self.units.get_mut(unit)
    }

    fn changed(
        &mut self,
        unit: &str,
        interface: &str,
        changed: &Properties<'_>,
        directory: &Directory,
        now_ns: u64,
    ) {
        let Some(entry) = self.entry(unit) else { return };
        entry.heard += 1;
        // systemd sends the type's interface first and that of all units last: then all is there
        // that belongs together.
        if interface == UNIT {
            entry.next.take_unit(changed);
            self.see(unit, directory, now_ns);
        } else {
            entry.next.take_typed(changed);
        }
    }

    /// Shows a unit its next snapshot.
    fn see(&mut self, unit: &str, directory: &Directory, now_ns: u64) {
        let Some((name, _)) = self.units.get_key_value(unit) else { return };
        let name = Arc::clone(name);
        let Some(entry) = self.units.get_mut(unit) else { return };
        let news = &mut self.news;
        entry.unit.see(&entry.next, &mut |told| {
            news.push(News::Unit { unit: Arc::clone(&name), told });
        });
        if let Some(hold) = entry.unit.holds() {
            let wait = if hold == Hold::Briefly { BRIEFLY_NS } else { FOR_A_START_NS };
            self.holding.retain(|(held, _)| *held != name);
            self.holding.push((Arc::clone(&name), now_ns + wait));
        }
        self.latest_us = self.latest_us.max(entry.next.changed.mono_us);
        let runs = matches!(entry.next.active, State::Activating | State::Active);
        let id = &entry.next.invocation_id;
        if runs && !id.is_empty() && entry.grouped != *id {
            entry.grouped = Arc::clone(id);
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
            self.asks.push_back(Ask::Group { unit: name });
        }
    }

    /// Tells the ends behind which nothing came.
    pub(super) fn release(&mut self, now_ns: u64) {
        let (units, news) = (&mut self.units, &mut self.news);
        self.holding.retain(|(name, until_ns)| {
            if *until_ns > now_ns {
                return true;
            }
            if let Some(entry) = units.get_mut(name) {
                entry.unit.release(&mut |told| {
                    news.push(News::Unit { unit: Arc::clone(name), told });
                });
            }
            false
        });
    }

    /// Whether something was seen that isn't told yet.
    pub(super) fn holds(&self) -> bool {
        !self.holding.is_empty()
    }

    fn job_new(&mut self, id: u32, path: &str, unit: &str) {
        if !self.filter.selects(unit) || self.jobs.contains_key(&id) {
            return;
        }
        if self.jobs.len() >= MOST_JOBS {
            self.refused += 1;
            return;
        }
        let job = Job {
            id,
            unit: unit.into(),
            kind: None,
            asked: 1,
            result: String::new(),
            failed_dependency: None,
        };
        self.jobs.insert(id, job);
        self.asks.push_back(Ask::Job { id, path: path.to_owned() });
    }

    fn job_removed(&mut self, id: u32, result: &str) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        // `skipped` and `once`: there was nothing to do; `collected`: nobody wanted it any more.
        if matches!(result, "done" | "skipped" | "once" | "collected") {
            self.jobs.remove(&id);
            return;
        }
        job.result = result.to_owned();
        if result == "dependency" {
            let unit = Arc::clone(&job.unit);
            job.asked += 1;
            self.asks.push_back(Ask::Dependency { id, unit });
        }
        self.tell_job(id);
    }

    /// Tells a job that ended, once what can be known of it is.
    fn tell_job(&mut self, id: u32) {
        let ended = |job: &Job| job.asked == 0 && !job.result.is_empty();
        if !self.jobs.get(&id).is_some_and(ended) {
            return;
        }
        let Some(job) = self.jobs.remove(&id) else { return };
        let last = self.units.get(&job.unit).map(|entry| entry.unit.last());
        let invocation_id = last.map_or_else(Arc::default, |s| Arc::clone(&s.invocation_id));
        self.news.push(News::Job { unit: Arc::clone(&job.unit), invocation_id, job });
    }

    fn unit_removed(&mut self, unit: &str, directory: &Directory, now_ns: u64) {
        let Some(entry) = self.units.get(unit) else { return };
        if entry.unit.last().active.has_ended() {
            if let Some((name, mut entry)) = self.units.remove_entry(unit) {
                let news = &mut self.news;
                entry.unit.release(&mut |told| {
                    news.push(News::Unit { unit: Arc::clone(&name), told });
                });
            }
            directory.unit_gone(unit, now_ns);
        } else {
            // While systemd reloads, it takes all units down and puts them up again: only the list
            // says what became of one that ran.
            self.list();
        }
    }

    /// Takes an answer in.
    pub(super) fn answered(&mut self, answer: Answer, directory: &Directory, now_ns: u64) {
        match answer {
            Answer::List(listed) => self.listed(&listed, directory, now_ns),
            Answer::Read { unit, heard, read: Some(read) } => {
                let Some(entry) = self.entry(&unit) else { return };
                // Whatever was heard meanwhile is newer than what was read.
                if entry.heard == heard {
                    entry.next = read.snapshot;
                    entry.grouped = Arc::clone(&entry.next.invocation_id);
                    let seen = identity::Unit {
                        name: Arc::clone(&unit),
                        invocation_id: Arc::clone(&entry.next.invocation_id),
                        control_group: read.control_group.into(),
                    };
                    directory.unit_seen(seen, now_ns);
                    self.see(&unit, directory, now_ns);
                }
            }
            Answer::Group { unit, group: Some(group) } => {
                let Some(entry) = self.units.get(&unit) else { return };
                let invocation_id = Arc::clone(&entry.next.invocation_id);
                let seen =
                    identity::Unit { name: unit, invocation_id, control_group: group.into() };
                directory.unit_seen(seen, now_ns);
            }
            Answer::Job { id, kind } => {
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.kind = kind;
                    job.asked = job.asked.saturating_sub(1);
                    self.tell_job(id);
                }
            }
            Answer::Dependency { id, failed } => {
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.failed_dependency = failed;
                    job.asked = job.asked.saturating_sub(1);
                    self.tell_job(id);
                }
            }
            Answer::Read { .. } | Answer::Group { .. } | Answer::Pong => {}
        }
    }

    fn listed(&mut self, listed: &[Listed], directory: &Directory, now_ns: u64) {
        let names: HashSet<&str> = listed.iter().map(|l| l.name.as_str()).collect();
        let gone: Vec<_> =
            self.units.keys().filter(|name| !names.contains(&***name)).map(Arc::clone).collect();
        for name in gone {
            let Some(mut entry) = self.units.remove(&name) else { continue };
            let news = &mut self.news;
            entry.unit.vanished(now_ns / 1_000, &mut |told| {
                news.push(News::Unit { unit: Arc::clone(&name), told });
            });
            directory.unit_gone(&name, now_ns);
        }
        for unit in listed.iter().filter(|l| self.filter.selects(&l.name)) {
            let known = self.units.get(unit.name.as_str());
            // One that doesn't run and of which nothing was told has nothing to say.
            if unit.is_inactive && known.is_none() && !self.look_at_all {
                continue;
            }
            let heard = known.map_or(0, |entry| entry.heard);
            self.asks.push_back(Ask::Read { unit: unit.name.as_str().into(), heard });
        }
        self.look_at_all = false;
    }
}
