//! The rights of the process and its messages to a service manager, without systemd.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tapio::runtime::Config;
use tapio_core::sandbox::CapabilitySet;

use crate::support::agent::{TAPIO, TestAgent, start, story, terminate, utf8};

/// Permitted and effective capabilities, and `no_new_privs`, of each thread.
fn rights(process: &Child) -> BTreeMap<String, (u64, u64, bool)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let mut all = BTreeMap::new();
    for task in tasks {
        let Ok(text) = fs::read_to_string(task.unwrap().path().join("status")) else { continue };
        let field = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).unwrap().trim();
        let bits = |key: &str| u64::from_str_radix(field(key), 16).unwrap();
        let one = (bits("CapPrm:"), bits("CapEff:"), field("NoNewPrivs:") == "1");
        all.insert(field("Name:").to_owned(), one);
    }
    all
}

#[test]
fn each_thread_has_the_capabilities_of_its_collector_only() {
    let held = rustix::thread::capabilities(None).unwrap().permitted;
    let fixture = TestAgent::new();
    let config = fixture.config("jsonl, kmsg, node", Path::new("/dev/null"));
    let agent = start(&["run", "--standalone", "--config", &config]);
    let status = fixture.wait(|s| s["collectors"]["kmsg"]["health"] != "starting");
    // A collector lowers its rights once its source is open.
    fixture.wait(|_| {
        let found = rights(&agent);
        found.contains_key("c:node") && found.get("c:kmsg").is_none_or(|kmsg| kmsg.1 == 0)
    });
    let rows = Config::default().collectors.rows();
    let found = rights(&agent);
    assert!(found.len() > 8, "{found:?}");
    for (thread, (permitted, effective, no_new_privs)) in &found {
        assert!(no_new_privs, "{thread}");
        let row = rows.iter().find(|row| *thread == format!("c:{}", row.name));
        let expected = row.map_or(CapabilitySet::empty(), |row| row.needs.rights.permitted());
        if thread != "privileged" {
            assert_eq!(*permitted, (expected & held).bits(), "{thread}");
            assert_eq!(effective & !permitted, 0, "{thread}");
        } else {
            let of_rows = CapabilitySet::SYSLOG | CapabilitySet::DAC_READ_SEARCH;
            assert_eq!((*permitted, *effective), ((of_rows & held).bits(), 0));
        }
    }
    assert_eq!(status["sandbox"]["enabled"], json!(true));
    assert_eq!(status["sandbox"]["no_new_privs"], json!(true));
    assert!(terminate(agent).status.success());
}

#[test]
fn disabled_sandbox_leaves_the_rights() {
    let fixture = TestAgent::new();
    let config = fixture.config("jsonl", Path::new("/dev/null"));
    let text = fs::read_to_string(&config).unwrap();
    let config = fixture.file("off.yaml", &format!("{text}sandbox: {{ enabled: false }}\n"));
    let agent = start(&["run", "--standalone", "--config", &config]);
    let status = fixture.wait(|s| s["collectors"]["jsonl"].is_object());
    assert_eq!(status["sandbox"], json!({"enabled": false}));
    let held = rustix::thread::capabilities(None).unwrap().permitted.bits();
    assert!(rights(&agent).values().all(|thread| thread.0 == held && !thread.2));
    assert!(terminate(agent).status.success());
}

/// The next message to the service manager other than those of status and watchdog.
fn message(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 512];
    loop {
        let n = manager.recv(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
        if !text.starts_with("STATUS=") && text != "WATCHDOG=1" {
            return text;
        }
    }
}

#[test]
fn service_manager_is_notified_of_start_reload_and_stop() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let fixture = TestAgent::new();
    let config = fixture.config("jsonl", &story("pod-startup.jsonl"));
    let agent = Command::new(TAPIO)
        .args(["run", "--standalone", "--config", &config])
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "20000000")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(message(&manager), "READY=1");
    assert!(fixture.status().is_some(), "the admin page answers");
    let mut bytes = [0; 512];
    while &bytes[..10] != b"WATCHDOG=1" {
        manager.recv(&mut bytes).unwrap();
    }
    kill_process(Pid::from_raw(agent.id() as i32).unwrap(), Signal::HUP).unwrap();
    let text = message(&manager);
    assert!(text.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{text}");
    assert_eq!(message(&manager), "READY=1");
    let output = terminate(agent);
    assert_eq!(message(&manager), "STOPPING=1");
    assert!(output.status.success(), "{}", utf8(&output.stderr));
}
