//! Stories of pods that don't start, with the words of a real kubelet and containerd.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd as _;
use std::time::Duration;

use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value as Json, json};

use crate::agent::Agent;
use crate::cluster::Cluster;
use crate::node::Lab;

/// A registry in the node's network that has no image. Returns its port.
fn empty_registry(cluster: &Cluster) -> u16 {
    let pid = std::fs::read_to_string(cluster.path("node/ns.pid")).unwrap();
    let namespace = std::fs::File::open(format!("/proc/{}/ns/net", pid.trim())).unwrap();
    // Only the thread moves.
    let bound = std::thread::spawn(move || {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), network).unwrap();
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
    });
    let listener = bound.join().unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let answer = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = client.read(&mut [0; 4096]);
            let _ = client.write_all(answer.as_bytes());
        }
    });
    port
}

/// Creates a pod of one container.
fn create(cluster: &Cluster, name: &str, mut container: Json, volumes: &Json) {
    container["name"] = "app".into();
    let spec = json!({
        "nodeName": "lab-node",
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
        "volumes": volumes,
    });
    let pod = json!({"metadata": {"name": name}, "spec": spec});
    cluster.create("/api/v1/namespaces/default/pods", &pod);
}

/// The stories of these patterns, as name and first cause, in the order of their names.
fn stories(agent: &Agent) -> Vec<(String, String)> {
    let is_wanted = |s: &Json| {
        let of = ["image-pull-failure", "volume-failure"].iter().any(|p| s["pattern"] == *p);
        of && s["state"] != "retracted"
    };
    let text = |s: &Json| s.as_str().unwrap_or_default().to_owned();
    let named = |s: Json| (text(&s["name"]), text(&s["root_causes"][0]["cause"]));
    let mut all: Vec<_> = agent.stories().into_iter().filter(is_wanted).map(named).collect();
    all.sort();
    all
}

fn affects(agent: &Agent, name: &str, pods: &[&str]) -> bool {
    let stories = agent.stories();
    let of = stories.iter().find(|s| s["name"].as_str().is_some_and(|n| n.contains(name)));
    of.is_some_and(|story| {
        let affected = story["impact"]["affected"].to_string();
        pods.iter().all(|pod| affected.contains(&format!("pod default/{pod}")))
    })
}

#[test]
fn one_story_each_for_registry_image_and_volume() {
    let Some(lab) = Lab::start() else { return };
    let cluster = lab.cluster();
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(folder.path(), &lab.collectors());
    agent.wait("pods are watched", |a| a.status().to_string().contains("\"watches\""));
    let port = empty_registry(cluster);
    let absent = format!("127.0.0.1:{port}/shop/web:1");
    // Nothing listens on port 9: the registry of two images.
    for (pod, image) in [
        ("cart", "127.0.0.1:9/shop/cart:1"),
        ("pay", "127.0.0.1:9/shop/pay:1"),
        ("web-1", &absent),
        ("web-2", &absent),
    ] {
        create(cluster, pod, json!({"image": image}), &json!([]));
    }
    let mounts = json!([{"name": "settings", "mountPath": "/settings"}]);
    let container = json!({"image": "docker.io/lab/app:1", "volumeMounts": mounts});
    let volumes = json!([{"name": "settings", "configMap": {"name": "absent"}}]);
    create(cluster, "queue", container, &volumes);

    let image = format!("image {absent} can't be pulled");
    let registry = "no image can be pulled from registry 127.0.0.1:9";
    let volume = "pods of default can't mount volume settings";
    agent.wait_within(Duration::from_secs(120), "all pods are affected", |a| {
        affects(a, registry, &["cart", "pay"])
            && affects(a, &image, &["web-1", "web-2"])
            && affects(a, volume, &["queue"])
    });
    let found = stories(&agent);
    println!("{found:#?}");
    let names: Vec<&str> = found.iter().map(|(name, _)| &name[..]).collect();
    assert_eq!(names, [&image[..], registry, volume], "{found:#?}");
    assert_eq!(found[0].1, format!("image {absent}: not found"));
    let refused = "127.0.0.1:9: connect: connection refused";
    assert!(found[1].1.ends_with(refused), "{}", found[1].1);
    assert_eq!(found[2].1, "volume settings: configmap \"absent\" not found");
    agent.end(Signal::TERM);
}
