use super::*;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

fn at(mono_us: u64) -> Stamp {
    Stamp { mono_us, wall_us: 1_000_000_000 + mono_us }
}

fn apply_only(unit: &mut Unit, snapshot: &Snapshot) -> Vec<Transition> {
    let mut out = Vec::new();
    unit.apply(snapshot, &mut |transitions| out.push(transitions));
    out
}

/// Applies a snapshot that no other one follows.
fn apply(unit: &mut Unit, snapshot: &Snapshot) -> Vec<Transition> {
    let mut out = apply_only(unit, snapshot);
    unit.release_pending(&mut |transitions| out.push(transitions));
    out
}

fn kinds(transitions: &[Transition]) -> Vec<TransitionKind> {
    transitions.iter().map(|t| t.kind).collect()
}

/// A unit as systemd runs it: each step changes the properties that systemd would change.
#[derive(Clone, Debug, Default)]
struct SimulatedUnit(Snapshot);

impl SimulatedUnit {
    fn enter(&mut self, active: State, now: u64) {
        let up = |a| matches!(a, State::Active | State::Reloading);
        if up(active) && !up(self.0.active) {
            self.0.active_enter = at(now);
        }
        if active.has_ended() && !self.0.active.has_ended() {
            self.0.inactive_enter = at(now);
        }
        self.0.active = active;
        self.0.changed = at(now);
        self.0.awaits_restart = false;
        self.0.restart_is_queued = false;
    }

    fn start(&mut self, now: u64) {
        self.0.invocation_id = format!("{now:032x}").into();
        self.0.result = "success".into();
        self.0.exit = Exit::default();
        self.enter(State::Activating, now);
        self.enter(State::Active, now + 1);
    }

    fn end(&mut self, result: &str, code: i32, status: i32, now: u64) {
        self.0.result = result.into();
        self.0.exit = Exit { code, status, at_mono_us: now };
        self.enter(if result == "success" { State::Inactive } else { State::Failed }, now);
    }

    /// As `end` with `Restart=`: through the ended state to `auto-restart`.
    fn end_and_await_restart(&mut self, result: &str, code: i32, status: i32, now: u64) {
        self.end(result, code, status, now);
        self.enter(State::Activating, now);
        self.0.awaits_restart = true;
    }

    fn restart(&mut self, now: u64) {
        self.0.restarts += 1;
        self.start(now);
    }
}

fn running() -> (SimulatedUnit, Unit) {
    let (mut sim, mut unit) = (SimulatedUnit::default(), Unit::since(10));
    sim.start(20);
    assert_eq!(kinds(&apply(&mut unit, &sim.0)), [TransitionKind::Started]);
    (sim, unit)
}

#[test]
fn failure_has_result_exit_and_trigger() {
    let (mut sim, mut unit) = running();
    sim.0.trigger = "tick.timer".into();
    sim.end("exit-code", 1, 7, 30);
    let transitions = apply(&mut unit, &sim.0);
    assert_eq!(kinds(&transitions), [TransitionKind::Failed]);
    assert_eq!((&*transitions[0].result, transitions[0].at), ("exit-code", at(30)));
    assert_eq!(transitions[0].exit, Some(Exit { code: 1, status: 7, at_mono_us: 30 }));
    assert_eq!(transitions[0].triggered_by.as_deref(), Some("tick.timer"));
    assert_eq!(apply(&mut unit, &sim.0), [], "a duplicate");

    sim.start(1_030);
    let transitions = apply(&mut unit, &sim.0);
    assert_eq!(kinds(&transitions), [TransitionKind::Started]);
    assert_eq!(transitions[0].recovered_from, Some(("exit-code".into(), 1_001_000)));
    sim.end("success", 1, 0, 2_000);
    assert_eq!(kinds(&apply(&mut unit, &sim.0)), [TransitionKind::Stopped]);
}

#[test]
fn failure_before_baseline_is_not_emitted_but_ends_with_recovery() {
    let mut sim = SimulatedUnit::default();
    sim.start(1);
    sim.end("signal", 2, 9, 5);
    let mut unit = Unit::since(10);
    assert_eq!(apply(&mut unit, &sim.0), []);
    sim.start(20);
    let transitions = apply(&mut unit, &sim.0);
    assert_eq!(transitions[0].recovered_from, Some(("signal".into(), 16_000)));
}

