//! The CNI collector and the plugin `tapio-cni` with Debian's real plugins: bridge and host-local, in network and mount
//! namespaces of each test's own.
//!
//! Without root or the plugins (`scripts/test-deps.sh`) a test says why it is skipped; `TAPIO_REQUIRE_KERNEL=1` makes that
//! a failure.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail and speak as tests do, and measure with the clock themselves"
)]

#[path = "cni/chain.rs"]
mod chain;
#[path = "collectors/pipeline.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod pipeline;

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use chain::{INSIDE, Network, Pod, inside};
use pipeline::Pipeline;
use serde_json::{Value, json};
use tapio_collectors::{CollectorConfig as _, Site, cni};
use tapio_core::event::{Reason, Stage};
use tapio_core::identity::Whose;

fn start(folder: &Path) -> Pipeline {
    start_at(Site::new("node-1", 7), folder)
}

fn start_at(site: Site, folder: &Path) -> Pipeline {
    let config = cni::Config {
        socket: folder.join("cni.sock"),
        networks: folder.join("networks"),
        // What happens to the machine's own links meanwhile is nobody's business.
        links: std::env::var_os(INSIDE).is_some(),
        ..cni::Config::default()
    };
    let pipeline =
        Pipeline::start_at(site, vec![("cni", config.on_full(), config.factory())], true);
    pipeline.wait_until("it listens", |_| folder.join("cni.sock").exists());
    pipeline
}

fn bridge(folder: &Path, name: &str, subnet: &str) -> Value {
    json!({"type": "bridge", "bridge": name, "isGateway": true, "ipam":
        {"type": "host-local", "subnet": subnet, "dataDir": folder.join("networks")}})
}

fn ours(folder: &Path) -> Value {
    json!({"type": "tapio-cni", "socket": folder.join("cni.sock")})
}

/// Events of a kind.
fn of(pipeline: &Pipeline, kind: &str) -> Vec<Value> {
    let got = pipeline.got.lock().unwrap();
    got.iter().map(|(_, event)| event.clone()).filter(|e| e["kind"] == kind).collect()
}

fn wait_for(pipeline: &Pipeline, kind: &str, count: usize) -> Vec<Value> {
    pipeline.wait_until(&format!("{count} {kind}"), |p| of(p, kind).len() >= count);
    let events = of(pipeline, kind);
    assert_eq!(events.len(), count, "{events:#?}");
    events
}

#[test]
fn a_pod_comes_and_goes() {
    if !inside("a_pod_comes_and_goes") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let pipeline = start(folder);
    let network = Network {
        name: "podnet",
        plugins: vec![bridge(folder, "cni0", "10.88.0.0/16"), ours(folder)],
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
        assert!(!event.to_string().contains("opensesame"), "what isn't a pod's name stays out");
    }
    assert_eq!(of(&pipeline, "cni.add")[0]["message"], "shop/pod1 joined network podnet");
    assert_eq!(of(&pipeline, "cni.ip.allocated")[0]["message"], "10.88.0.2 allocated to shop/pod1");
    let directory = &pipeline.site.directory;
    let whose = Some(Whose::Pod(pod.uid.as_str().into()));
    assert_eq!(directory.whose(address.parse().unwrap()), whose);
    assert_eq!(directory.pod_of_network(inode).as_deref(), Some(pod.uid.as_str()));
    assert_eq!(directory.container(&pod.container).unwrap().pod_name.as_ref(), "pod1");

    network.each("CHECK", &pod, Some(&result));
    wait_for(&pipeline, "cni.check", 1);
    // Runtimes repeat DEL, with the result and without.
    network.each("DEL", &pod, Some(&result));
    network.each("DEL", &pod, Some(&result));
    network.each("DEL", &pod, None);
    let event = &wait_for(&pipeline, "cni.ip.released", 1)[0];
    assert_eq!(event["entity"]["k8s.pod.name"], "pod1");
    pipeline.wait_until("three reports of DEL", |p| {
        p.manager.status()[0].counters.contains(&("repeated_dels".into(), 2))
    });
    wait_for(&pipeline, "cni.del", 1);
    assert!(directory.living_pods().is_empty());
    // The link's end on the host was the pod's.
    let veth = |kind| {
        let of_kind = of(&pipeline, kind);
        of_kind.into_iter().filter(|e| e["attributes"]["tapio.link.kind"] == "veth").collect()
    };
    pipeline.wait_until("the pair is gone", |p| {
        of(p, "network.link.down").iter().any(|e| e["attributes"]["tapio.link.kind"] == "veth")
    });
    let (up, down): (Vec<Value>, Vec<Value>) = (veth("network.link.up"), veth("network.link.down"));
    assert_eq!((up.len(), down.len()), (1, 1));
    assert_eq!(down[0]["entity"]["k8s.pod.uid"], pod.uid);
    pipeline.shutdown.request();
    assert!(pipeline.end().total.dropped.is_empty());
}

