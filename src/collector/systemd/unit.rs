//! Transitions of a unit, derived from its snapshots. Pure: no bus and no clock.
//!
//! systemd timestamps every change of state (`ActiveEnterTimestamp`, `InactiveEnterTimestamp` …).
//! A transition is emitted when its timestamp is later than that of the last one, so a duplicate
//! snapshot emits nothing, and one after a gap emits what the gap hid. Properties that a later
//! invocation has overwritten, such as its predecessor's `Result`, are omitted.
//!
//! | states | transitions |
//! | --- | --- |
//! | activating → active | started |
//! | active → inactive | stopped |
//! | active → failed | failed; oom before it if `Result` is `oom-kill` |
//! | inactive → failed | failed: the start was refused |
//! | active → failed → activating (auto-restart) | restarting |
//! | auto-restart → inactive → activating → active | started |
//! | auto-restart → inactive | stopped |
//! | auto-restart → inactive → failed | failed: the start limit was hit |
//! | activating → inactive (a oneshot unit) | stopped; started before it after a failure |
//! | reloading → active | reloaded |
//!
//! An end (inactive, failed) can be a step towards a restart, which only a later signal shows. It
//! is therefore held as a [`PendingEnd`] until the next change, or until the caller releases it.

use std::sync::Arc;

/// Two clocks' readings of one moment, in microseconds; zero if it never occurred or is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// CLOCK_MONOTONIC, for the order.
    pub(super) mono_us: u64,
    /// CLOCK_REALTIME, for the event's time.
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
    /// `maintenance`, states of later systemd versions, and the state of a unit that was running
    /// as of the cursor.
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

/// The end of a unit's main process: `ExecMainCode` (si_code of waitid(2)) and `ExecMainStatus`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) code: i32,
    pub(super) status: i32,
    /// Microseconds of CLOCK_MONOTONIC.
    pub(super) at_mono_us: u64,
}

/// A unit's properties at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) active: State,
    /// Whether it waits for its restart (`SubState` is `auto-restart`).
    pub(super) awaits_restart: bool,
    /// Whether the restart's job exists (`auto-restart-queued`, or a `Job`), so that `restarts`
    /// counts it.
    pub(super) restart_is_queued: bool,
    /// 32 hex digits; empty before the first invocation.
    pub(super) invocation_id: Arc<str>,
    pub(super) changed: Stamp,
    pub(super) active_enter: Stamp,
    pub(super) inactive_enter: Stamp,
    /// `Result`; empty for units without one.
    pub(super) result: Arc<str>,
    pub(super) reload_result: Arc<str>,
    pub(super) exit: Exit,
    /// `NRestarts`.
    pub(super) restarts: u32,
    /// The unit that activated it: `trigger_unit` of `ActivationDetails`.
    pub(super) trigger: Arc<str>,
}

impl Snapshot {
    /// The number of the current or last restart.
    fn restart_number(&self) -> u32 {
        let is_uncounted = self.awaits_restart && !self.restart_is_queued;
        self.restarts.saturating_add(u32::from(is_uncounted))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransitionKind {
    Started,
    Stopped,
    Failed,
    Restarting,
    Reloaded,
    Oom,
}

/// A change of a unit's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) kind: TransitionKind,
    pub(super) at: Stamp,
    pub(super) invocation_id: Arc<str>,
    /// Empty if unknown or absent.
    pub(super) result: Arc<str>,
    pub(super) exit: Option<Exit>,
    pub(super) triggered_by: Option<Arc<str>>,
    /// The number of a restart.
    pub(super) restarts: Option<u32>,
    /// For a start after a failure: the failure's result, and the time since, in nanoseconds.
    pub(super) recovered_from: Option<(Arc<str>, u64)>,
    /// The wall time, in microseconds, of a failure from before the first start of the agent,
    /// which found it.
    pub(super) failed_before: Option<u64>,
}

impl Transition {
    /// A transition with the properties of a snapshot.
    fn new(kind: TransitionKind, new: &Snapshot, at: Stamp) -> Self {
        let is_failure = matches!(kind, TransitionKind::Failed | TransitionKind::Restarting);
        let trigger = Some(&new.trigger).filter(|t| is_failure && !t.is_empty()).map(Arc::clone);
        Self {
            kind,
            at,
            invocation_id: Arc::clone(&new.invocation_id),
            result: Arc::clone(&new.result),
            exit: None,
            triggered_by: trigger,
            restarts: None,
            recovered_from: None,
            failed_before: None,
        }
    }

