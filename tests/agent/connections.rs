//! Connections of real processes in network namespaces of their own: what deviates from what they
//! usually do is found by the kernel's TCP events alone.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value as Json;
use tapio_collectors::ebpf::{Config, findings};

use super::support::agent::{TestAgent, start, terminate, utf8};
use super::support::cgroup::remove_cgroup;
use super::support::eventually::eventually_ok;
use super::support::net::{get_json, items};
use super::support::skip::skipped;

/// Set in the copy of the test that runs in its own namespaces.
const INSIDE: &str = "TAPIO_TEST_INSIDE";
/// The address that a process of the test listens at, or connects to.
const ADDRESS: &str = "TAPIO_TEST_ADDRESS";
/// The address of the servers' namespace.
const FAR: &str = "10.99.0.2";
/// The time in which the agent learns.
const LEARNED: Duration = Duration::from_secs(90);
/// Mounts a private /run, where `ip netns` keeps its names.
const NAMESPACES: &str = "mount --make-rprivate / && mount -t tmpfs tmpfs /run && \
    ip link set lo up && ip netns add far && ip link add near type veth peer name eth0 netns far && \
    ip addr add 10.99.0.1/24 dev near && ip link set near up && \
    ip -n far addr add 10.99.0.2/24 dev eth0 && ip -n far link set eth0 up && exec \"$0\" \"$@\"";
/// Every second segment that opens a connection to the one server is lost, so that each attempt
/// takes the second after which it is sent again. The other server's host answers with resets.
const FAULTS: &str = "add table ip fault
    add chain ip fault in { type filter hook input priority 0; }
    add rule ip fault in tcp dport 7432 tcp flags & (syn | ack) == syn numgen inc mod 2 == 0 drop
    add rule ip fault in tcp dport 7433 reject with tcp reset";

#[test]
#[ignore = "a process of slow_and_refused_connections_are_found"]
fn server() {
    let address: SocketAddr = std::env::var(ADDRESS).unwrap().parse().unwrap();
    let listener = TcpListener::bind(address).unwrap();
    listener.incoming().for_each(drop);
}

#[test]
#[ignore = "a process of slow_and_refused_connections_are_found"]
fn client() {
    let address: SocketAddr = std::env::var(ADDRESS).unwrap().parse().unwrap();
    loop {
        let _ = TcpStream::connect_timeout(&address, Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A process in the cgroup of a unit, ended with the value.
struct Unit {
    process: Child,
    cgroup: PathBuf,
}

impl Unit {
    /// Starts one of the tests above. A server is in the other namespace.
    fn start(name: &str, role: &str, port: u16) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let is_v2 = root.join("cgroup.controllers").exists();
        let root = if is_v2 { root.into() } else { root.join("unified") };
        let cgroup = root.join(unit(name));
        std::fs::create_dir(&cgroup).unwrap();
        let procs = cgroup.join("cgroup.procs");
        let script = format!("echo $$ >{}; exec \"$@\"", procs.display());
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]);
        if role == "server" {
            command.args(["ip", "netns", "exec", "far"]);
        }
        let process = command
            .arg(std::env::current_exe().unwrap())
            .args([&format!("connections::{role}"), "--exact", "--ignored", "--nocapture"])
            .env(ADDRESS, format!("{FAR}:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, cgroup }
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        remove_cgroup(&self.cgroup);
    }
}

/// The first thing that is missing for the test.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".into());
    }
    let tools = [("ip", "-V"), ("nft", "-v"), ("unshare", "-V")];
    let is_absent = |tool: &(&str, &str)| Command::new(tool.0).arg(tool.1).output().is_err();
    if let Some((tool, _)) = tools.iter().find(|tool| is_absent(tool)) {
        return Some(format!("no {tool}"));
    }
    let failed = findings(&Config::default()).into_iter().find(|finding| !finding.ok)?;
    Some(format!("{}: {}", failed.subject, failed.state))
}

/// Whether this is the copy of the test in namespaces of its own; the first copy starts it.
fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if let Some(missing) = missing() {
        skipped(&missing);
        return false;
    }
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", NAMESPACES])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = format!("{}{}", utf8(&output.stdout), utf8(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "in its namespaces:\n{text}");
    false
}

fn inject_faults() {
    let mut nft = Command::new("ip")
        .args(["netns", "exec", "far", "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    nft.stdin.take().unwrap().write_all(FAULTS.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success());
}

/// The unit of one of the test's processes.
fn unit(name: &str) -> String {
    format!("tapio-test-{}-{name}.service", std::process::id())
}

/// The disturbances of the test's units that the agent has reported, in full. It sees the whole
/// machine, where others may have some, too.
fn disturbances(fixture: &TestAgent) -> Vec<Json> {
    let path = "/api/v1/stories?pattern=service-disturbance";
    let found = items(fixture.http, path).unwrap_or_default();
    let ids = found.iter().filter_map(|story| story["id"].as_str());
    let full = ids.filter_map(|id| get_json(fixture.http, &format!("/api/v1/stories/{id}")));
    let units = ["ledger", "payments", "web", "mail"].map(unit);
    let is_own = |story: &Json| {
        let cause = story["root_causes"][0]["cause"].as_str().unwrap_or_default();
        units.iter().any(|unit| cause.contains(unit))
    };
    full.filter(is_own).collect()
}

#[test]
fn slow_and_refused_connections_are_found() {
    if !is_inside("connections::slow_and_refused_connections_are_found") {
        return;
    }
    let fixture = TestAgent::new();
    let config = fixture.config("ebpf", Path::new("/dev/null"));
    // The servers run before the agent does.
    let _servers = [Unit::start("ledger", "server", 7432), Unit::start("payments", "server", 7433)];
    let agent = start(&["run", "--standalone", "--config", &config]);
    fixture.wait(|_| fixture.page("/readyz").is_some_and(|(head, _)| head.contains("200")));
    let _clients = [Unit::start("web", "client", 7432), Unit::start("mail", "client", 7433)];
    std::thread::sleep(LEARNED);
    let early = disturbances(&fixture);
    assert!(early.is_empty(), "{early:#?}");
    inject_faults();
    let found = |callee: &str, caller: &str, words: &str| {
        let (callee, caller) = (unit(callee), unit(caller));
        let cause = format!("{callee}: {caller}: {words}");
        let all = disturbances(&fixture);
        let of = |story: &&Json| {
            let first = story["root_causes"][0]["cause"].as_str();
            first.is_some_and(|first| first.starts_with(&cause))
        };
        match all.iter().find(of) {
            Some(story) => Ok(story.clone()),
            None => Err(format!("no story with {cause}: {all:#?}")),
        }
    };
    let slow = eventually_ok("slow connections", || found("ledger", "web", "connect time to"));
    assert_eq!(slow["root_causes"][0]["entity"]["kind"], "unit", "{slow:#}");
    let refused = eventually_ok("refusals", || found("payments", "mail", "is refused by"));
    assert_ne!(slow["id"], refused["id"]);
    let output = terminate(agent);
    assert!(output.status.success(), "{}", utf8(&output.stderr));
}
