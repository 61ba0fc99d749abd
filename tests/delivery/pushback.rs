//! A full agent: its connections stay alive, and what was sent arrives once there is room.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value as Json;
use tapio_core::clock;
use tapio_wire::{IngestClient, IngestClientConfig, grpc_framed, proto};

use super::support::agent;
use super::support::net::{free_port, get_json};
use prost::Message as _;

use super::*;

const EVENTS: u64 = 150_000;
const BATCH_EVENTS: u64 = 250;

/// An HTTP/2 connection that only pings (RFC 9113, sections 3.4, 4.1 and 6.7).
struct Pings(TcpStream);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;

impl Pings {
    fn connect(to: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        stream.write_all(&[PREFACE, &[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]].concat()).unwrap();
        Self(stream)
    }

    /// Sends a ping and waits for its answer, a second at most.
    fn ping(&mut self, n: u64) -> std::io::Result<()> {
        self.0.write_all(&[&[0, 0, 8, PING, 0, 0, 0, 0, 0][..], &n.to_be_bytes()].concat())?;
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head)?;
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; len as usize];
            self.0.read_exact(&mut payload)?;
            if (head[3], head[4]) == (PING, ACK) && payload == n.to_be_bytes() {
                return Ok(());
            }
        }
    }
}

fn batch(first: u64) -> Vec<u8> {
    let event = |n: u64| proto::Event {
        time_unix_nano: 1,
        id: EventId::from_sequence(1, 7, n).0.to_vec(),
        message: "m".repeat(100),
        ..Default::default()
    };
    let batch = proto::EventBatch {
        first_sequence: first,
        count: BATCH_EVENTS as u32,
        node: "sender".into(),
        epoch: 1,
        names: vec!["test.kind".into()],
        events: (first..first + BATCH_EVENTS).map(event).collect(),
        ..Default::default()
    };
    batch.encode_to_vec()
}

/// Sends all events on one connection, whose keepalive needs an answer within half a second.
/// Returns once they are acknowledged.
fn send(to: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = IngestClientConfig::to(&to.to_string());
        config.keepalive = Duration::from_secs(1);
        let mut client = IngestClient::connect(&config).await.unwrap();
        let (mut sent, mut through) = (0, 0);
        while through < EVENTS {
            // The client refuses what the connection has no room for.
            while sent < EVENTS && client.send_framed(grpc_framed(&batch(sent))).is_ok() {
                sent += BATCH_EVENTS;
            }
            if let Ok(ack) = tokio::time::timeout(Duration::from_millis(2), client.ack()).await {
                through = ack.unwrap().through;
            }
        }
    });
}

/// Events that the agent's collectors have received.
fn received(admin: u16) -> Option<u64> {
    get_json(admin, "/status")?["cons1"]["total"]["received"].as_u64()
}

#[test]
fn full_agent_answers_pings_and_receives_the_rest_later() {
    let dir = tempfile::tempdir().unwrap();
    let (listen, server, admin) = (free_address(), free_address(), free_port());
    let path = dir.path().join("agent.yaml");
    let yaml = format!(
        "state_dir: {}\nnode: test\nadmin: {{ listen: \"127.0.0.1:{admin}\" }}\n\
         dataflow: {{ buffer_size: 1000 }}\n\
         collectors: {{ only: [receiver], receiver: {{ enabled: true, listen: \"{listen}\" }} }}\n\
         bridge: {{ endpoint: \"{server}\", reconnect_max: 50ms, queue_bytes: 1048576, \
         spool_bytes: 0 }}\n",
        dir.path().join("state").display(),
    );
    std::fs::write(&path, yaml).unwrap();
    let agent = agent::start_quiet(&["run", "--config", &path.display().to_string()]);
    eventually("the agent listens", || TcpStream::connect(listen).is_ok());
    let sender = std::thread::spawn(move || send(listen));
    let mut before = None;
    eventually("the agent is full", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = received(admin);
        std::mem::replace(&mut before, now) == now && now.is_some_and(|n| n > 0)
    });
    assert!(before.is_some_and(|n| n < EVENTS), "{before:?}");
    let mut pings = Pings::connect(listen);
    let until = clock::instant() + Duration::from_secs(4);
    let mut n = 0;
    while clock::instant() < until {
        n += 1;
        pings.ping(n).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(received(admin), before, "nothing is read meanwhile");
    let server = start(&dir.path().join("store"), server);
    sender.join().unwrap();
    let status: Json = get_json(admin, "/status").unwrap();
    assert_eq!(status["cons1"]["holds"], true, "{status}");
    assert_eq!(status["cons1"]["total"]["received"], EVENTS, "{status}");
    assert_eq!(status["cons1"]["total"]["dropped"], serde_json::json!({}), "{status}");
    agent::terminate(agent);
    drop(server);
    let stored = stored(&dir.path().join("store"));
    assert_eq!(stored.len() as u64, EVENTS);
    assert!(stored.values().all(|times| *times == 1));
}