#[test]
fn what_a_plugin_complains_of_is_told_where_ours_runs_it() {
    if !inside("what_a_plugin_complains_of_is_told_where_ours_runs_it") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let pipeline = start(folder);
    let mut wrapped = ours(folder);
    wrapped["delegate"] = bridge(folder, "cni0", "10.99.0.0/30");
    let network = Network { name: "tiny", plugins: vec![wrapped.clone()] };
    // A /30 has room for one pod beside its gateway.
    let pods = [Pod::new(1), Pod::new(2), Pod::new(4)];
    let result = network.add(&pods[0]).unwrap();
    assert!(result.contains("10.99.0.2/30"), "{result}");
    let said = network.add(&pods[1]).unwrap_err();
    let bare = Network { name: "tiny", plugins: vec![wrapped["delegate"].clone()] };
    assert_eq!(
        said.trim_end(),
        bare.add(&pods[2]).unwrap_err().trim_end(),
        "the plugin's answer is passed on"
    );
    let event = &wait_for(&pipeline, "cni.failed", 1)[0];
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("no IP addresses available in range set: 10.99.0.1-10.99.0.2"));
    assert_eq!(event["entity"]["k8s.pod.name"], "pod2");
    assert_eq!(event["severity"], "error");
    for (key, value) in [("command", "ADD"), ("plugin", "bridge"), ("network", "tiny")] {
        assert_eq!(event["attributes"][format!("tapio.cni.{key}")], value);
    }
    let code = serde_json::from_str::<Value>(&said).unwrap()["code"].to_string();
    assert_eq!(event["attributes"]["error.type"], code);
    let added = &wait_for(&pipeline, "cni.add", 1)[0];
    let took = |e: &Value| e["attributes"]["tapio.cni.duration_ns"].as_u64().unwrap();
    assert!(took(added) > 0 && took(event) > 0);

    // No such namespace; eth0 is there already.
    let mut nowhere = Pod::new(3);
    nowhere.netns = "/run/netns/none".into();
    assert!(network.add(&nowhere).is_err());
    let event = wait_for(&pipeline, "cni.failed", 2).pop().unwrap();
    assert!(event["message"].as_str().unwrap().contains("/run/netns/none"), "{event:#}");
    assert!(network.add(&pods[0]).is_err());
    let event = wait_for(&pipeline, "cni.failed", 3).pop().unwrap();
    assert!(event["message"].as_str().unwrap().contains("eth0"), "{event:#}");
    network.each("DEL", &pods[0], Some(&result));
    wait_for(&pipeline, "cni.del", 1);
    pipeline.shutdown.request();
    assert!(pipeline.end().total.dropped.is_empty());
}

