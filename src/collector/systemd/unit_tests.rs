use super::*;
use proptest::prelude::*;

fn at(mono_us: u64) -> Stamp {
    Stamp { mono_us, wall_us: 1_000_000_000 + mono_us }
}

fn see_held(unit: &mut Unit, snapshot: &Snapshot) -> Vec<Told> {
    let mut out = Vec::new();
    unit.see(snapshot, &mut |told| out.push(told));
    out
}

/// Sees a snapshot behind which nothing comes.
fn see(unit: &mut Unit, snapshot: &Snapshot) -> Vec<Told> {
    let mut out = see_held(unit, snapshot);
    unit.release(&mut |told| out.push(told));
    out
}

fn whats(told: &[Told]) -> Vec<What> {
    told.iter().map(|t| t.what).collect()
}

/// A unit's life as systemd would tell of it: each step changes what it changes there.
#[derive(Clone, Debug, Default)]
struct Life(Snapshot);

impl Life {
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
        self.0.waits_to_restart = false;
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

    /// As `end` with `Restart=`: through the ended state into waiting.
    fn end_and_wait(&mut self, result: &str, code: i32, status: i32, now: u64) {
        self.end(result, code, status, now);
        self.enter(State::Activating, now);
        self.0.waits_to_restart = true;
    }

    fn restart(&mut self, now: u64) {
        self.0.restarts += 1;
        self.start(now);
    }
}

fn running() -> (Life, Unit) {
    let (mut life, mut unit) = (Life::default(), Unit::since(10));
    life.start(20);
    assert_eq!(whats(&see(&mut unit, &life.0)), [What::Started]);
    (life, unit)
}

#[test]
fn a_failure_says_how() {
    let (mut life, mut unit) = running();
    life.0.trigger = "tick.timer".into();
    life.end("exit-code", 1, 7, 30);
    let told = see(&mut unit, &life.0);
    assert_eq!(whats(&told), [What::Failed]);
    assert_eq!((&*told[0].result, told[0].at), ("exit-code", at(30)));
    assert_eq!(told[0].exit, Some(Exit { code: 1, status: 7, at_mono_us: 30 }));
    assert_eq!(told[0].triggered_by.as_deref(), Some("tick.timer"));
    assert_eq!(see(&mut unit, &life.0), [], "a duplicate");

    life.start(1_030);
    let told = see(&mut unit, &life.0);
    assert_eq!(whats(&told), [What::Started]);
    assert_eq!(told[0].comes_back_from, Some(("exit-code".into(), 1_001_000)));
    life.end("success", 1, 0, 2_000);
    assert_eq!(whats(&see(&mut unit, &life.0)), [What::Stopped]);
}

#[test]
fn what_was_so_before_is_no_news_and_still_remembered() {
    let mut life = Life::default();
    life.start(1);
    life.end("signal", 2, 9, 5);
    let mut unit = Unit::since(10);
    assert_eq!(see(&mut unit, &life.0), []);
    life.start(20);
    let told = see(&mut unit, &life.0);
    assert_eq!(told[0].comes_back_from, Some(("signal".into(), 16_000)));
}

#[test]
fn a_restart_limit_is_told_as_such() {
    // What Restart=on-failure does at its limit: the result stays that of the last run.
    let (mut life, mut unit) = running();
    for n in 1..3u64 {
        life.end_and_wait("exit-code", 1, 1, n * 100);
        let told = see(&mut unit, &life.0);
        assert_eq!((whats(&told), told[0].restarts), (vec![What::Restarting], Some(n as u32)));
        life.restart(n * 100 + 50);
        let told = see(&mut unit, &life.0);
        assert_eq!(whats(&told), [What::Started]);
        assert_eq!(told[0].comes_back_from, None, "it hasn't come back: it loops");
    }
    life.end_and_wait("exit-code", 1, 1, 300);
    assert_eq!(whats(&see(&mut unit, &life.0)), [What::Restarting]);
    life.0.restarts += 1;
    life.enter(State::Failed, 350);
    let told = see(&mut unit, &life.0);
    assert_eq!((whats(&told), &*told[0].result), (vec![What::Failed], "start-limit-hit"));
    assert_eq!(told[0].exit.map(|e| e.status), Some(1), "why it was restarted");
}

