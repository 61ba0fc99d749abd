//! Units across lost connections, a hung bus, and restarts of the agent.

use std::collections::HashSet;
use std::time::Duration;

use crate::machine::Machine;
use crate::support::json::text;
use crate::support::pipeline::Pipeline;
use crate::units::{of_unit, watch};

#[test]
fn transitions_during_bus_outage_are_emitted_once() {
    let Some(machine) = Machine::boot("unified") else { return };
    let running = watch(&machine, None);
    assert!(machine.systemctl(&["start", "ok.service"]));
    running.wait_for("ok is emitted", |e| of_unit(e, "ok.service") == ["unit.started"]);
    assert!(machine.systemctl(&["stop", "dbus.socket", "dbus.service"]));
    running.wait_until("the lost connection is reported", |r| {
        r.status().notes.iter().any(|n| n.subject == "bus" && n.state != "ok")
    });
    machine.systemctl(&["start", "exit7.service"]);
    machine.systemctl(&["stop", "ok.service"]);
    machine.systemctl(&["start", "flaky.service"]);
    machine.systemctl(&["restart", "flaky.service"]);
    assert!(machine.systemctl(&["start", "dbus.socket"]));
    running.wait_for("the missed transitions are emitted", |events| {
        of_unit(events, "exit7.service").len() >= 2 && of_unit(events, "flaky.service").len() >= 2
    });
    // Later transitions are emitted too.
    assert!(machine.systemctl(&["start", "ok.service"]));
    running.wait_for("ok is emitted again", |e| of_unit(e, "ok.service").len() >= 3);
    std::thread::sleep(Duration::from_millis(500));
    let events = running.end().events;
    assert_eq!(of_unit(&events, "exit7.service"), ["unit.started", "unit.failed exit-code 7"]);
    // systemd unloads a stopped unit together with its result.
    assert_eq!(of_unit(&events, "ok.service"), ["unit.started", "unit.stopped", "unit.started"]);
    // Two invocations; of the first one only the end is visible.
    assert_eq!(of_unit(&events, "flaky.service"), ["unit.stopped", "unit.started"]);
    assert_eq!(of_unit(&events, "dbus.service").last().unwrap(), "unit.started");
}

#[test]
fn hung_bus_does_not_delay_shutdown() {
    let Some(machine) = Machine::boot("unified") else { return };
    let running = watch(&machine, None);
    assert!(machine.systemctl(&["kill", "-s", "STOP", "dbus.service"]));
    machine.systemctl(&["start", "ok.service"]);
    std::thread::sleep(Duration::from_millis(300));
    assert!(machine.systemctl(&["kill", "-s", "CONT", "dbus.service"]));
    running.wait_for("the collector continues", |e| of_unit(e, "ok.service") == ["unit.started"]);
    // A new connection gets no reply at all, and the collector still ends on shutdown.
    assert!(machine.systemctl(&["kill", "-s", "STOP", "dbus.service"]));
    let hanging = Pipeline::start(
        "systemd",
        &tapio_collectors::systemd::Config { address: machine.bus(), ..Default::default() },
    );
    std::thread::sleep(Duration::from_millis(200));
    let requested = std::time::Instant::now();
    hanging.end();
    running.end();
    assert!(requested.elapsed() < Duration::from_secs(2), "{:?}", requested.elapsed());
    assert!(machine.systemctl(&["kill", "-s", "CONT", "dbus.service"]));
}

#[test]
fn restarted_agent_continues_at_cursor() {
    let Some(machine) = Machine::boot("unified") else { return };
    let state = tempfile::tempdir().unwrap();
    let running = watch(&machine, Some(state.path()));
    assert!(machine.systemctl(&["start", "ok.service"]));
    machine.systemctl(&["start", "exit7.service"]);
    running.wait_for("all transitions are emitted", |events| {
        of_unit(events, "ok.service").len() == 1 && of_unit(events, "exit7.service").len() == 2
    });
    // Wait for the cursor.
    let saved =
        || std::fs::read_to_string(state.path().join("cursors/systemd")).unwrap_or_default();
    let before = saved();
    running.wait_until("the cursor is saved", |_| saved() != before || !before.is_empty());
    std::thread::sleep(Duration::from_millis(500));
    let mut events = running.end().events;

    machine.systemctl(&["stop", "ok.service"]);
    machine.systemctl(&["start", "exit7.service"]);
    std::thread::sleep(Duration::from_millis(100));
    let running = watch(&machine, Some(state.path()));
    running.wait_for("the missed transitions are emitted", |events| {
        !of_unit(events, "ok.service").is_empty() && of_unit(events, "exit7.service").len() >= 2
    });
    std::thread::sleep(Duration::from_millis(500));
    let more = running.end().events;
    assert_eq!(of_unit(&more, "ok.service"), ["unit.stopped"]);
    assert_eq!(of_unit(&more, "exit7.service"), ["unit.started", "unit.failed exit-code 7"]);
    events.extend(more);
    let ids: HashSet<_> = events.iter().map(|e| text(e, "id")).collect();
    assert_eq!(ids.len(), events.len());
}

#[test]
fn reloads_recoveries_and_timer_failures_are_emitted() {
    let Some(machine) = Machine::boot("unified") else { return };
    let running = watch(&machine, None);
    assert!(machine.systemctl(&["start", "ok.service"]));
    assert!(machine.systemctl(&["reload", "ok.service"]));
    assert!(machine.systemctl(&["daemon-reload"]));
    assert!(machine.run(&["touch", "/run/broken"]).0);
    machine.systemctl(&["start", "flaky.service"]);
    running.wait_for("flaky fails", |e| of_unit(e, "flaky.service").len() >= 2);
    assert!(machine.run(&["rm", "/run/broken"]).0);
    assert!(machine.systemctl(&["start", "flaky.service"]));
    let timed = [
        "systemd-run",
        "--unit=timed",
        "--on-active=300ms",
        "--timer-property=AccuracySec=10ms",
        "/bin/false",
    ];
    assert!(machine.run(&timed).0);
    running.wait_for("all transitions are emitted", |events| {
        of_unit(events, "flaky.service").len() >= 3
            && of_unit(events, "timed.service").iter().any(|e| e.starts_with("unit.failed"))
    });
    std::thread::sleep(Duration::from_millis(500));
    let directory = std::sync::Arc::clone(&running.site.directory);
    let events = running.end().events;
    assert_eq!(of_unit(&events, "ok.service"), ["unit.started", "unit.reloaded success"]);
    let find = |unit: &str, kind: &str| {
        let found =
            |e: &&serde_json::Value| text(e, "systemd.unit") == unit && text(e, "kind") == kind;
        events.iter().rfind(found).unwrap_or_else(|| panic!("{unit} {kind}"))
    };
    let back = find("flaky.service", "systemd.unit.started");
    assert_eq!(text(back, "tapio.systemd.previous_result"), "exit-code");
    assert!(text(back, "tapio.systemd.down_ns").parse::<u64>().unwrap() > 1_000_000);
    let failed = find("timed.service", "systemd.unit.failed");
    assert_eq!(text(failed, "tapio.systemd.triggered_by"), "timed.timer");
    let unit = directory.unit("flaky.service").unwrap();
    assert_eq!(&*unit.invocation_id, machine.property("flaky.service", "InvocationID"));
    assert_eq!(&*unit.control_group, machine.property("flaky.service", "ControlGroup"));
}
