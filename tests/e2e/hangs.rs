//! Counterparts that hang for longer than a collector waits for an answer: they are left, said to be away, and found
//! again (`tests/isolation.rs` has the short hangs).

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::booted::Machine;
use crate::ordeal::Ordeal;
use crate::runtime::{Containerd, is_runtime_available};

/// Longer than the time between two looks at a runtime nothing is heard of, and an answer's.
const LONG: Duration = Duration::from_secs(75);

#[test]
fn a_bus_and_a_runtime_that_hang_for_long_are_left_and_found_again() {
    if !is_runtime_available() {
        return;
    }
    let Some(machine) = Machine::boot("unified") else { return };
    let mut containerd = Containerd::new(&["default"]);
    containerd.start();
    let socket = format!("sockets: [{:?}]", containerd.socket());
    let Some(mut of_runtime) = Ordeal::begin("container", &socket) else { return };
    let bus = format!("address: {:?}", machine.bus());
    let Some(mut of_bus) = Ordeal::begin("systemd", &bus) else { return };
    let mut n = 0;
    let mut run = || {
        n += 1;
        containerd.run("default", &["--rm"], &format!("c{n}"), "exit 0");
    };
    let mut start = || {
        machine.run(&["systemd-run", "--quiet", "/bin/true"]);
    };
    of_runtime.tells(&mut run);
    of_bus.tells(&mut start);
    let connections = [of_runtime.counter("connections"), of_bus.counter("connections")];
    let pid = Pid::from_raw(containerd.pid().unwrap() as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    assert!(machine.systemctl(&["kill", "-s", "STOP", "dbus.service"]));
    // Neither looks hung itself meanwhile.
    let begin = Instant::now();
    of_runtime.until("time passes", |o| o.health() != "running" || begin.elapsed() > LONG / 2);
    of_bus.until("time passes", |o| o.health() != "running" || begin.elapsed() > LONG);
    of_runtime.until("nobody answers", |o| !o.note("runtime").ends_with("containerd"));
    of_bus.until("nobody answers", |o| o.note("bus") != "ok");
    println!("runtime: {}; bus: {}", of_runtime.note("runtime"), of_bus.note("bus"));
    assert_eq!([of_runtime.health(), of_bus.health()], ["running", "running"]);
    assert!(machine.systemctl(&["kill", "-s", "CONT", "dbus.service"]));
    kill_process(pid, Signal::CONT).unwrap();
    of_runtime.until("it connects again", |o| o.counter("connections") > connections[0]);
    of_bus.until("it connects again", |o| o.counter("connections") > connections[1]);
    of_runtime.tells(&mut run);
    of_bus.tells(&mut start);
    of_runtime.end();
    of_bus.end();
}
