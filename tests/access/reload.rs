//! Certificates that are replaced while events flow.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tapio::load::{LoadConfig, run};
use tapio::runtime::Agent;
use tapio_core::shutdown::Shutdown;

use super::pki::{Authority, secret};
use super::sender::{config, events_of, server};
use super::support::eventually::eventually;

/// How often the certificates are replaced, and the events that the agent sends.
const ROUNDS: usize = 20;
const EVENTS: usize = 20_000;

#[test]
fn certificates_are_replaced_while_events_flow_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let settings = format!(", tls: {{ {} }}, readers: [reader]", authority.mutual());
    let server = server(folder.path(), &settings);
    let endpoint = server.grpc_endpoint().to_owned();
    let (node, sender) = (authority.node("n1"), authority.node("n2"));
    let tls = node.tls.clone().unwrap();
    let [ca, cert, key] = [tls.ca, tls.cert, tls.key].map(|path| path.unwrap());
    let text = format!(
        "node: n1\nstate_dir: {}\nadmin: {{ listen: \"127.0.0.1:0\" }}\n\
         collectors: {{ only: [synthetic], synthetic: {{ enabled: true, rate: {}, events: {EVENTS} }} }}\n\
         bridge: {{ endpoint: \"{endpoint}\", tls: {{ ca: {}, cert: {}, key: {} }} }}\n",
        folder.path().join("state").display(),
        EVENTS / 4,
        ca.display(),
        cert.display(),
        key.display()
    );
    let agent = Agent::start(config(&text), false).unwrap();
    let ended = AtomicBool::new(false);
    let (offered, acked) = std::thread::scope(|scope| {
        // Each of its connections has a handshake with the certificates of that time.
        let loads = scope.spawn(|| {
            let load = LoadConfig {
                target: endpoint.clone(),
                access: sender.clone(),
                node: "n2".into(),
                rate: Some(2_000),
                duration: Duration::from_millis(100),
                ..LoadConfig::default()
            };
            let (mut offered, mut acked) = (0, 0);
            while !ended.load(Ordering::Relaxed) {
                let report = run(&load, &Shutdown::default()).unwrap();
                offered += report.offered;
                acked += report.acked;
            }
            (offered, acked)
        });
        for _ in 0..ROUNDS {
            authority.server();
            authority.node("n1");
            std::thread::sleep(Duration::from_millis(100));
        }
        // A broken file: handshakes go on with the certificate before it.
        let before = server.status().access.reload_failures;
        secret(&folder.path().join("authority-server.cert.pem"), "nonsense");
        eventually("the broken file is noticed", || {
            server.status().access.reload_failures > before
        });
        std::thread::sleep(Duration::from_millis(300));
        ended.store(true, Ordering::Relaxed);
        loads.join().unwrap()
    });
    eventually("the agent has sent everything", || {
        agent.sources_are_finished() && agent.account().total.held == 0
    });
    let account = agent.finish().account;
    assert!(account.holds() && account.total.held == 0, "{account:?}");
    assert_eq!(account.total.received, EVENTS as u64);
    assert_eq!(acked, offered);
    let status = server.status();
    assert_eq!(status.ingest.events, offered + EVENTS as u64);
    assert_eq!(status.access.handshakes_failed.values().sum::<u64>(), 0, "{status:?}");
    assert!(events_of(&endpoint, &authority.node("reader"), "n1").unwrap() > 0);
}
