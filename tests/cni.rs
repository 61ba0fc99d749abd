//! The CNI collector and the plugin `tapio-cni` with Debian's plugins bridge and host-local, in
//! network and mount namespaces of each test's own.
//!
//! Without root or the plugins (`scripts/test-deps.sh`) a test prints why it is skipped;
//! `TAPIO_REQUIRE_KERNEL=1` makes that a failure.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "cni/chain.rs"]
mod chain;
#[path = "support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use chain::{INSIDE, Network, Pod, is_in_namespaces};
use serde_json::{Value, json};
use support::pipeline::{Pipeline, site};
use tapio_collectors::{Site, cni};
use tapio_core::event::{Reason, Stage};
use tapio_core::identity::AddressOwner;

fn start(folder: &Path) -> Pipeline {
    start_at(site(None), folder)
}

fn start_at(site: Site, folder: &Path) -> Pipeline {
    let config = cni::Config {
        socket: folder.join("cni.sock"),
        networks: folder.join("networks"),
        // Changes of the host's own links must not affect the test.
        links: std::env::var_os(INSIDE).is_some(),
        ..cni::Config::default()
    };
    let pipeline = Pipeline::start_at(site, "cni", &config);
    pipeline.wait_until("the socket exists", |_| folder.join("cni.sock").exists());
    pipeline
}

fn bridge(folder: &Path, name: &str, subnet: &str) -> Value {
    json!({"type": "bridge", "bridge": name, "isGateway": true, "ipam":
        {"type": "host-local", "subnet": subnet, "dataDir": folder.join("networks")}})
}

fn tapio_cni(folder: &Path) -> Value {
    json!({"type": "tapio-cni", "socket": folder.join("cni.sock")})
}

/// Waits for `count` events of a kind; fails if there are more.
fn wait_for(pipeline: &Pipeline, kind: &str, count: usize) -> Vec<Value> {
    pipeline.wait_until(&format!("{count} {kind}"), |p| p.of_kind(kind).len() >= count);
    let events = pipeline.of_kind(kind);
    assert_eq!(events.len(), count, "{events:#?}");
    events
}

#[test]
fn pod_network_lifecycle_emits_each_event_once() {
    if !is_in_namespaces("pod_network_lifecycle_emits_each_event_once") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let pipeline = start(folder);
    let network = Network {
        name: "podnet",
        plugins: vec![bridge(folder, "cni0", "10.88.0.0/16"), tapio_cni(folder)],
    };
    let pod = Pod::new(1);
    let inode = std::fs::metadata(&pod.netns).unwrap().ino();
    let result = network.add(&pod).unwrap();
    let address = "10.88.0.2";
    assert!(result.contains(address), "{result}");

    for kind in ["cni.add", "cni.ip.allocated"] {
        let event = &wait_for(&pipeline, kind, 1)[0];
        assert_eq!(event["entity"]["node"], "node-1", "{event:#}");
        assert_eq!(event["entity"]["container.id"], pod.container);
        assert_eq!(event["entity"]["k8s.pod.uid"], pod.uid);
        assert_eq!(event["entity"]["k8s.pod.name"], "pod1");
        assert_eq!(event["entity"]["k8s.namespace.name"], "shop");
        assert_eq!(event["attributes"]["network.local.address"], address);
        assert_eq!(event["attributes"]["network.interface.name"], "eth0");
        assert_eq!(event["attributes"]["tapio.cni.network"], "podnet");
        assert!(!event.to_string().contains("opensesame"), "only the names of the pod are read");
    }
    assert_eq!(pipeline.of_kind("cni.add")[0]["message"], "shop/pod1 joined network podnet");
    assert_eq!(
        pipeline.of_kind("cni.ip.allocated")[0]["message"],
        "10.88.0.2 allocated to shop/pod1"
    );
    let directory = &pipeline.site.directory;
    let whose = Some(AddressOwner::Pod(pod.uid.as_str().into()));
    assert_eq!(directory.address_owner(address.parse().unwrap()), whose);
    assert_eq!(directory.pod_of_network(inode).as_deref(), Some(pod.uid.as_str()));
    assert_eq!(directory.container(&pod.container).unwrap().pod_name.as_ref(), "pod1");

    network.call_each("CHECK", &pod, Some(&result));
    wait_for(&pipeline, "cni.check", 1);
    // Runtimes repeat DEL, with the result and without.
    network.call_each("DEL", &pod, Some(&result));
    network.call_each("DEL", &pod, Some(&result));
    network.call_each("DEL", &pod, None);
    let event = &wait_for(&pipeline, "cni.ip.released", 1)[0];
    assert_eq!(event["entity"]["k8s.pod.name"], "pod1");
    pipeline.wait_until("three reports of DEL", |p| p.counter("repeated_dels") == 2);
    wait_for(&pipeline, "cni.del", 1);
    assert!(directory.live_pods().is_empty());
    // The host end of the link belongs to the pod.
    let veth = |kind| {
        let of_kind = pipeline.of_kind(kind);
        of_kind.into_iter().filter(|e| e["attributes"]["tapio.link.kind"] == "veth").collect()
    };
    pipeline.wait_until("the pair is removed", |p| {
        p.of_kind("network.link.down").iter().any(|e| e["attributes"]["tapio.link.kind"] == "veth")
    });
    let (up, down): (Vec<Value>, Vec<Value>) = (veth("network.link.up"), veth("network.link.down"));
    assert_eq!((up.len(), down.len()), (1, 1));
    assert_eq!(down[0]["entity"]["k8s.pod.uid"], pod.uid);
    assert!(pipeline.end().snapshot.total.dropped.is_empty());
}