/// The states that systemd 252's signals show of `Restart=on-failure` with a limit of two.
#[test]
fn a_restart_as_signals_show_it() {
    let (mut life, mut unit) = running();
    let mut told = Vec::new();
    let mut see = |life: &Life| told.extend(see_held(&mut unit, &life.0));
    life.end("exit-code", 1, 1, 100);
    see(&life);
    see(&life);
    life.enter(State::Activating, 101);
    life.0.waits_to_restart = true;
    see(&life);
    life.0.restarts = 1;
    life.0.restart_is_queued = true;
    see(&life);
    life.0.result = "success".into();
    life.0.exit = Exit::default();
    life.enter(State::Inactive, 200);
    see(&life);
    life.start(210);
    see(&life);
    life.end("exit-code", 1, 1, 300);
    see(&life);
    life.enter(State::Activating, 301);
    life.0.waits_to_restart = true;
    see(&life);
    life.0.restarts = 2;
    life.0.restart_is_queued = true;
    see(&life);
    life.enter(State::Inactive, 400);
    see(&life);
    life.enter(State::Failed, 401);
    see(&life);
    unit.release(&mut |t| told.push(t));
    let short: Vec<_> = told.iter().map(|t| (t.what, &*t.result, t.at.mono_us)).collect();
    assert_eq!(
        short,
        [
            (What::Restarting, "exit-code", 100),
            (What::Started, "", 211),
            (What::Restarting, "exit-code", 300),
            (What::Failed, "start-limit-hit", 401),
        ]
    );
    assert!(told.iter().all(|t| t.what == What::Started || t.exit.is_some_and(|e| e.status == 1)));
    assert_eq!((told[0].restarts, told[2].restarts), (Some(1), Some(2)));
}

#[test]
fn a_unit_stopped_while_it_waits_has_stopped() {
    let (mut life, mut unit) = running();
    life.end_and_wait("exit-code", 1, 1, 100);
    assert_eq!(whats(&see(&mut unit, &life.0)), [What::Restarting]);
    life.enter(State::Inactive, 200);
    assert_eq!(see_held(&mut unit, &life.0), []);
    assert_eq!(unit.holds(), Some(Hold::Briefly));
    assert_eq!(
        whats(&see(&mut unit, &{
            life.enter(State::Inactive, 201);
            life.0.clone()
        })),
        [What::Stopped]
    );
}

#[test]
fn a_refused_start_is_told_once() {
    let mut unit = Unit::since(10);
    let mut life = Life::default();
    assert_eq!(see(&mut unit, &life.0), []);
    life.0.result = "start-limit-hit".into();
    life.enter(State::Failed, 20);
    assert_eq!(whats(&see(&mut unit, &life.0)), [What::Failed]);
    life.0.changed = at(25);
    assert_eq!(see(&mut unit, &life.0), []);
}

#[test]
fn what_a_gap_hid_is_told_once() {
    // A restart that nobody saw waiting.
    let (mut life, mut unit) = running();
    life.end_and_wait("exit-code", 1, 1, 100);
    life.restart(150);
    let told = see(&mut unit, &life.0);
    assert_eq!(whats(&told), [What::Restarting, What::Started]);
    assert_eq!((&*told[0].result, told[0].exit, told[0].restarts), ("", None, Some(1)));
    // The same for an agent that was away.
    let told = see(&mut Unit::since(60), &life.0);
    assert_eq!(whats(&told), [What::Restarting, What::Started]);
    // Stopped and started by hand.
    life.end("success", 1, 0, 200);
    life.start(250);
    assert_eq!(whats(&see(&mut unit, &life.0)), [What::Stopped, What::Started]);
    // Started and failed.
    let mut unit = Unit::since(240);
    life.end("core-dump", 3, 6, 300);
    assert_eq!(whats(&see(&mut unit, &life.0)), [What::Started, What::Failed]);
    // Restarted unseen and given up.
    life.restart(400);
    life.end("exit-code", 1, 1, 450);
    let told = whats(&see(&mut unit, &life.0));
    assert_eq!(told, [What::Started, What::Restarting, What::Failed]);
}

#[test]
fn memory_reload_and_jobs() {
    let (mut life, mut unit) = running();
    life.enter(State::Reloading, 30);
    assert_eq!(see(&mut unit, &life.0), []);
    life.0.reload_result = "success".into();
    life.enter(State::Active, 31);
    assert_eq!(whats(&see(&mut unit, &life.0)), [What::Reloaded]);
    life.end("oom-kill", 2, 9, 40);
    assert_eq!(whats(&see(&mut unit, &life.0)), [What::Oom, What::Failed]);
    // A oneshot that works again is never active.
    life.enter(State::Activating, 50);
    life.end("success", 1, 0, 60);
    let told = see(&mut unit, &life.0);
    assert_eq!(whats(&told), [What::Started, What::Stopped]);
    assert_eq!(told[0].comes_back_from, Some(("oom-kill".into(), 20_000)));
    life.enter(State::Activating, 70);
    life.end("success", 1, 0, 80);
    assert_eq!(whats(&see(&mut unit, &life.0)), [What::Stopped]);
}

