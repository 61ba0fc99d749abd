//! Units with every kind of failure: each transition is emitted exactly once.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use tapio_collectors::systemd::Config;

use crate::machine::Machine;
use crate::support::json::text;
use crate::support::pipeline::{Pipeline, site};

pub(crate) fn watch(machine: &Machine, state_dir: Option<&std::path::Path>) -> Pipeline {
    let config = Config { address: machine.bus(), ..Config::default() };
    let running = Pipeline::start_at(site(state_dir), "systemd", &config);
    running.wait_until("the snapshot is read", |r| {
        r.counter("units") > 0 && r.site.directory.unit("dbus.service").is_some()
    });
    running
}

/// A unit's events as text, those of its jobs last: kind, result, exit code or signal.
pub(crate) fn of_unit(events: &[Value], unit: &str) -> Vec<String> {
    let of = |jobs: bool| {
        let is_jobs = |e: &&Value| text(e, "kind") == "systemd.job.failed";
        let of = events.iter().filter(|e| text(e, "systemd.unit") == unit);
        of.filter(move |e| is_jobs(e) == jobs)
    };
    of(false)
        .chain(of(true))
        .map(|e| {
            let kind = text(e, "kind");
            let parts = [
                kind.strip_prefix("systemd.").unwrap_or(&kind).to_owned(),
                text(e, "tapio.systemd.result"),
                // A restart job becomes a start job after its stop: the time of the read decides.
                text(e, "tapio.systemd.job.type").replace("restart", "start"),
                text(e, "tapio.systemd.job.result"),
                text(e, "tapio.systemd.dependency"),
                text(e, "process.exit.code"),
                text(e, "tapio.signal.name"),
                text(e, "tapio.systemd.restarts"),
            ];
            parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(" ")
        })
        .collect()
}

/// The expected events of each unit. `CORE` is `core-dump` if the kernel wrote one, else `signal`.
fn expected(mode: &str) -> Vec<(&'static str, Vec<&'static str>)> {
    vec![
        ("exit7.service", vec!["unit.started", "unit.failed exit-code 7"]),
        ("noexec.service", vec!["unit.started", "unit.failed exit-code 203"]),
        ("abrt.service", vec!["unit.started", "unit.failed CORE SIGABRT"]),
        ("segv.service", vec!["unit.started", "unit.failed CORE SIGSEGV"]),
        ("wd.service", vec!["unit.started", "unit.failed watchdog SIGABRT"]),
        ("slowstart.service", vec!["unit.failed timeout SIGTERM", "job.failed start failed"]),
        ("stopslow.service", vec!["unit.started", "unit.failed timeout SIGKILL"]),
        ("exit7dep.service", vec!["unit.failed exit-code 1", "job.failed start failed"]),
        ("needs.service", vec!["job.failed start dependency exit7dep.service"]),
        (
            "bad.service",
            vec![
                "unit.started",
                "unit.restarting exit-code 1 1",
                "unit.started",
                "unit.restarting exit-code 1 2",
                "unit.started",
                "unit.restarting exit-code 1 3",
                "unit.failed start-limit-hit 1",
                "job.failed start failed",
            ],
        ),
        (
            "oomd.service",
            if mode == "unified" {
                vec!["unit.started", "unit.oom oom-kill SIGKILL", "unit.failed oom-kill SIGKILL"]
            } else {
                vec!["unit.started", "unit.failed signal SIGKILL"]
            },
        ),
    ]
}

/// Kills a unit as systemd-oomd does: an attribute on its cgroup, then SIGKILL.
fn kill_as_oomd(machine: &Machine) {
    let control_group = machine.property("oomd.service", "ControlGroup");
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"] {
        let folder = machine.path(&format!("{root}{control_group}")[1..]);
        if folder.join("cgroup.procs").exists() {
            let _ = rustix::fs::setxattr(
                &folder,
                "user.oomd_ooms",
                b"1",
                rustix::fs::XattrFlags::empty(),
            );
        }
    }
    assert!(machine.systemctl(&["kill", "-s", "KILL", "oomd.service"]));
}

fn units_fail(mode: &str) {
    let Some(machine) = Machine::boot(mode) else { return };
    let running = watch(&machine, None);
    let mut expected = expected(mode);
    if mode == "hybrid" {
        // Only there the limit applies: systemd isn't notified of the kernel's OOM kill.
        expected.push(("oom.service", vec!["unit.started", "unit.failed signal SIGKILL"]));
        machine.systemctl(&["start", "--no-block", "oom.service"]);
    }
    assert!(machine.systemctl(&["start", "tick.timer"]));
    for unit in
        ["exit7", "noexec", "abrt", "segv", "wd", "slowstart", "needs", "bad", "stopslow", "oomd"]
    {
        machine.systemctl(&["start", "--no-block", &format!("{unit}.service")]);
    }
    running.wait_for("stopslow and oomd run", |events| {
        let runs = |unit: &str| of_unit(events, unit).first().is_some_and(|e| e == "unit.started");
        runs("stopslow.service") && runs("oomd.service")
    });
    machine.systemctl(&["stop", "--no-block", "stopslow.service"]);
    kill_as_oomd(&machine);
    assert!(machine.systemctl(&["start", "ok.service"]));
    for _ in 0..7 {
        machine.systemctl(&["start", "rapid.service"]);
    }
    running.wait_for("all have failed", |events| {
        expected.iter().all(|(unit, transitions)| of_unit(events, unit).len() >= transitions.len())
    });
    // Duplicates come late.
    std::thread::sleep(Duration::from_millis(500));
    let events = running.events();
    for (unit, transitions) in &expected {
        let core = machine.property(unit, "Result");
        let transitions: Vec<_> = transitions.iter().map(|t| t.replace("CORE", &core)).collect();
        assert_eq!(of_unit(&events, unit), transitions, "{unit} ({mode})");
    }
    running.wait_for("the timer has elapsed twice", |e| of_unit(e, "tick.service").len() >= 2);
    assert!(of_unit(&events, "tick.service").iter().all(|e| e == "unit.stopped success"));
    assert_eq!(of_unit(&events, "tick.timer"), ["unit.started"]);
    let rapid = of_unit(&events, "rapid.service");
    let count = |what: &str| rapid.iter().filter(|e| *e == what).count();
    assert_eq!(count("unit.stopped success"), 5, "{rapid:?}");
    assert_eq!(count("unit.failed start-limit-hit"), 1, "{rapid:?}");
    let ids: HashMap<_, _> = events.iter().map(|e| (text(e, "id"), text(e, "kind"))).collect();
    assert_eq!(ids.len(), events.len(), "every event has an id of its own");
    for event in events.iter().filter(|e| text(e, "kind").starts_with("systemd.unit.")) {
        assert_eq!(text(event, "systemd.invocation_id").len(), 32, "{event}");
    }
    running.end();
}

#[test]
fn every_failure_is_emitted_once_unified() {
    units_fail("unified");
}

#[test]
fn every_failure_is_emitted_once_hybrid() {
    units_fail("hybrid");
}