#[test]
fn start_limit_is_emitted_as_result() {
    // Restart=on-failure at its limit: the result stays that of the last invocation.
    let (mut sim, mut unit) = running();
    for n in 1..3u64 {
        sim.end_and_await_restart("exit-code", 1, 1, n * 100);
        let transitions = apply(&mut unit, &sim.0);
        assert_eq!(
            (kinds(&transitions), transitions[0].restarts),
            (vec![TransitionKind::Restarting], Some(n as u32))
        );
        sim.restart(n * 100 + 50);
        let transitions = apply(&mut unit, &sim.0);
        assert_eq!(kinds(&transitions), [TransitionKind::Started]);
        assert_eq!(transitions[0].recovered_from, None, "a restart is no recovery");
    }
    sim.end_and_await_restart("exit-code", 1, 1, 300);
    assert_eq!(kinds(&apply(&mut unit, &sim.0)), [TransitionKind::Restarting]);
    sim.0.restarts += 1;
    sim.enter(State::Failed, 350);
    let transitions = apply(&mut unit, &sim.0);
    assert_eq!(
        (kinds(&transitions), &*transitions[0].result),
        (vec![TransitionKind::Failed], "start-limit-hit")
    );
    assert_eq!(transitions[0].exit.map(|e| e.status), Some(1), "the exit that led to the restart");
}

/// The states in the signals of systemd 252, for `Restart=on-failure` with a limit of two.
#[test]
fn restart_is_derived_from_its_sequence_of_signals() {
    let (mut sim, mut unit) = running();
    let mut transitions = Vec::new();
    let mut apply = |sim: &SimulatedUnit| transitions.extend(apply_only(&mut unit, &sim.0));
    sim.end("exit-code", 1, 1, 100);
    apply(&sim);
    apply(&sim);
    sim.enter(State::Activating, 101);
    sim.0.awaits_restart = true;
    apply(&sim);
    sim.0.restarts = 1;
    sim.0.restart_is_queued = true;
    apply(&sim);
    sim.0.result = "success".into();
    sim.0.exit = Exit::default();
    sim.enter(State::Inactive, 200);
    apply(&sim);
    sim.start(210);
    apply(&sim);
    sim.end("exit-code", 1, 1, 300);
    apply(&sim);
    sim.enter(State::Activating, 301);
    sim.0.awaits_restart = true;
    apply(&sim);
    sim.0.restarts = 2;
    sim.0.restart_is_queued = true;
    apply(&sim);
    sim.enter(State::Inactive, 400);
    apply(&sim);
    sim.enter(State::Failed, 401);
    apply(&sim);
    unit.release_pending(&mut |t| transitions.push(t));
    let short: Vec<_> = transitions.iter().map(|t| (t.kind, &*t.result, t.at.mono_us)).collect();
    assert_eq!(
        short,
        [
            (TransitionKind::Restarting, "exit-code", 100),
            (TransitionKind::Started, "", 211),
            (TransitionKind::Restarting, "exit-code", 300),
            (TransitionKind::Failed, "start-limit-hit", 401),
        ]
    );
    assert!(
        transitions
            .iter()
            .all(|t| t.kind == TransitionKind::Started || t.exit.is_some_and(|e| e.status == 1))
    );
    assert_eq!((transitions[0].restarts, transitions[2].restarts), (Some(1), Some(2)));
}

#[test]
fn unit_stopped_while_awaiting_restart_has_stopped() {
    let (mut sim, mut unit) = running();
    sim.end_and_await_restart("exit-code", 1, 1, 100);
    assert_eq!(kinds(&apply(&mut unit, &sim.0)), [TransitionKind::Restarting]);
    sim.enter(State::Inactive, 200);
    assert_eq!(apply_only(&mut unit, &sim.0), []);
    assert_eq!(unit.pending_for(), Some(PendingFor::NextSignal));
    assert_eq!(
        kinds(&apply(&mut unit, &{
            sim.enter(State::Inactive, 201);
            sim.0.clone()
        })),
        [TransitionKind::Stopped]
    );
}

