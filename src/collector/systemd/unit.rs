//! What a unit's snapshots say happened between them. Pure: no bus and no clock inside.
//!
//! systemd stamps every change of state (`ActiveEnterTimestamp`, `InactiveEnterTimestamp` …), so a
//! transition is told when its stamp is later than the last one told: a snapshot seen twice tells
//! nothing, and one seen after a gap tells what the gap hid. What a stamp can't say (`Result` of a run
//! that another one has replaced) is left out.

use std::sync::Arc;

/// Two readings of one moment, in microseconds; zero where it never was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// CLOCK_MONOTONIC: what comes before what.
    pub(super) mono_us: u64,
    /// CLOCK_REALTIME: when it was.
    pub(super) wall_us: u64,
}

/// `ActiveState` (org.freedesktop.systemd1(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Inactive,
    Activating,
    Active,
    /// `reloading` and `refreshing`.
    Reloading,
    Deactivating,
    Failed,
    /// `maintenance`, whatever a later systemd adds, and what ran before the agent's start.
    Other,
}

impl State {
    pub(super) fn parse(text: &str) -> Self {
        match text {
            "inactive" => Self::Inactive,
            "activating" => Self::Activating,
            "active" => Self::Active,
            "reloading" | "refreshing" => Self::Reloading,
            "deactivating" => Self::Deactivating,
            "failed" => Self::Failed,
            _ => Self::Other,
        }
    }

    pub(super) fn has_ended(self) -> bool {
        matches!(self, Self::Inactive | Self::Failed)
    }
}

/// How a unit's main process ended: `ExecMainCode` (si_code of waitid(2)) and `ExecMainStatus`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) code: i32,
    pub(super) status: i32,
    /// Microseconds of CLOCK_MONOTONIC.
    pub(super) at_mono_us: u64,
}

/// What systemd says of a unit at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) active: State,
    /// Whether it waits to be started again (`SubState` is `auto-restart`), and whether the job for it
    /// is there already (`auto-restart-queued`, or a `Job`) and counted in `restarts`.
    pub(super) waits_to_restart: bool,
    pub(super) restart_is_queued: bool,
    /// 32 hex digits; empty before the first run.
    pub(super) invocation_id: Arc<str>,
    pub(super) changed: Stamp,
    pub(super) active_enter: Stamp,
    pub(super) inactive_enter: Stamp,
    /// `Result`; empty for units that have none.
    pub(super) result: Arc<str>,
    pub(super) reload_result: Arc<str>,
    pub(super) exit: Exit,
    /// `NRestarts`.
    pub(super) restarts: u32,
    /// What started it: `ActivationDetails`' `trigger_unit`.
    pub(super) trigger: Arc<str>,
}

impl Snapshot {
    /// The number of the restart that is under way or was the last one.
    fn restart(&self) -> u32 {
        let to_come = self.waits_to_restart && !self.restart_is_queued;
        self.restarts.saturating_add(u32::from(to_come))
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Started,
    Stopped,
    Failed,
    Restarting,
    Reloaded,
    Oom,
}

/// Something that happened to a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) what: What,
    pub(super) at: Stamp,
    pub(super) invocation_id: Arc<str>,
    /// Empty where it isn't known or there is none.
    pub(super) result: Arc<str>,
    pub(super) exit: Option<Exit>,
    pub(super) triggered_by: Option<Arc<str>>,
    /// For a restart, its number.
    pub(super) restarts: Option<u32>,
    /// For a start, the result it comes back from, and how long it was down in nanoseconds.
    pub(super) comes_back_from: Option<(Arc<str>, u64)>,
}

/// Said of units that systemd gave up on: the result property keeps the last run's.
const START_LIMIT: &str = "start-limit-hit";
const OOM_KILL: &str = "oom-kill";

/// An end that isn't told yet: what follows at once says whether it is one. systemd enters `failed` or
/// `inactive` before `auto-restart`, and `inactive` once more between `auto-restart` and the next run, and
/// its signals show each.
#[derive(Clone, Debug)]
struct Held {
    told: Told,
    /// Whether it is the step from waiting to be started again into the next run.
    between_runs: bool,
}

/// For how long an end is held where nothing follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// For the signal that systemd sends right behind it.
    Briefly,
    /// For a start that is about to be.
    ForAStart,
}

/// A unit, as far as it was told.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    last: Snapshot,
    /// Where the telling begins, in microseconds of CLOCK_MONOTONIC: what was so before is no news.
    baseline_us: u64,
    /// The number of the last restart that was told; `None` before the first snapshot.
    told_restart: Option<u32>,
    /// That it failed, and hasn't come back.
    fell: Option<(Arc<str>, Stamp)>,
    held: Option<Held>,
}

