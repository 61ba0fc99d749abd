//! A followed file over kills and restarts of a real agent: every line is stored once.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Child;

use super::support::agent;
use super::*;

const LINES: u64 = 12_000;

/// An agent that follows a file in a folder, and its server.
struct Follower {
    dir: tempfile::TempDir,
    server: ServerHandle,
}

impl Follower {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = start(&dir.path().join("store"), any_port());
        let follower = Self { dir, server };
        let yaml = format!(
            "state_dir: {}\nnode: test\nadmin: {{ listen: \"{}\" }}\n\
             collectors: {{ only: [jsonl], jsonl: {{ paths: [\"{}\"], follow: true }} }}\n\
             bridge: {{ endpoint: \"{}\", reconnect_max: 50ms }}\n",
            follower.path("state").display(),
            free_address(),
            follower.path("log").display(),
            follower.server.grpc_addr,
        );
        std::fs::write(follower.path("agent.yaml"), yaml).unwrap();
        follower.append(0..0);
        follower
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self) -> Child {
        agent::start_quiet(&["run", "--config", &self.path("agent.yaml").display().to_string()])
    }

    fn append(&self, lines: std::ops::Range<u64>) {
        let path = self.path("log");
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        let line =
            |n| format!(r#"{{"time":1,"kind":"test.line","attributes":{{"n":{n}}}}}"#) + "\n";
        file.write_all(lines.map(line).collect::<String>().as_bytes()).unwrap();
    }

    fn rotate(&self) {
        if self.path("log.1").exists() {
            std::fs::rename(self.path("log.1"), self.path("log.2")).unwrap();
        }
        std::fs::rename(self.path("log"), self.path("log.1")).unwrap();
        self.append(0..0);
    }

    /// Events that the server has received: stored ones and repeated ones.
    fn received(&self) -> u64 {
        let ingest = self.server.status().ingest;
        ingest.events + ingest.duplicates
    }

    fn stored(&self) -> u64 {
        self.server.status().ingest.events
    }

    fn check(self) {
        let store = self.path("store");
        drop(self.server);
        let stored = stored(&store);
        assert_eq!(stored.len() as u64, LINES);
        let repeated: Vec<_> = stored.values().filter(|times| **times > 1).collect();
        assert!(repeated.is_empty(), "{} lines are stored twice", repeated.len());
    }
}

#[test]
fn lines_are_stored_once_over_kills_of_the_agent() {
    let follower = Follower::new();
    let (mut written, third) = (0, LINES / 3);
    for round in 0..3 {
        let mut agent = follower.run();
        follower.append(written..written + third / 2);
        let half = written + third / 2;
        // In the middle of the file, at three places between two saves of the cursor.
        eventually("lines are stored", || follower.stored() > written + 100 * round);
        if round == 1 {
            follower.rotate();
        }
        written += third;
        follower.append(half..written);
        std::thread::sleep(Duration::from_millis(17 * round));
        agent.kill().unwrap();
        agent.wait().unwrap();
    }
    let agent = follower.run();
    eventually("every line is stored", || follower.stored() >= LINES);
    agent::terminate(agent);
    follower.check();
}

#[test]
fn lines_are_sent_once_over_restarts_of_the_agent() {
    let follower = Follower::new();
    let fourth = LINES / 4;
    for round in 0..4 {
        let agent = follower.run();
        let written = (round + 1) * fourth;
        follower.append(round * fourth..written - 500);
        if round == 2 {
            follower.rotate();
        }
        eventually("lines are stored", || follower.stored() > round * fourth);
        // Some of them are read at the stop, others at the next start.
        follower.append(written - 500..written);
        agent::terminate(agent);
        // Rotated while the agent is away.
        if round == 1 {
            follower.rotate();
        }
    }
    let agent = follower.run();
    eventually("every line is stored", || follower.stored() >= LINES);
    agent::terminate(agent);
    assert_eq!(follower.received(), LINES, "no line is sent twice");
    follower.check();
}