    /// The failure of a unit that had failed before anybody watched it. Its time is that at which
    /// it was found: an event hours before all others would be late.
    pub(super) fn found_failed(new: &Snapshot) -> Self {
        let at = Stamp { mono_us: new.changed.mono_us, wall_us: 0 };
        let exit = (new.exit.code != 0).then_some(new.exit);
        let failed_before = Some(new.changed.wall_us);
        Self { exit, failed_before, ..Self::new(TransitionKind::Failed, new, at) }
    }
}

/// The result of units that exceeded their start limit; systemd's property keeps the last
/// invocation's result.
const START_LIMIT_HIT: &str = "start-limit-hit";
const OOM_KILL: &str = "oom-kill";

/// An end that isn't emitted yet, because it may be a step towards a restart. systemd enters
/// `failed` or `inactive` before `auto-restart`, and `inactive` again between `auto-restart` and
/// the next invocation, with a signal for each.
#[derive(Clone, Debug)]
struct PendingEnd {
    transition: Transition,
    /// Whether it is the step from `auto-restart` to the next invocation.
    is_between_invocations: bool,
}

/// The change that a pending end waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PendingFor {
    /// The signal that systemd sends right after it.
    NextSignal,
    /// The start of the next invocation.
    Start,
}

/// The end that a new snapshot shows.
#[derive(Clone, Copy)]
enum End {
    /// No end, or one that was emitted before.
    Unchanged,
    /// The unit waits for its restart.
    AwaitsRestart,
    /// It is inactive or failed, or was before its next invocation.
    Ended(Stamp),
    /// The restart count shows an end that no snapshot had.
    HiddenRestart,
}

/// The changes between two snapshots.
struct Changes {
    started: bool,
    ended: bool,
    /// Whether the start precedes the end.
    is_start_first: bool,
    /// Whether the state changed after the baseline.
    is_new: bool,
    end: End,
}

/// Derives the transitions of one unit.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    last: Snapshot,
    /// Earlier changes aren't emitted; in microseconds of CLOCK_MONOTONIC.
    baseline_us: u64,
    /// The number of the last restart emitted; `None` before the first snapshot.
    emitted_restart: Option<u32>,
    /// The result and time of a failure, until the next start.
    failure: Option<(Arc<str>, Stamp)>,
    pending: Option<PendingEnd>,
}

impl Unit {
    /// A unit without a snapshot. Changes before `baseline_us` aren't emitted.
    pub(super) fn since(baseline_us: u64) -> Self {
        let last = Snapshot::default();
        Self { last, baseline_us, emitted_restart: None, failure: None, pending: None }
    }

    /// Restores a unit that was running as of the cursor.
    pub(super) fn restore(&mut self, invocation_id: &str, changed_us: u64) {
        self.last.active = State::Other;
        self.last.invocation_id = invocation_id.into();
        self.last.changed.mono_us = changed_us;
    }

    /// The last snapshot.
    pub(super) fn last(&self) -> &Snapshot {
        &self.last
    }

    /// The change that a pending end waits for; without it [`Unit::release_pending`] emits the end.
    pub(super) fn pending_for(&self) -> Option<PendingFor> {
        self.pending.as_ref().map(|pending| {
            if pending.is_between_invocations { PendingFor::Start } else { PendingFor::NextSignal }
        })
    }

    /// Compares a snapshot with the last one and emits the transitions in between.
    pub(super) fn apply(&mut self, new: &Snapshot, emit: &mut impl FnMut(Transition)) {
        let is_overtaken = new.changed.mono_us < self.last.changed.mono_us;
        if is_overtaken || *new == self.last {
            return;
        }
        let changes = self.changes(new);
        let pending = self.resolve_pending(new, changes.ended || changes.started, emit);
        if changes.started && changes.is_start_first {
            self.started(new, emit);
        }
        match changes.end {
            End::Unchanged => {}
            End::AwaitsRestart => self.restarting(new, pending, emit),
            End::Ended(at) => self.ended(new, at, pending, emit),
            End::HiddenRestart => self.hidden_restart(new, new.changed, emit),
        }
        if changes.started && !changes.is_start_first {
            self.started(new, emit);
        }
        let reloaded = self.last.active == State::Reloading && new.active == State::Active;
        if reloaded && changes.is_new && !changes.ended {
            let result = Arc::clone(&new.reload_result);
            let reloaded = Transition::new(TransitionKind::Reloaded, new, new.changed);
            emit(Transition { result, ..reloaded });
        }
        if new.active == State::Failed && self.failure.is_none() && self.pending.is_none() {
            self.failure = Some((Arc::clone(&new.result), new.inactive_enter));
        }
        self.emitted_restart = Some(new.restart_number());
        self.last = new.clone();
    }