#[test]
fn a_pod_starts_whatever_the_agent_does() {
    if !inside("a_pod_starts_whatever_the_agent_does") {
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
        plugins: vec![bridge(folder, "cni0", "10.88.0.0/16"), ours(folder)],
    };
    let round = |what: &str| {
        let result = network.add(&pod);
        assert!(result.is_ok(), "{what}: {result:?}");
        network.each("DEL", &pod, result.ok().as_deref());
    };
    round("the agent was never here");
    let packet = |flags| socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    let address = SocketAddrUnix::new(&path).unwrap();
    let listener = packet(SocketFlags::empty()).unwrap();
    bind(&listener, &address).unwrap();
    listen(&listener, 1).unwrap();
    // Its queue is full and it never takes anything: the plugin gives up by itself.
    let mut peers = Vec::new();
    loop {
        let peer = packet(SocketFlags::NONBLOCK).unwrap();
        if connect(&peer, &address).is_err() {
            break;
        }
        peers.push(peer);
    }
    round("the agent hangs");
    drop(peers);
    drop(listener);
    round("the agent is dead and its socket is left");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "no socket at all").unwrap();
    round("something else is there");
}

#[test]
fn the_nodes_own_network_is_told() {
    if !inside("the_nodes_own_network_is_told") {
        return;
    }
    let ip = |args: &str| {
        let done = Command::new("ip").args(args.split(' ')).output().unwrap();
        assert!(done.status.success(), "ip {args}: {}", String::from_utf8_lossy(&done.stderr));
    };
    // What is there before the agent is no news.
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
        of(p, "network.link.up").iter().map(name).collect()
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
    pipeline.wait_until("all three are down", |p| of(p, "network.link.down").len() >= 3);
    let kinds: Vec<_> = of(&pipeline, "network.link.down")
        .iter()
        .map(|e| e["attributes"]["tapio.link.kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds.iter().filter(|k| *k == "veth").count(), 2, "{kinds:?}");
    pipeline.shutdown.request();
    assert!(pipeline.end().total.dropped.is_empty());
}

#[test]
fn two_hundred_pods_at_once_are_told_once_each() {
    if !inside("two_hundred_pods_at_once_are_told_once_each") {
        return;
    }
    const PODS: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let pipeline = start(folder);
    // Only addresses are given: two hundred bridges' ports would test the kernel.
    let network = Network {
        name: "burst",
        plugins: vec![
            json!({"type": "host-local", "ipam": {"type": "host-local", "subnet": "10.77.0.0/16",
                "dataDir": folder.join("networks")}}),
            ours(folder),
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
                            _ => network.each(command, pod, None),
                        }
                    }
                });
            }
        });
    };
    all("ADD");
    all("DEL");
    for kind in ["cni.add", "cni.ip.allocated", "cni.del", "cni.ip.released"] {
        let mut seen: HashMap<String, usize> = HashMap::new();
        for event in wait_for(&pipeline, kind, PODS) {
            let name = event["entity"]["k8s.pod.name"].as_str().unwrap_or_default();
            *seen.entry(name.into()).or_default() += 1;
        }
        assert_eq!(seen.len(), PODS, "{kind}: each pod once, under its own name");
    }
    pipeline.shutdown.request();
    let total = pipeline.end().total;
    assert!(total.dropped.is_empty(), "{:?}", total.dropped);
}

#[test]
fn addresses_given_while_the_agent_was_away_are_told_and_others_are_not_again() {
    let folder = tempfile::tempdir().unwrap();
    let networks = folder.path().join("networks/podnet");
    std::fs::create_dir_all(&networks).unwrap();
    let give =
        |n: u32| std::fs::write(networks.join(format!("10.1.0.{n}")), format!("c{n}\r\neth0"));
    let run = || {
        let site = Site::new("node-1", 7).with_state_dir(folder.path().join("state"));
        start_at(site, folder.path())
    };
    let saved = || {
        let text = std::fs::read_to_string(folder.path().join("state/cursors/cni"));
        text.unwrap_or_default()
    };
    give(1).unwrap();
    let first = run();
    first.wait_until("the place is saved", |_| !saved().is_empty());
    give(2).unwrap();
    let told = wait_for(&first, "cni.ip.allocated", 1);
    assert_eq!(told[0]["attributes"]["network.local.address"], "10.1.0.2", "the first was there");
    assert_eq!(told[0]["attributes"]["tapio.identity"], "unresolved", "nobody knows the container");
    first.wait_until("the place is saved", |_| saved().contains("10.1.0.2"));
    first.shutdown.request();
    first.end();

    give(3).unwrap();
    let second = run();
    let told = wait_for(&second, "cni.ip.allocated", 1);
    assert_eq!(told[0]["attributes"]["network.local.address"], "10.1.0.3");
    second.wait_until("the place is saved", |_| saved().contains("10.1.0.3"));
    second.shutdown.request();
    assert_eq!(second.end().total.forwarded, 1);
}