#[test]
fn an_exit_of_an_earlier_run_is_not_this_ones() {
    let (mut life, mut unit) = running();
    life.end("exit-code", 1, 7, 30);
    see(&mut unit, &life.0);
    // ExecStartPre= fails: the main process never ran.
    life.enter(State::Activating, 40);
    life.enter(State::Failed, 50);
    let told = see(&mut unit, &life.0);
    assert_eq!((whats(&told), told[0].exit), (vec![What::Failed], None));
}

#[test]
fn a_unit_that_vanished_has_stopped() {
    let (life, mut unit) = running();
    let mut out = Vec::new();
    unit.vanished(77, &mut |told| out.push(told));
    assert_eq!(whats(&out), [What::Stopped]);
    assert_eq!(out[0].at, Stamp { wall_us: 77, ..life.0.changed });
    Unit::since(1).vanished(77, &mut |_| panic!("it never ran"));
}

#[derive(Clone, Debug)]
enum Step {
    Start,
    End(&'static str),
    EndAndWait,
    Restart,
    Reload,
}

fn steps() -> impl Strategy<Value = Vec<(Step, bool)>> {
    let step = prop_oneof![
        Just(Step::Start),
        Just(Step::End("success")),
        Just(Step::End("exit-code")),
        Just(Step::EndAndWait),
        Just(Step::Restart),
        Just(Step::Reload),
    ];
    prop::collection::vec((step, any::<bool>()), 1..40)
}

/// Makes a step where systemd could; returns what is to be told of it.
fn live(life: &mut Life, step: &Step, now: u64) -> Vec<What> {
    let runs = life.0.active == State::Active;
    match step {
        Step::Start if life.0.active.has_ended() => {
            life.0.restarts = 0;
            life.start(now);
            vec![What::Started]
        }
        Step::End(result) if runs => {
            life.end(result, 1, 1, now);
            vec![if *result == "success" { What::Stopped } else { What::Failed }]
        }
        Step::EndAndWait if runs => {
            life.end_and_wait("exit-code", 1, 1, now);
            vec![What::Restarting]
        }
        Step::Restart if life.0.waits_to_restart => {
            life.restart(now);
            vec![What::Started]
        }
        Step::Reload if runs => {
            life.enter(State::Reloading, now);
            vec![]
        }
        Step::Reload if life.0.active == State::Reloading => {
            life.enter(State::Active, now);
            vec![What::Reloaded]
        }
        _ => vec![],
    }
}

proptest! {
    /// However often a snapshot comes, and whatever overtakes it, each transition is told once.
    #[test]
    fn every_transition_is_told_once(steps in steps()) {
        let (mut life, mut unit) = (Life::default(), Unit::since(10));
        let (mut expected, mut got) = (Vec::new(), Vec::new());
        let mut before = life.0.clone();
        for (n, (step, held)) in steps.iter().enumerate() {
            expected.extend(live(&mut life, step, 100 + n as u64 * 10));
            for _ in 0..2 {
                let look = if *held { see_held } else { see };
                got.extend(whats(&look(&mut unit, &life.0)));
                // An answer that was under way for long.
                got.extend(whats(&look(&mut unit, &before)));
            }
            before = life.0.clone();
        }
        unit.release(&mut |told| got.push(told.what));
        prop_assert_eq!(got, expected);
    }

    /// With gaps, what is told is what the last state can still say, and never twice.
    #[test]
    fn gaps_never_double(steps in steps(), baseline in 0..500u64) {
        let (mut life, mut unit) = (Life::default(), Unit::since(baseline));
        let mut told = Vec::new();
        let mut lived = Vec::new();
        for (n, (step, shown)) in steps.iter().enumerate() {
            lived.extend(live(&mut life, step, 100 + n as u64 * 10));
            if *shown {
                told.extend(see(&mut unit, &life.0));
            }
        }
        told.extend(see(&mut unit, &life.0));
        let mut ids: Vec<_> = told.iter().map(|t| (t.what as u8, t.at.mono_us)).collect();
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len(), told.len(), "{:?}", told);
        for what in [What::Started, What::Failed, What::Reloaded] {
            let count = |all: &[What]| all.iter().filter(|w| **w == what).count();
            prop_assert!(count(&whats(&told)) <= count(&lived), "{what:?} {told:?}");
        }
        prop_assert!(told.iter().all(|t| t.at.mono_us > baseline));
    }
}
