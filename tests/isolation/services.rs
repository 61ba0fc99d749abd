//! Collectors whose source is a process, which is stopped, killed and flooded too.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::fault_injection::FaultTest;
use crate::machine::Machine;
use crate::runtime::{Containerd, is_runtime_available};

#[test]
fn systemd() {
    let Some(machine) = Machine::boot("unified") else { return };
    let Some(mut test) = FaultTest::begin("systemd", &format!("address: {:?}", machine.bus()))
    else {
        return;
    };
    let trigger = &mut || {
        machine.run(&["systemd-run", "--quiet", "/bin/true"]);
    };
    test.panics_and_hangs(trigger);
    // The bus hangs: units continue without it, and their events are emitted when it is back.
    assert!(machine.systemctl(&["kill", "-s", "STOP", "dbus.service"]));
    let before = test.forwarded_when_idle();
    machine.systemctl(&["start", "ok.service"]);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(test.health(), "running", "the collector waits for a response and isn't hung");
    assert!(machine.systemctl(&["kill", "-s", "CONT", "dbus.service"]));
    test.wait_until("the events of the meantime are stored", |o| o.forwarded() > before);
    // The bus is killed and restarted.
    let connections = test.counter("connections");
    assert!(machine.systemctl(&["kill", "-s", "KILL", "dbus.service"]));
    test.wait_until("the collector reconnects", |o| {
        machine.systemctl(&["start", "dbus.socket", "dbus.service"]);
        o.counter("connections") > connections
    });
    test.emits(trigger);
    // A flood of units.
    let before = test.forwarded_when_idle();
    let flood = "for i in $(seq 50); do systemd-run --quiet --unit=flood-$i /bin/false; done";
    assert!(machine.run(&["sh", "-c", flood]).0);
    test.wait_until("all failures are stored", |o| o.forwarded() >= before + 50);
    test.emits(trigger);
    test.end();
}

#[test]
fn journal() {
    let Some(machine) = Machine::boot("unified") else { return };
    let folders = [machine.path("var/log/journal"), machine.path("run/log/journal")];
    let Some(mut test) = FaultTest::begin("journal", &format!("directories: {folders:?}")) else {
        return;
    };
    let log = |lines: u32| {
        let script = format!("for i in $(seq {lines}); do echo \"line $i\"; done | systemd-cat");
        machine.run(&["sh", "-c", &script]).0
    };
    let trigger = &mut || {
        log(1);
    };
    test.panics_and_hangs(trigger);
    // journald hangs: log lines wait for it.
    assert!(machine.systemctl(&["kill", "-s", "STOP", "systemd-journald.service"]));
    std::thread::sleep(Duration::from_millis(300));
    let before = test.forwarded_when_idle();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!((test.health(), test.forwarded()), ("running".into(), before));
    assert!(machine.systemctl(&["kill", "-s", "CONT", "systemd-journald.service"]));
    test.emits(trigger);
    // journald is killed: systemd restarts it, and it opens its files again.
    assert!(machine.systemctl(&["kill", "-s", "KILL", "systemd-journald.service"]));
    test.emits(trigger);
    let before = test.forwarded_when_idle();
    assert!(log(5_000));
    test.wait_until("the flood is stored", |o| o.forwarded() >= before + 5_000);
    test.emits(trigger);
    test.end();
}

#[test]
fn container() {
    if !is_runtime_available() {
        return;
    }
    let mut containerd = Containerd::new(&["default"]);
    containerd.start();
    let config = format!("sockets: [{:?}]", containerd.socket());
    let Some(mut test) = FaultTest::begin("container", &config) else { return };
    let mut n = 0;
    let run = |containerd: &Containerd, id: &str| {
        containerd.run("default", &["--rm"], id, "exit 0");
    };
    let mut trigger = |containerd: &Containerd| {
        n += 1;
        run(containerd, &format!("c{n}"));
    };
    test.panics_and_hangs(&mut || trigger(&containerd));
    // The runtime hangs for longer than `hung_after`.
    let pid = Pid::from_raw(containerd.pid().unwrap() as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(test.health(), "running", "the collector waits for a response and isn't hung");
    kill_process(pid, Signal::CONT).unwrap();
    test.emits(&mut || trigger(&containerd));
    // It is killed and restarted.
    let connections = test.counter("connections");
    containerd.kill();
    test.wait_until("the status names it", |o| {
        !o.status()["notes"]["runtime"].to_string().contains("containerd\"")
    });
    containerd.start();
    test.wait_until("the collector reconnects", |o| o.counter("connections") > connections);
    test.emits(&mut || trigger(&containerd));
    // A burst of containers, four at a time.
    let before = test.forwarded();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let containerd = &containerd;
            scope.spawn(move || {
                (0..6).for_each(|n| run(containerd, &format!("burst-{worker}-{n}")));
            });
        }
    });
    test.wait_until("the burst is stored", |o| o.forwarded() >= before + 24 * 4);
    test.emits(&mut || trigger(&containerd));
    test.end();
}