#[test]
fn what_is_no_report_is_refused_and_counted() {
    use rustix::net::{
        AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send,
        socket_with,
    };
    let folder = tempfile::tempdir().unwrap();
    let pipeline = start(folder.path());
    let address = SocketAddrUnix::new(folder.path().join("cni.sock")).unwrap();
    let tell = |bytes: &[u8]| {
        let flags = SocketFlags::CLOEXEC;
        let peer = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        connect(&peer, &address).unwrap();
        send(&peer, bytes, SendFlags::NOSIGNAL).unwrap();
    };
    let bad: [&[u8]; 5] = [b"{", b"[]", b"\xff\xfe", b"{\"command\":\"STATUS\"}", &[b' '; 20_000]];
    bad.iter().for_each(|bytes| tell(bytes));
    tell(br#"{"command":"DEL","network":"n","container_id":"c","a newer field":[1]}"#);
    wait_for(&pipeline, "cni.del", 1);
    pipeline.shutdown.request();
    let total = pipeline.end().total;
    assert_eq!(total.dropped, [(Stage::Collect, Reason::BadInput, bad.len() as u64)]);
}

#[test]
fn another_users_reports_are_not_heard() {
    if !inside("another_users_reports_are_not_heard") {
        return;
    }
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    let folder = tempfile::tempdir().unwrap();
    let pipeline = start(folder.path());
    // The file's mode keeps others out already; here it is taken away to see the second barrier.
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
    pipeline.wait_until("it is noticed", |p| {
        p.manager.status()[0].counters.contains(&("strangers".into(), 1))
    });
    assert!(of(&pipeline, "cni.del").is_empty());
    pipeline.shutdown.request();
    pipeline.end();
}

#[test]
fn the_specifications_commands_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let pod = Pod {
        container: "c".into(),
        netns: String::new(),
        name: String::new(),
        uid: String::new(),
    };
    let socket = folder.path().join("cni.sock");
    let run = |command: &str, config: &str| plain(command, config, &pod);
    let (fine, text) = run("VERSION", r#"{"cniVersion":"0.4.0"}"#);
    let version: Value = serde_json::from_str(&text).unwrap();
    assert!(fine);
    assert_eq!(version["cniVersion"], "0.4.0");
    assert_eq!(version["supportedVersions"], json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    let previous = r#"{"cniVersion":"1.1.0",  "ips":[{"address":"10.0.0.1/8"}],"x":1.10,"big":123456789012345678901234567890}"#;
    let config = format!(
        r#"{{"cniVersion":"1.1.0","name":"n","socket":{socket:?},"prevResult":{previous}}}"#
    );
    assert_eq!(run("ADD", &config), (true, format!("{previous}\n")), "to the last byte");
    for command in ["DEL", "CHECK", "GC", "STATUS"] {
        assert_eq!(run(command, &config), (true, String::new()), "{command}");
    }
    assert_eq!(run("DEL", "garbage"), (true, String::new()), "what is to go must go");
    let (fine, text) = run("ADD", "garbage");
    assert!(!fine && serde_json::from_str::<Value>(&text).unwrap()["code"] == 6, "{text}");
    let (fine, text) = run("DANCE", "{}");
    assert!(!fine && serde_json::from_str::<Value>(&text).unwrap()["code"] == 4, "{text}");
}

/// Calls ours without the others.
fn plain(command: &str, config: &str, pod: &Pod) -> (bool, String) {
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
