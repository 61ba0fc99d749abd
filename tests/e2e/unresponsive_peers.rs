//! Peers that hang for longer than a collector waits for a response: the collector disconnects,
//! reports it, and reconnects (`tests/isolation.rs` has the short hangs).

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::fault_injection::FaultTest;
use crate::runtime::{Containerd, is_runtime_available};
use crate::systemd_machine::Machine;

/// Longer than the interval of health checks of a silent runtime plus the time limit of a response.
const LONG: Duration = Duration::from_secs(75);

#[test]
fn unresponsive_bus_and_runtime_are_disconnected_and_reconnected() {
    if !crate::cluster::is_enabled() {
        println!("skipped: waits for over a minute; `make test-e2e` runs it");
        return;
    }
    if !is_runtime_available() {
        return;
    }
    let Some(machine) = Machine::boot("unified") else { return };
    let mut containerd = Containerd::new(&["default"]);
    containerd.start();
    let socket = format!("sockets: [{:?}]", containerd.socket());
    let Some(mut of_runtime) = FaultTest::begin("container", &socket) else { return };
    let bus = format!("address: {:?}", machine.bus());
    let Some(mut of_bus) = FaultTest::begin("systemd", &bus) else { return };
    let mut n = 0;
    let mut run = || {
        n += 1;
        containerd.run("default", &["--rm"], &format!("c{n}"), "exit 0");
    };
    let mut start = || {
        machine.run(&["systemd-run", "--quiet", "/bin/true"]);
    };
    of_runtime.emits(&mut run);
    of_bus.emits(&mut start);
    let connections = [of_runtime.counter("connections"), of_bus.counter("connections")];
    let pid = Pid::from_raw(containerd.pid().unwrap() as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    assert!(machine.systemctl(&["kill", "-s", "STOP", "dbus.service"]));
    // Neither collector is `hung` meanwhile.
    let begin = Instant::now();
    of_runtime.wait_until("time passes", |o| o.health() != "running" || begin.elapsed() > LONG / 2);
    of_bus.wait_until("time passes", |o| o.health() != "running" || begin.elapsed() > LONG);
    of_runtime.wait_until("the status names it", |o| !o.note("runtime").ends_with("containerd"));
    of_bus.wait_until("the status names it", |o| o.note("bus") != "ok");
    println!("runtime: {}; bus: {}", of_runtime.note("runtime"), of_bus.note("bus"));
    assert_eq!([of_runtime.health(), of_bus.health()], ["running", "running"]);
    assert!(machine.systemctl(&["kill", "-s", "CONT", "dbus.service"]));
    kill_process(pid, Signal::CONT).unwrap();
    of_runtime
        .wait_until("the collector reconnects", |o| o.counter("connections") > connections[0]);
    of_bus.wait_until("the collector reconnects", |o| o.counter("connections") > connections[1]);
    of_runtime.emits(&mut run);
    of_bus.emits(&mut start);
    of_runtime.end();
    of_bus.end();
}
