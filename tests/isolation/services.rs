//! Collectors whose counterpart is a process: that one is stopped, killed and flooded, too.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::machine::Machine;
use crate::ordeal::Ordeal;
use crate::runtime::{Containerd, is_runtime_available};

#[test]
fn systemd() {
    let Some(machine) = Machine::boot("unified") else { return };
    let Some(mut ordeal) = Ordeal::begin("systemd", &format!("address: {:?}", machine.bus()))
    else {
        return;
    };
    let provoke = &mut || {
        machine.run(&["systemd-run", "--quiet", "/bin/true"]);
    };
    ordeal.suffers(provoke);
    // The bus hangs: units go on without it, and what they did is told when it is back.
    assert!(machine.systemctl(&["kill", "-s", "STOP", "dbus.service"]));
    let before = ordeal.settled();
    machine.systemctl(&["start", "ok.service"]);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(ordeal.health(), "running", "it waits for an answer and doesn't hang itself");
    assert!(machine.systemctl(&["kill", "-s", "CONT", "dbus.service"]));
    ordeal.until("what happened meanwhile is told", |o| o.told() > before);
    // The bus is killed, and comes back.
    let connections = ordeal.counter("connections");
    assert!(machine.systemctl(&["kill", "-s", "KILL", "dbus.service"]));
    ordeal.until("it connects again", |o| {
        machine.systemctl(&["start", "dbus.socket", "dbus.service"]);
        o.counter("connections") > connections
    });
    ordeal.tells(provoke);
    // A flood of units.
    let before = ordeal.settled();
    let flood = "for i in $(seq 50); do systemd-run --quiet --unit=flood-$i /bin/false; done";
    assert!(machine.run(&["sh", "-c", flood]).0);
    ordeal.until("all of them are told", |o| o.told() >= before + 50);
    ordeal.tells(provoke);
    ordeal.end();
}

#[test]
fn journal() {
    let Some(machine) = Machine::boot("unified") else { return };
    let folders = [machine.path("var/log/journal"), machine.path("run/log/journal")];
    let Some(mut ordeal) = Ordeal::begin("journal", &format!("directories: {folders:?}")) else {
        return;
    };
    let log = |lines: u32| {
        let script = format!("for i in $(seq {lines}); do echo \"line $i\"; done | systemd-cat");
        machine.run(&["sh", "-c", &script]).0
    };
    let provoke = &mut || {
        log(1);
    };
    ordeal.suffers(provoke);
    // journald hangs: what is logged meanwhile waits for it.
    assert!(machine.systemctl(&["kill", "-s", "STOP", "systemd-journald.service"]));
    std::thread::sleep(Duration::from_millis(300));
    let before = ordeal.settled();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!((ordeal.health(), ordeal.told()), ("running".into(), before));
    assert!(machine.systemctl(&["kill", "-s", "CONT", "systemd-journald.service"]));
    ordeal.tells(provoke);
    // journald is killed: systemd starts it again, and it opens its files anew.
    assert!(machine.systemctl(&["kill", "-s", "KILL", "systemd-journald.service"]));
    ordeal.tells(provoke);
    let before = ordeal.settled();
    assert!(log(5_000));
    ordeal.until("the flood is stored", |o| o.told() >= before + 5_000);
    ordeal.tells(provoke);
    ordeal.end();
}

#[test]
fn container() {
    if !is_runtime_available() {
        return;
    }
    let mut containerd = Containerd::new(&["default"]);
    containerd.start();
    let config = format!("sockets: [{:?}]", containerd.socket());
    let Some(mut ordeal) = Ordeal::begin("container", &config) else { return };
    let mut n = 0;
    let run = |containerd: &Containerd, id: &str| {
        containerd.run("default", &["--rm"], id, "exit 0");
    };
    let mut provoke = |containerd: &Containerd| {
        n += 1;
        run(containerd, &format!("c{n}"));
    };
    ordeal.suffers(&mut || provoke(&containerd));
    // The runtime hangs for longer than a collector may be silent.
    let pid = Pid::from_raw(containerd.pid().unwrap() as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(ordeal.health(), "running", "it waits for an answer and doesn't hang itself");
    kill_process(pid, Signal::CONT).unwrap();
    ordeal.tells(&mut || provoke(&containerd));
    // It is killed, and comes back.
    let connections = ordeal.counter("connections");
    containerd.kill();
    ordeal.until("the status says so", |o| {
        !o.status()["notes"]["runtime"].to_string().contains("containerd\"")
    });
    containerd.start();
    ordeal.until("it connects again", |o| o.counter("connections") > connections);
    ordeal.tells(&mut || provoke(&containerd));
    // A burst of containers, four at a time.
    let before = ordeal.told();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let containerd = &containerd;
            scope.spawn(move || {
                (0..6).for_each(|n| run(containerd, &format!("burst-{worker}-{n}")));
            });
        }
    });
    ordeal.until("the burst is told", |o| o.told() >= before + 24 * 4);
    ordeal.tells(&mut || provoke(&containerd));
    ordeal.end();
}