#[test]
fn refused_start_is_emitted_once() {
    let mut unit = Unit::since(10);
    let mut sim = SimulatedUnit::default();
    assert_eq!(apply(&mut unit, &sim.0), []);
    sim.0.result = "start-limit-hit".into();
    sim.enter(State::Failed, 20);
    assert_eq!(kinds(&apply(&mut unit, &sim.0)), [TransitionKind::Failed]);
    sim.0.changed = at(25);
    assert_eq!(apply(&mut unit, &sim.0), []);
}

#[test]
fn transitions_hidden_by_gap_are_emitted_once() {
    // A restart without a snapshot in `auto-restart`.
    let (mut sim, mut unit) = running();
    sim.end_and_await_restart("exit-code", 1, 1, 100);
    sim.restart(150);
    let transitions = apply(&mut unit, &sim.0);
    assert_eq!(kinds(&transitions), [TransitionKind::Restarting, TransitionKind::Started]);
    assert_eq!(
        (&*transitions[0].result, transitions[0].exit, transitions[0].restarts),
        ("", None, Some(1))
    );
    // The same after the agent's absence.
    let transitions = apply(&mut Unit::since(60), &sim.0);
    assert_eq!(kinds(&transitions), [TransitionKind::Restarting, TransitionKind::Started]);
    // Stopped and started manually.
    sim.end("success", 1, 0, 200);
    sim.start(250);
    assert_eq!(
        kinds(&apply(&mut unit, &sim.0)),
        [TransitionKind::Stopped, TransitionKind::Started]
    );
    // Started and failed.
    let mut unit = Unit::since(240);
    sim.end("core-dump", 3, 6, 300);
    assert_eq!(kinds(&apply(&mut unit, &sim.0)), [TransitionKind::Started, TransitionKind::Failed]);
    // Restarted within the gap, then failed and was not restarted.
    sim.restart(400);
    sim.end("exit-code", 1, 1, 450);
    let transitions = kinds(&apply(&mut unit, &sim.0));
    assert_eq!(
        transitions,
        [TransitionKind::Started, TransitionKind::Restarting, TransitionKind::Failed]
    );
}

#[test]
fn reloads_oom_kills_and_oneshot_units_are_emitted() {
    let (mut sim, mut unit) = running();
    sim.enter(State::Reloading, 30);
    assert_eq!(apply(&mut unit, &sim.0), []);
    sim.0.reload_result = "success".into();
    sim.enter(State::Active, 31);
    assert_eq!(kinds(&apply(&mut unit, &sim.0)), [TransitionKind::Reloaded]);
    sim.end("oom-kill", 2, 9, 40);
    assert_eq!(kinds(&apply(&mut unit, &sim.0)), [TransitionKind::Oom, TransitionKind::Failed]);
    // A oneshot unit that recovers is never active.
    sim.enter(State::Activating, 50);
    sim.end("success", 1, 0, 60);
    let transitions = apply(&mut unit, &sim.0);
    assert_eq!(kinds(&transitions), [TransitionKind::Started, TransitionKind::Stopped]);
    assert_eq!(transitions[0].recovered_from, Some(("oom-kill".into(), 20_000)));
    sim.enter(State::Activating, 70);
    sim.end("success", 1, 0, 80);
    assert_eq!(kinds(&apply(&mut unit, &sim.0)), [TransitionKind::Stopped]);
}

#[test]
fn exit_of_earlier_invocation_is_omitted() {
    let (mut sim, mut unit) = running();
    sim.end("exit-code", 1, 7, 30);
    apply(&mut unit, &sim.0);
    // ExecStartPre= fails: the main process doesn't run.
    sim.enter(State::Activating, 40);
    sim.enter(State::Failed, 50);
    let transitions = apply(&mut unit, &sim.0);
    assert_eq!((kinds(&transitions), transitions[0].exit), (vec![TransitionKind::Failed], None));
}

#[test]
fn unloaded_unit_has_stopped() {
    let (sim, mut unit) = running();
    let mut out = Vec::new();
    unit.unloaded(&mut |transitions| out.push(transitions));
    assert_eq!(kinds(&out), [TransitionKind::Stopped]);
    assert_eq!(out[0].at, Stamp { wall_us: 0, ..sim.0.changed });
    Unit::since(1).unloaded(&mut |_| panic!("it never ran"));
}

