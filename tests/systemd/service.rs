//! The units of deploy/systemd: agent and server run with the rights of the units, and systemd is
//! notified.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value as Json;
use tapio::runtime::Config;

use crate::machine::Machine;
use crate::support::agent::TAPIO;
use crate::support::eventually::{eventually, eventually_ok};
use crate::support::skip::skipped;

const SOURCES: [&str; 5] = ["ebpf", "kmsg", "journal", "systemd", "otlp"];

/// A log record in OTLP JSON.
const LOG: &str = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityNumber":17,
    "body":{"stringValue":"disk full"}}]}]}]}"#;

fn unit(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd").join(name)
}

/// Sends a request to a port of the machine's loopback; returns the body of the answer.
fn http(machine: &Machine, port: u16, request: &str) -> Option<String> {
    let script = r#"exec 3<>/dev/tcp/127.0.0.1/$0; printf %s "$1" >&3; cat <&3"#;
    let (_, answer) = machine.run(&["bash", "-c", script, &port.to_string(), request]);
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

fn status(machine: &Machine) -> Option<Json> {
    let body = http(machine, 7603, "GET /status HTTP/1.0\r\n\r\n")?;
    serde_json::from_str(&body).ok()
}

fn send_log(machine: &Machine) {
    let length = LOG.len();
    let head = "POST /v1/logs HTTP/1.0\r\nContent-Type: application/json";
    let answer = http(machine, 4318, &format!("{head}\r\nContent-Length: {length}\r\n\r\n{LOG}"));
    assert!(answer.is_some(), "OTLP/HTTP doesn't answer");
}

/// Permitted and effective capabilities of each thread of a process of the machine.
fn capabilities(machine: &Machine, pid: &str) -> BTreeMap<String, (u64, u64)> {
    let (_, text) = machine.run(&["bash", "-c", "cat /proc/$0/task/*/status", pid]);
    let (mut all, mut name) = (BTreeMap::new(), String::new());
    let mut permitted = 0;
    let bits = |text: &str| u64::from_str_radix(text.trim(), 16).unwrap();
    for line in text.lines() {
        match line.split_once(':') {
            Some(("Name", value)) => name = value.trim().to_owned(),
            Some(("CapPrm", value)) => permitted = bits(value),
            Some(("CapEff", value)) => {
                all.insert(name.clone(), (permitted, bits(value)));
            }
            Some(("NoNewPrivs", value)) => assert_eq!(value.trim(), "1", "{name}"),
            Some(("Seccomp", value)) => assert_eq!(value.trim(), "2", "{name}"),
            _ => {}
        }
    }
    all
}

/// Every thread has the capabilities of its row in the table of collectors; others have none.
fn assert_capabilities(machine: &Machine, pid: &str) {
    let rows = Config::default().collectors.rows();
    let found = capabilities(machine, pid);
    for name in ["tapio", "shard:0", "bridge", "assessor", "admin", "c:otlp", "c:journal"] {
        assert!(found.contains_key(name), "{name}: {found:?}");
    }
    for (thread, sets) in found {
        let row = rows.iter().find(|row| thread == format!("c:{}", row.name));
        let expected = match row {
            Some(row) => (row.needs.rights.permitted().bits(), row.needs.rights.running.bits()),
            // Starts the threads of collectors, and uses nothing.
            None if thread == "privileged" => (sets.0, 0),
            None => (0, 0),
        };
        assert_eq!(sets, expected, "{thread}");
    }
}

/// Causes an event of every source.
fn cause_events(machine: &Machine) {
    // The kernel logs it.
    let mut segfault = Command::new(TAPIO);
    let _ = segfault.args(["demo-fault", "segfault"]).stderr(Stdio::null()).status();
    // Its failure is an event of systemd, its start one of eBPF; the journal has both.
    machine.systemctl(&["start", "exit7"]);
    send_log(machine);
}

/// Every collector that this machine can run does so, and events of each are stored.
fn assert_every_source_works(machine: &Machine) {
    let mut dmesg_is_read = fs::read_to_string("/proc/sys/debug/exception-trace")
        .is_ok_and(|value| value.trim() != "0");
    dmesg_is_read &= fs::File::open("/dev/kmsg").is_ok();
    eventually_ok("events of every source are stored", || {
        cause_events(machine);
        let status = status(machine).ok_or("/status doesn't answer")?;
        for source in SOURCES {
            let collector = &status["collectors"][source];
            let account = &status["cons1"]["collectors"][source];
            let is_stored = account["forwarded"].as_u64() > Some(0);
            let needs_event = source != "kmsg" || dmesg_is_read;
            if collector["health"] != "running" || (needs_event && !is_stored) {
                return Err(format!("{source}: {collector}, {account}"));
            }
        }
        Ok(())
    });
    let status = status(machine).unwrap();
    for source in ["node", "cni", "container", "receiver"] {
        assert_eq!(status["collectors"][source]["health"], "running", "{source}: {status:#}");
    }
    let sandbox = &status["sandbox"];
    assert_eq!(sandbox["no_new_privs"], true, "{sandbox}");
    assert_eq!(sandbox["seccomp"], true, "{sandbox}");
}

fn main_pid(machine: &Machine) -> String {
    machine.property("tapio", "MainPID")
}

/// The watchdog ends an agent that doesn't run, and systemd starts another.
fn assert_watchdog(machine: &Machine) {
    let stopped = main_pid(machine);
    assert!(machine.run(&["kill", "-STOP", &stopped]).0);
    eventually("another agent is ready", || {
        main_pid(machine) != stopped && machine.property("tapio", "ActiveState") == "active"
    });
    assert_eq!(machine.property("tapio", "NRestarts"), "1");
    let (_, log) = machine.run(&["journalctl", "--unit=tapio", "--output=cat", "--quiet"]);
    assert!(log.contains("Failed with result 'watchdog'"), "{log}");
}

#[test]
fn agent_and_server_run_with_the_rights_of_their_units() {
    // The memory controller of version 1: MemoryMax= has an effect.
    let hybrid = Path::new("/sys/fs/cgroup/memory/cgroup.procs").exists();
    let mode = if hybrid { "hybrid" } else { "unified" };
    let Some(machine) = Machine::boot_with_tapio(mode) else { return };
    let config = "collectors: { otlp: { enabled: true }, receiver: { enabled: true } }\n";
    fs::write(machine.path("etc/tapio/tapio.yaml"), config).unwrap();
    let folder = machine.path("run/systemd/system/tapio.service.d");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("watchdog.conf"), "[Service]\nWatchdogSec=6s\n").unwrap();
    assert!(machine.systemctl(&["daemon-reload"]));
    // A start ends once the service is ready.
    for unit in ["tapio-server", "tapio"] {
        let started = machine.systemctl(&["start", unit]);
        assert!(started, "{}", machine.run(&["journalctl", "-u", unit, "--no-pager"]).1);
    }
    assert!(status(&machine).is_some(), "the admin page answers once the agent is ready");
    assert_every_source_works(&machine);
    assert_capabilities(&machine, &main_pid(&machine));
    let text = machine.property("tapio", "StatusText");
    assert!(text.contains("collectors run"), "{text}");
    let of_server = capabilities(&machine, &machine.property("tapio-server", "MainPID"));
    assert!(of_server.values().all(|sets| *sets == (0, 0)), "{of_server:?}");
    for unit in ["tapio-server", "tapio"] {
        assert!(machine.systemctl(&["reload", unit]), "{unit}");
        assert_eq!(machine.property(unit, "ActiveState"), "active");
    }
    assert_watchdog(&machine);
    assert_every_source_works(&machine);
    for unit in ["tapio", "tapio-server"] {
        assert!(machine.systemctl(&["stop", unit]));
        assert_eq!(machine.property(unit, "Result"), "success", "{unit}");
    }
}

/// systemd's own rating of a unit, from 0 (safe) to 10.
fn exposure(name: &str) -> Option<f64> {
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(unit(name))
        .output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            skipped(&format!("systemd-analyze: {}", String::from_utf8_lossy(&output.stderr)));
            return None;
        }
        Err(error) => {
            skipped(&format!("systemd-analyze: {error}"));
            return None;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("Overall exposure level")).unwrap();
    let words = line.split_whitespace().find_map(|word| word.parse().ok());
    Some(words.unwrap())
}

#[test]
fn systemd_rates_the_units_as_confined() {
    for (name, most) in [("tapio.service", 2.5), ("tapio-server.service", 1.5)] {
        if let Some(exposure) = exposure(name) {
            assert!(exposure <= most, "{name}: {exposure}, at most {most}");
        }
    }
}