#[test]
fn error_of_delegated_plugin_is_reported() {
    if !is_in_namespaces("error_of_delegated_plugin_is_reported") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let pipeline = start(folder);
    let mut wrapped = tapio_cni(folder);
    wrapped["delegate"] = bridge(folder, "cni0", "10.99.0.0/30");
    let network = Network { name: "tiny", plugins: vec![wrapped.clone()] };
    // A /30 has one address besides the gateway.
    let pods = [Pod::new(1), Pod::new(2), Pod::new(4)];
    let result = network.add(&pods[0]).unwrap();
    assert!(result.contains("10.99.0.2/30"), "{result}");
    let error = network.add(&pods[1]).unwrap_err();
    let bare = Network { name: "tiny", plugins: vec![wrapped["delegate"].clone()] };
    assert_eq!(
        error.trim_end(),
        bare.add(&pods[2]).unwrap_err().trim_end(),
        "the plugin's output is passed on"
    );
    let event = &wait_for(&pipeline, "cni.failed", 1)[0];
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("no IP addresses available in range set: 10.99.0.1-10.99.0.2"));
    assert_eq!(event["entity"]["k8s.pod.name"], "pod2");
    assert_eq!(event["severity"], "error");
    for (key, value) in [("command", "ADD"), ("plugin", "bridge"), ("network", "tiny")] {
        assert_eq!(event["attributes"][format!("tapio.cni.{key}")], value);
    }
    let code = serde_json::from_str::<Value>(&error).unwrap()["code"].to_string();
    assert_eq!(event["attributes"]["error.type"], code);
    let added = &wait_for(&pipeline, "cni.add", 1)[0];
    let duration_ns = |e: &Value| e["attributes"]["tapio.cni.duration_ns"].as_u64().unwrap();
    assert!(duration_ns(added) > 0 && duration_ns(event) > 0);

    // A missing namespace, then an interface that exists already.
    let mut nowhere = Pod::new(3);
    nowhere.netns = "/run/netns/none".into();
    assert!(network.add(&nowhere).is_err());
    let event = wait_for(&pipeline, "cni.failed", 2).pop().unwrap();
    assert!(event["message"].as_str().unwrap().contains("/run/netns/none"), "{event:#}");
    assert!(network.add(&pods[0]).is_err());
    let event = wait_for(&pipeline, "cni.failed", 3).pop().unwrap();
    assert!(event["message"].as_str().unwrap().contains("eth0"), "{event:#}");
    network.call_each("DEL", &pods[0], Some(&result));
    wait_for(&pipeline, "cni.del", 1);
    assert!(pipeline.end().snapshot.total.dropped.is_empty());
}

