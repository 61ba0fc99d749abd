//! The Kubernetes collector and its API server are killed, hung and flooded: the other sources lose
//! nothing (`tests/isolation.rs` has the other collectors).

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::cluster::Cluster;
use crate::fault_injection::FaultTest;

#[test]
fn kubernetes_collector_faults_are_isolated() {
    let Some(cluster) = Cluster::start("") else { return };
    cluster.namespace("shop");
    let config = format!("kubeconfig: {:?}, context: admin, node: node-a", cluster.kubeconfig());
    let Some(mut test) = FaultTest::begin("k8s", &config) else { return };
    let mut n = 0;
    let trigger = &mut || {
        n += 1;
        cluster.pod(&format!("web-{n}"), "node-a");
    };
    test.panics_and_hangs(trigger);
    // The server hangs: connections stay open and silent.
    std::thread::sleep(Duration::from_millis(500));
    let before = test.forwarded_when_idle();
    cluster.signal_apiserver(Signal::STOP);
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!((test.health(), test.forwarded()), ("running".into(), before));
    cluster.signal_apiserver(Signal::CONT);
    test.emits(trigger);
    // It is killed and restarted.
    cluster.kill_apiserver();
    test.wait_until("the status names it", |o| {
        o.status()["notes"]["pods"].to_string().contains("retrying")
    });
    cluster.start_apiserver("");
    test.emits(trigger);
    // A flood of pods' Events.
    let before = test.forwarded_when_idle();
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
    test.wait_until("all Events are stored", |o| o.forwarded() >= before + 300);
    test.emits(trigger);
    test.end();
}
