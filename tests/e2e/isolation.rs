//! The Kubernetes collector killed, hung and flooded, and its API server, too: the other sources lose nothing (as
//! `tests/isolation.rs` has it for the other collectors).

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::cluster::Cluster;
use crate::ordeal::Ordeal;

#[test]
fn the_kubernetes_collector_suffers_alone() {
    let Some(cluster) = Cluster::start("") else { return };
    cluster.namespace("shop");
    let config = format!("kubeconfig: {:?}, context: admin, node: node-a", cluster.kubeconfig());
    let Some(mut ordeal) = Ordeal::begin("k8s", &config) else { return };
    let mut n = 0;
    let provoke = &mut || {
        n += 1;
        cluster.pod(&format!("web-{n}"), "node-a");
    };
    ordeal.suffers(provoke);
    // The server hangs: connections stay, and nothing comes.
    std::thread::sleep(Duration::from_millis(500));
    let before = ordeal.settled();
    cluster.signal_apiserver(Signal::STOP);
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!((ordeal.health(), ordeal.told()), ("running".into(), before));
    cluster.signal_apiserver(Signal::CONT);
    ordeal.tells(provoke);
    // It is killed, and comes back.
    cluster.kill_apiserver();
    ordeal.until("the status says so", |o| {
        o.status()["notes"]["pods"].to_string().contains("tried again")
    });
    cluster.start_apiserver("");
    ordeal.tells(provoke);
    // A flood of pods' Events.
    let before = ordeal.settled();
    std::thread::scope(|scope| {
        for part in 0..4 {
            let cluster = &cluster;
            scope.spawn(move || {
                for n in 0..75 {
                    let body = json!({"metadata": {"name": format!("flood-{part}-{n}")},
                        "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "web-1"},
                        "reason": "BackOff", "type": "Warning", "message": "Back-off", "count": 1,
                        "firstTimestamp": "2026-01-15T10:00:10Z", "lastTimestamp": "2026-01-15T10:01:10Z",
                        "source": {"component": "kubelet", "host": "node-a"}});
                    cluster.create("/api/v1/namespaces/shop/events", &body);
                }
            });
        }
    });
    ordeal.until("all of them are told", |o| o.told() >= before + 300);
    ordeal.tells(provoke);
    ordeal.end();
}