#[test]
fn pod_starts_whatever_the_state_of_the_agent() {
    if !is_in_namespaces("pod_starts_whatever_the_state_of_the_agent") {
        return;
    }
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
    };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = folder.join("cni.sock");
    let pod = Pod::new(1);
    let network = Network {
        name: "podnet",
        plugins: vec![bridge(folder, "cni0", "10.88.0.0/16"), tapio_cni(folder)],
    };
    let add_and_delete = |state: &str| {
        let result = network.add(&pod);
        assert!(result.is_ok(), "{state}: {result:?}");
        network.call_each("DEL", &pod, result.ok().as_deref());
    };
    add_and_delete("no agent has run");
    let packet = |flags| socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    let address = SocketAddrUnix::new(&path).unwrap();
    let listener = packet(SocketFlags::empty()).unwrap();
    bind(&listener, &address).unwrap();
    listen(&listener, 1).unwrap();
    // The queue is full and nothing accepts: the plugin gives up after its time limit.
    let mut peers = Vec::new();
    loop {
        let peer = packet(SocketFlags::NONBLOCK).unwrap();
        if connect(&peer, &address).is_err() {
            break;
        }
        peers.push(peer);
    }
    add_and_delete("the agent hangs");
    drop(peers);
    drop(listener);
    add_and_delete("the agent has died and left its socket");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "not a socket").unwrap();
    add_and_delete("the path isn't a socket");
}