    /// The changes since the last snapshot, by systemd's timestamps.
    fn changes(&self, new: &Snapshot) -> Changes {
        let since = |stamp: Stamp| stamp.mono_us.max(self.baseline_us);
        let ended = new.inactive_enter.mono_us > since(self.last.inactive_enter);
        let is_new = new.changed.mono_us > self.baseline_us;
        // A refused start fails without leaving the inactive states.
        let refused = new.active == State::Failed && self.last.active != State::Failed && is_new;
        let end = if new.awaits_restart {
            let begins_to_wait = is_new && !self.last.awaits_restart;
            if ended || begins_to_wait { End::AwaitsRestart } else { End::Unchanged }
        } else if ended {
            End::Ended(new.inactive_enter)
        } else if refused {
            End::Ended(new.changed)
        } else if is_new && self.is_unemitted(new.restarts) {
            End::HiddenRestart
        } else {
            End::Unchanged
        };
        Changes {
            started: new.active_enter.mono_us > since(self.last.active_enter),
            ended,
            is_start_first: new.active_enter.mono_us <= new.inactive_enter.mono_us,
            is_new,
            end,
        }
    }

    /// Emits the pending end: no restart followed.
    pub(super) fn release_pending(&mut self, emit: &mut impl FnMut(Transition)) {
        let Some(PendingEnd { transition: end, .. }) = self.pending.take() else { return };
        match end.kind {
            TransitionKind::Failed => {
                if &*end.result == OOM_KILL {
                    let kind = TransitionKind::Oom;
                    emit(Transition { kind, triggered_by: None, ..end.clone() });
                }
                self.failure = Some((Arc::clone(&end.result), end.at));
            }
            // A oneshot unit is never active: a successful end is its recovery.
            _ if &*end.result == "success" => {
                if let Some(failure) = self.take_failure(end.at) {
                    emit(Transition {
                        kind: TransitionKind::Started,
                        result: Arc::default(),
                        recovered_from: Some(failure),
                        ..end.clone()
                    });
                }
            }
            _ => {}
        }
        emit(end);
    }

    /// Handles the unit's unloading: if it was running, it has stopped unobserved. systemd has no
    /// time of that any more, so the event takes the time at which it was observed.
    pub(super) fn unloaded(&mut self, emit: &mut impl FnMut(Transition)) {
        self.release_pending(emit);
        if !self.last.active.has_ended() {
            // The event's id contains the last change, so it is the same after a restart of the
            // agent.
            let at = Stamp { wall_us: 0, ..self.last.changed };
            let stopped = Transition::new(TransitionKind::Stopped, &self.last, at);
            emit(Transition { result: Arc::default(), ..stopped });
        }
    }

    /// Decides about the pending end by a new snapshot: it stays pending, is emitted, or is
    /// returned because it is part of the transition that the snapshot shows. `has_moved`: the
    /// unit started or ended.
    fn resolve_pending(
        &mut self,
        new: &Snapshot,
        has_moved: bool,
        emit: &mut impl FnMut(Transition),
    ) -> Option<PendingEnd> {
        let pending = self.pending.take()?;
        let is_same_state = new.active == self.last.active && !has_moved;
        if is_same_state && !new.awaits_restart {
            self.pending = Some(pending);
            return None;
        }
        if pending.is_between_invocations || (new.awaits_restart && !has_moved) {
            return Some(pending);
        }
        self.pending = Some(pending);
        self.release_pending(emit);
        None
    }

    /// Whether the restart of this number hasn't been emitted yet.
    fn is_unemitted(&self, restart: u32) -> bool {
        self.emitted_restart.is_some_and(|emitted| restart > emitted)
    }