#[derive(Clone, Debug)]
enum Step {
    Start,
    End(&'static str),
    EndAndAwaitRestart,
    Restart,
    Reload,
}

fn steps() -> impl Strategy<Value = Vec<(Step, bool)>> {
    let step = prop_oneof![
        Just(Step::Start),
        Just(Step::End("success")),
        Just(Step::End("exit-code")),
        Just(Step::EndAndAwaitRestart),
        Just(Step::Restart),
        Just(Step::Reload),
    ];
    prop::collection::vec((step, any::<bool>()), 1..40)
}

/// Makes a step if systemd could; returns the expected transitions.
fn simulate(sim: &mut SimulatedUnit, step: &Step, now: u64) -> Vec<TransitionKind> {
    let runs = sim.0.active == State::Active;
    match step {
        Step::Start if sim.0.active.has_ended() => {
            sim.0.restarts = 0;
            sim.start(now);
            vec![TransitionKind::Started]
        }
        Step::End(result) if runs => {
            sim.end(result, 1, 1, now);
            vec![if *result == "success" {
                TransitionKind::Stopped
            } else {
                TransitionKind::Failed
            }]
        }
        Step::EndAndAwaitRestart if runs => {
            sim.end_and_await_restart("exit-code", 1, 1, now);
            vec![TransitionKind::Restarting]
        }
        Step::Restart if sim.0.awaits_restart => {
            sim.restart(now);
            vec![TransitionKind::Started]
        }
        Step::Reload if runs => {
            sim.enter(State::Reloading, now);
            vec![]
        }
        Step::Reload if sim.0.active == State::Reloading => {
            sim.enter(State::Active, now);
            vec![TransitionKind::Reloaded]
        }
        _ => vec![],
    }
}

/// Saved failure cases. proptest's default location is beside the crate's folder, outside of it.
const REGRESSIONS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/systemd/unit/tests.txt");

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        ..ProptestConfig::default()
    })]

    /// However often a snapshot arrives, and whichever one overtakes it, each transition is emitted
    /// once.
    #[test]
    fn every_transition_is_emitted_once(steps in steps()) {
        let (mut sim, mut unit) = (SimulatedUnit::default(), Unit::since(10));
        let (mut expected, mut got) = (Vec::new(), Vec::new());
        let mut before = sim.0.clone();
        for (n, (step, keep_pending)) in steps.iter().enumerate() {
            expected.extend(simulate(&mut sim, step, 100 + n as u64 * 10));
            for _ in 0..2 {
                let apply = if *keep_pending { apply_only } else { apply };
                got.extend(kinds(&apply(&mut unit, &sim.0)));
                // A reply that a signal has overtaken.
                got.extend(kinds(&apply(&mut unit, &before)));
            }
            before = sim.0.clone();
        }
        unit.release_pending(&mut |transitions| got.push(transitions.kind));
        prop_assert_eq!(got, expected);
    }

    /// With gaps, the transitions are those that the last state still shows, and none is emitted
    /// twice.
    #[test]
    fn gaps_never_duplicate_transitions(steps in steps(), baseline in 0..500u64) {
        let (mut sim, mut unit) = (SimulatedUnit::default(), Unit::since(baseline));
        let mut transitions = Vec::new();
        let mut expected = Vec::new();
        for (n, (step, has_snapshot)) in steps.iter().enumerate() {
            expected.extend(simulate(&mut sim, step, 100 + n as u64 * 10));
            if *has_snapshot {
                transitions.extend(apply(&mut unit, &sim.0));
            }
        }
        transitions.extend(apply(&mut unit, &sim.0));
        let mut ids: Vec<_> = transitions.iter().map(|t| (t.kind as u8, t.at.mono_us)).collect();
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len(), transitions.len(), "{:?}", transitions);
        for kind in [TransitionKind::Started, TransitionKind::Failed, TransitionKind::Reloaded] {
            let count = |all: &[TransitionKind]| all.iter().filter(|k| **k == kind).count();
            prop_assert!(count(&kinds(&transitions)) <= count(&expected), "{kind:?} {transitions:?}");
        }
        prop_assert!(transitions.iter().all(|t| t.at.mono_us > baseline));
    }
}