impl Unit {
    /// A unit of which nothing is known, and nothing is to be told from before `baseline_us`.
    pub(super) fn since(baseline_us: u64) -> Self {
        let last = Snapshot::default();
        Self { last, baseline_us, told_restart: None, fell: None, held: None }
    }

    /// Says that it ran when the telling ended last.
    pub(super) fn remember(&mut self, invocation_id: &str, changed_us: u64) {
        self.last.active = State::Other;
        self.last.invocation_id = invocation_id.into();
        self.last.changed.mono_us = changed_us;
    }

    /// The last snapshot that was seen.
    pub(super) fn last(&self) -> &Snapshot {
        &self.last
    }

    /// Whether an end is held, to be told by [`Unit::release`] if nothing follows.
    pub(super) fn holds(&self) -> Option<Hold> {
        self.held.as_ref().map(|h| if h.between_runs { Hold::ForAStart } else { Hold::Briefly })
    }

    /// Compares a snapshot with the one before, and tells what happened between.
    pub(super) fn see(&mut self, new: &Snapshot, tell: &mut impl FnMut(Told)) {
        if new.changed.mono_us < self.last.changed.mono_us || *new == self.last {
            return; // an answer that a signal has overtaken, or a duplicate
        }
        let since = |told: Stamp| told.mono_us.max(self.baseline_us);
        let ended = new.inactive_enter.mono_us > since(self.last.inactive_enter);
        let started = new.active_enter.mono_us > since(self.last.active_enter);
        let start_first = new.active_enter.mono_us <= new.inactive_enter.mono_us;
        let held = self.look_at_held(new, ended || started, tell);
        if started && start_first {
            self.started(new, new.active_enter, tell);
        }
        // A start that is refused fails without ever having left the inactive states.
        let is_new = new.changed.mono_us > self.baseline_us;
        let refused = new.active == State::Failed && self.last.active != State::Failed && is_new;
        if new.waits_to_restart {
            if ended || (is_new && !self.last.waits_to_restart) {
                self.restarting(new, held, tell);
            }
        } else if ended || refused {
            let at = if ended { new.inactive_enter } else { new.changed };
            self.ended(new, at, held, tell);
        } else if is_new && self.is_news(new.restarts) {
            self.hidden_restart(new, new.changed, tell);
        }
        if started && !start_first {
            self.started(new, new.active_enter, tell);
        }
        let reloaded = self.last.active == State::Reloading && new.active == State::Active;
        if reloaded && is_new && !ended {
            let result = Arc::clone(&new.reload_result);
            tell(Told { result, ..told(What::Reloaded, new, new.changed) });
        }
        if new.active == State::Failed && self.fell.is_none() && self.held.is_none() {
            self.fell = Some((Arc::clone(&new.result), new.inactive_enter));
        }
        self.told_restart = Some(new.restart());
        self.last = new.clone();
    }

    /// Tells the end that is held: nothing followed.
    pub(super) fn release(&mut self, tell: &mut impl FnMut(Told)) {
        let Some(Held { told, .. }) = self.held.take() else { return };
        match told.what {
            What::Failed => {
                if &*told.result == OOM_KILL {
                    tell(Told { what: What::Oom, triggered_by: None, ..told.clone() });
                }
                self.fell = Some((Arc::clone(&told.result), told.at));
            }
            // A job that ends when its work is done is never active: this is its coming back.
            _ if &*told.result == "success" => {
                if let Some(back) = self.comes_back(told.at) {
                    let what = What::Started;
                    let result = Arc::default();
                    tell(Told { what, result, comes_back_from: Some(back), ..told.clone() });
                }
            }
            _ => {}
        }
        tell(told);
    }

    /// The unit is no longer loaded. One that ran has stopped, unseen.
    pub(super) fn vanished(&mut self, wall_us: u64, tell: &mut impl FnMut(Told)) {
        self.release(tell);
        if !self.last.active.has_ended() {
            // The last change stands in its id, so that it is the same after a restart of ours.
            let at = Stamp { wall_us, ..self.last.changed };
            tell(Told { result: Arc::default(), ..told(What::Stopped, &self.last, at) });
        }
    }