    /// Takes the failure that a start ends: its result, and the time since in nanoseconds.
    fn take_failure(&mut self, start: Stamp) -> Option<(Arc<str>, u64)> {
        let (result, since) = self.failure.take()?;
        Some((result, start.mono_us.saturating_sub(since.mono_us).saturating_mul(1_000)))
    }

    fn started(&mut self, new: &Snapshot, emit: &mut impl FnMut(Transition)) {
        let recovered_from = self.take_failure(new.active_enter);
        let started = Transition::new(TransitionKind::Started, new, new.active_enter);
        emit(Transition { recovered_from, result: Arc::default(), ..started });
    }

    fn ended(
        &mut self,
        new: &Snapshot,
        at: Stamp,
        pending: Option<PendingEnd>,
        emit: &mut impl FnMut(Transition),
    ) {
        let awaited_restart =
            self.last.awaits_restart || pending.is_some_and(|p| p.is_between_invocations);
        let runs_again = self.emitted_restart.is_none() && new.restarts > 0;
        if self.is_unemitted(new.restarts) || (runs_again && !new.active.has_ended()) {
            self.hidden_restart(new, at, emit);
            if !new.active.has_ended() {
                return;
            }
        }
        match new.active {
            State::Failed => self.failed(new, at, awaited_restart),
            State::Inactive => {
                let is_between_invocations =
                    awaited_restart && self.emitted_restart == Some(new.restarts);
                let transition = Transition::new(TransitionKind::Stopped, new, at);
                self.pending = Some(PendingEnd { transition, is_between_invocations });
            }
            // The next invocation's properties have overwritten those of the one that ended.
            _ => emit(Transition {
                result: Arc::default(),
                invocation_id: Arc::clone(&self.last.invocation_id),
                ..Transition::new(TransitionKind::Stopped, new, at)
            }),
        }
    }

    fn failed(&mut self, new: &Snapshot, at: Stamp, awaited_restart: bool) {
        // Failed after waiting for a restart, without an invocation in between: systemd refused
        // the start. The result stays that of the last invocation, unless it is `resources`.
        let is_same_invocation = self.last.invocation_id == new.invocation_id;
        let is_limit_hit = awaited_restart && is_same_invocation && &*new.result != "resources";
        let mut failed = Transition::new(TransitionKind::Failed, new, at);
        failed.exit =
            self.exit(new).or_else(|| is_limit_hit.then_some(new.exit).filter(|e| e.code != 0));
        if is_limit_hit {
            failed.result = START_LIMIT_HIT.into();
        }
        self.pending = Some(PendingEnd { transition: failed, is_between_invocations: false });
    }

    /// Emits a restart, of which the pending end was the first step.
    fn restarting(
        &mut self,
        new: &Snapshot,
        pending: Option<PendingEnd>,
        emit: &mut impl FnMut(Transition),
    ) {
        let mut restarting = Transition::new(TransitionKind::Restarting, new, new.inactive_enter);
        restarting.restarts = Some(new.restart_number());
        restarting.exit = pending.map_or_else(|| self.exit(new), |p| p.transition.exit);
        if &*new.result == OOM_KILL {
            let exit = restarting.exit;
            let oom = Transition::new(TransitionKind::Oom, new, new.inactive_enter);
            emit(Transition { exit, ..oom });
        }
        emit(restarting);
    }

    /// Emits a restart of which only the count is visible: the next invocation's properties have
    /// overwritten those of the one that ended.
    fn hidden_restart(&self, new: &Snapshot, at: Stamp, emit: &mut impl FnMut(Transition)) {
        emit(Transition {
            restarts: Some(new.restarts),
            result: Arc::default(),
            invocation_id: Arc::clone(&self.last.invocation_id),
            ..Transition::new(TransitionKind::Restarting, new, at)
        });
    }

    /// The exit of the main process, unless it belongs to an earlier invocation: a command before
    /// the main process can fail too.
    fn exit(&self, new: &Snapshot) -> Option<Exit> {
        let is_of_this_invocation = new.exit.at_mono_us > self.last.inactive_enter.mono_us;
        (is_of_this_invocation && new.exit.code != 0).then_some(new.exit)
    }
}

#[cfg(test)]
mod tests;