#[test]
fn changes_of_the_node_network_are_emitted() {
    if !is_in_namespaces("changes_of_the_node_network_are_emitted") {
        return;
    }
    let ip = |args: &str| {
        let done = Command::new("ip").args(args.split(' ')).output().unwrap();
        assert!(done.status.success(), "ip {args}: {}", String::from_utf8_lossy(&done.stderr));
    };
    // Links that exist before the agent's start emit no events.
    ip("link add old0 type bridge");
    ip("link set old0 up");
    let folder = tempfile::tempdir().unwrap();
    let pipeline = start(folder.path());
    ip("link add br0 type bridge");
    ip("link add v0 type veth peer name v1");
    ip("link set v1 master br0");
    ip("link set v0 up");
    ip("link set v1 up");
    ip("link set br0 up");
    ip("addr add 192.0.2.2/24 dev br0");
    ip("route add default via 192.0.2.1");
    for neighbour in ["192.0.2.9", "192.0.2.1"] {
        ip(&format!("neigh add {neighbour} lladdr 02:00:00:00:00:01 dev br0 nud reachable"));
        ip(&format!("neigh replace {neighbour} dev br0 nud failed"));
    }
    let silent = &wait_for(&pipeline, "network.neighbor.failed", 1)[0];
    assert_eq!(silent["message"], "gateway 192.0.2.1 doesn't answer on br0");
    assert_eq!(silent["attributes"]["network.peer.address"], "192.0.2.1");
    assert_eq!(silent["severity"], "warn");
    let added = &wait_for(&pipeline, "network.address.added", 1)[0];
    assert_eq!(added["attributes"]["network.local.address"], "192.0.2.2");
    assert_eq!(added["attributes"]["tapio.network.prefix_length"], 24);
    let route = &wait_for(&pipeline, "network.route.added", 1)[0];
    assert_eq!(route["attributes"]["network.peer.address"], "192.0.2.1");
    let up = |p: &Pipeline| -> Vec<String> {
        let name =
            |e: &Value| e["attributes"]["network.interface.name"].as_str().unwrap().to_owned();
        p.of_kind("network.link.up").iter().map(name).collect()
    };
    pipeline.wait_until("three links are up", |p| up(p).len() >= 3);
    let mut names = up(&pipeline);
    names.sort();
    assert_eq!(names, ["br0", "v0", "v1"]);
    ip("route del default");
    wait_for(&pipeline, "network.route.removed", 1);
    ip("addr del 192.0.2.2/24 dev br0");
    wait_for(&pipeline, "network.address.removed", 1);
    ip("link del v0");
    pipeline.wait_until("all three are down", |p| p.of_kind("network.link.down").len() >= 3);
    let kinds: Vec<_> = pipeline
        .of_kind("network.link.down")
        .iter()
        .map(|e| e["attributes"]["tapio.link.kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds.iter().filter(|k| *k == "veth").count(), 2, "{kinds:?}");
    assert!(pipeline.end().snapshot.total.dropped.is_empty());
}

#[test]
fn two_hundred_concurrent_pods_emit_each_event_once() {
    if !is_in_namespaces("two_hundred_concurrent_pods_emit_each_event_once") {
        return;
    }
    const PODS: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let pipeline = start(folder);
    // Addresses only: two hundred ports of bridges would test the kernel instead.
    let network = Network {
        name: "burst",
        plugins: vec![
            json!({"type": "host-local", "ipam": {"type": "host-local", "subnet": "10.77.0.0/16",
                "dataDir": folder.join("networks")}}),
            tapio_cni(folder),
        ],
    };
    let pods: Vec<_> = (1..=PODS).map(Pod::new).collect();
    let all = |command: &str| {
        std::thread::scope(|scope| {
            for some in pods.chunks(PODS / 20) {
                let network = &network;
                scope.spawn(move || {
                    for pod in some {
                        match command {
                            "ADD" => drop(network.add(pod).unwrap()),
                            _ => network.call_each(command, pod, None),
                        }
                    }
                });
            }
        });
    };
    all("ADD");
    // An allocation that is released before its file was read can't be emitted.
    wait_for(&pipeline, "cni.ip.allocated", PODS);
    all("DEL");
    for kind in ["cni.add", "cni.ip.allocated", "cni.del", "cni.ip.released"] {
        let mut seen: HashMap<String, usize> = HashMap::new();
        for event in wait_for(&pipeline, kind, PODS) {
            let name = event["entity"]["k8s.pod.name"].as_str().unwrap_or_default();
            *seen.entry(name.into()).or_default() += 1;
        }
        assert_eq!(seen.len(), PODS, "{kind}: once for each pod, with its name");
    }
    let total = pipeline.end().snapshot.total;
    assert!(total.dropped.is_empty(), "{:?}", total.dropped);
}

#[test]
fn allocations_during_downtime_are_emitted_once_after_restart() {
    let folder = tempfile::tempdir().unwrap();
    let networks = folder.path().join("networks/podnet");
    std::fs::create_dir_all(&networks).unwrap();
    let allocate =
        |n: u32| std::fs::write(networks.join(format!("10.1.0.{n}")), format!("c{n}\r\neth0"));
    let run = || start_at(site(Some(&folder.path().join("state"))), folder.path());
    let saved = || {
        let text = std::fs::read_to_string(folder.path().join("state/cursors/cni"));
        text.unwrap_or_default()
    };
    allocate(1).unwrap();
    let first = run();
    first.wait_until("the cursor is saved", |_| !saved().is_empty());
    allocate(2).unwrap();
    let events = wait_for(&first, "cni.ip.allocated", 1);
    let attributes = &events[0]["attributes"];
    assert_eq!(attributes["network.local.address"], "10.1.0.2", "the first one existed already");
    assert_eq!(attributes["tapio.identity"], "unresolved", "no source has the container");
    first.wait_until("the cursor is saved", |_| saved().contains("10.1.0.2"));
    first.end();

    allocate(3).unwrap();
    let second = run();
    let events = wait_for(&second, "cni.ip.allocated", 1);
    assert_eq!(events[0]["attributes"]["network.local.address"], "10.1.0.3");
    second.wait_until("the cursor is saved", |_| saved().contains("10.1.0.3"));
    assert_eq!(second.end().snapshot.total.forwarded, 1);
}

#[test]
fn invalid_report_is_rejected_and_counted() {
    use rustix::net::{
        AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send,
        socket_with,
    };
    let folder = tempfile::tempdir().unwrap();
    let pipeline = start(folder.path());
    let address = SocketAddrUnix::new(folder.path().join("cni.sock")).unwrap();
    let send_packet = |bytes: &[u8]| {
        let flags = SocketFlags::CLOEXEC;
        let peer = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        connect(&peer, &address).unwrap();
        send(&peer, bytes, SendFlags::NOSIGNAL).unwrap();
    };
    let bad: [&[u8]; 5] = [b"{", b"[]", b"\xff\xfe", b"{\"command\":\"STATUS\"}", &[b' '; 20_000]];
    bad.iter().for_each(|bytes| send_packet(bytes));
    send_packet(br#"{"command":"DEL","network":"n","container_id":"c","a newer field":[1]}"#);
    wait_for(&pipeline, "cni.del", 1);
    let total = pipeline.end().snapshot.total;
    assert_eq!(total.dropped, [(Stage::Collect, Reason::BadInput, bad.len() as u64)]);
}

#[test]
fn reports_of_other_users_are_refused() {
    if !is_in_namespaces("reports_of_other_users_are_refused") {
        return;
    }
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    let folder = tempfile::tempdir().unwrap();
    let pipeline = start(folder.path());
    // The file's mode already excludes other users; it is removed to test the check of credentials.
    for (path, mode) in [(folder.path().to_owned(), 0o755), (folder.path().join("cni.sock"), 0o777)]
    {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let plugin = folder.path().join("plugin");
    std::fs::copy(env!("CARGO_BIN_EXE_tapio-cni"), &plugin).unwrap();
    let config =
        format!(r#"{{"name":"n","socket":"{}"}}"#, folder.path().join("cni.sock").display());
    let mut child = Command::new(&plugin)
        .env("CNI_COMMAND", "DEL")
        .env("CNI_CONTAINERID", "stranger")
        .uid(65_534)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    use std::io::Write as _;
    child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    pipeline.wait_until("the connection is counted", |p| p.counter("connections_refused") == 1);
    assert!(pipeline.of_kind("cni.del").is_empty());
    pipeline.end();
}

#[test]
fn plugin_implements_the_commands_of_the_specification() {
    let folder = tempfile::tempdir().unwrap();
    let pod = Pod {
        container: "c".into(),
        netns: String::new(),
        name: String::new(),
        uid: String::new(),
    };
    let socket = folder.path().join("cni.sock");
    let run = |command: &str, config: &str| call_tapio_cni(command, config, &pod);
    let (is_success, text) = run("VERSION", r#"{"cniVersion":"0.4.0"}"#);
    let version: Value = serde_json::from_str(&text).unwrap();
    assert!(is_success);
    assert_eq!(version["cniVersion"], "0.4.0");
    assert_eq!(version["supportedVersions"], json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    let previous = r#"{"cniVersion":"1.1.0",  "ips":[{"address":"10.0.0.1/8"}],"x":1.10,
        "big":123456789012345678901234567890}"#;
    let config = format!(
        r#"{{"cniVersion":"1.1.0","name":"n","socket":{socket:?},"prevResult":{previous}}}"#
    );
    assert_eq!(run("ADD", &config), (true, format!("{previous}\n")), "byte for byte");
    for command in ["DEL", "CHECK", "GC", "STATUS"] {
        assert_eq!(run(command, &config), (true, String::new()), "{command}");
    }
    assert_eq!(run("DEL", "garbage"), (true, String::new()), "DEL must not fail");
    let (is_success, text) = run("ADD", "garbage");
    assert!(!is_success && serde_json::from_str::<Value>(&text).unwrap()["code"] == 6, "{text}");
    let (is_success, text) = run("DANCE", "{}");
    assert!(!is_success && serde_json::from_str::<Value>(&text).unwrap()["code"] == 4, "{text}");
}

/// Calls `tapio-cni` alone, outside a list. Returns whether it succeeded, and its output.
fn call_tapio_cni(command: &str, config: &str, pod: &Pod) -> (bool, String) {
    use std::io::Write as _;
    let mut child = Command::new(env!("CARGO_BIN_EXE_tapio-cni"))
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", &pod.container)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}