    /// What a new snapshot means for the end that is held: it is told, goes on being held, is one
    /// step of something else, or is given back because it belongs to what is told now.
    fn look_at_held(
        &mut self,
        new: &Snapshot,
        moved: bool,
        tell: &mut impl FnMut(Told),
    ) -> Option<Held> {
        let held = self.held.take()?;
        let same_state = new.active == self.last.active && !moved;
        if same_state && !new.waits_to_restart {
            self.held = Some(held);
            return None;
        }
        if held.between_runs || (new.waits_to_restart && !moved) {
            return Some(held);
        }
        self.held = Some(held);
        self.release(tell);
        None
    }

    /// Whether a restart of this number wasn't told yet.
    fn is_news(&self, restart: u32) -> bool {
        self.told_restart.is_some_and(|told| restart > told)
    }

    fn comes_back(&mut self, at: Stamp) -> Option<(Arc<str>, u64)> {
        let (result, since) = self.fell.take()?;
        Some((result, at.mono_us.saturating_sub(since.mono_us).saturating_mul(1_000)))
    }

    fn started(&mut self, new: &Snapshot, at: Stamp, tell: &mut impl FnMut(Told)) {
        let comes_back_from = self.comes_back(at);
        let result = Arc::default();
        tell(Told { comes_back_from, result, ..told(What::Started, new, at) });
    }

    fn ended(
        &mut self,
        new: &Snapshot,
        at: Stamp,
        held: Option<Held>,
        tell: &mut impl FnMut(Told),
    ) {
        let waited = self.last.waits_to_restart || held.is_some_and(|h| h.between_runs);
        let runs_again = self.told_restart.is_none() && new.restarts > 0;
        if self.is_news(new.restarts) || (runs_again && !new.active.has_ended()) {
            self.hidden_restart(new, at, tell);
            if !new.active.has_ended() {
                return;
            }
        }
        match new.active {
            State::Failed => self.failed(new, at, waited),
            State::Inactive => {
                let between_runs = waited && self.told_restart == Some(new.restarts);
                self.held = Some(Held { told: told(What::Stopped, new, at), between_runs });
            }
            // Another run has begun, and its properties hide how this one ended.
            _ => tell(Told {
                result: Arc::default(),
                invocation_id: Arc::clone(&self.last.invocation_id),
                ..told(What::Stopped, new, at)
            }),
        }
    }

    fn failed(&mut self, new: &Snapshot, at: Stamp, waited: bool) {
        // From waiting to be started again into failure without a run between: systemd refused the
        // start. The result stays that of the last run, but for `resources`.
        let gave_up =
            waited && self.last.invocation_id == new.invocation_id && &*new.result != "resources";
        let mut failed = told(What::Failed, new, at);
        failed.exit =
            self.exit(new).or_else(|| gave_up.then_some(new.exit).filter(|e| e.code != 0));
        if gave_up {
            failed.result = START_LIMIT.into();
        }
        self.held = Some(Held { told: failed, between_runs: false });
    }

    /// It waits to be started again; the end before it is what was held.
    fn restarting(&mut self, new: &Snapshot, held: Option<Held>, tell: &mut impl FnMut(Told)) {
        let mut restarting = told(What::Restarting, new, new.inactive_enter);
        restarting.restarts = Some(new.restart());
        restarting.exit = held.map_or_else(|| self.exit(new), |h| h.told.exit);
        if &*new.result == OOM_KILL {
            let exit = restarting.exit;
            tell(Told { exit, ..told(What::Oom, new, new.inactive_enter) });
        }
        tell(restarting);
    }

    /// A restart of which only the count is seen: the next run's properties hide how this one ended.
    fn hidden_restart(&self, new: &Snapshot, at: Stamp, tell: &mut impl FnMut(Told)) {
        tell(Told {
            restarts: Some(new.restarts),
            result: Arc::default(),
            invocation_id: Arc::clone(&self.last.invocation_id),
            ..told(What::Restarting, new, at)
        });
    }

    /// How the run that ended did, unless the process ended in an earlier run: what runs before the
    /// main process can fail too.
    fn exit(&self, new: &Snapshot) -> Option<Exit> {
        let of_this_run = new.exit.at_mono_us > self.last.inactive_enter.mono_us;
        (of_this_run && new.exit.code != 0).then_some(new.exit)
    }
}

fn told(what: What, new: &Snapshot, at: Stamp) -> Told {
    let failed = matches!(what, What::Failed | What::Restarting);
    let trigger = Some(&new.trigger).filter(|t| failed && !t.is_empty()).map(Arc::clone);
    Told {
        what,
        at,
        invocation_id: Arc::clone(&new.invocation_id),
        result: Arc::clone(&new.result),
        exit: None,
        triggered_by: trigger,
        restarts: None,
        comes_back_from: None,
    }
}

#[cfg(test)]
#[path = "unit_tests.rs"]
mod tests;
