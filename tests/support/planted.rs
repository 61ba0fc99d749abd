//! An agent in whose sources secrets are planted, and the search for them in all that leaves it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::agent::{TAPIO, TestAgent, terminate, utf8};
use super::eventually::eventually_ok;
use super::net::get;
use super::planter::MARK;

/// The mark of a removed secret.
const REDACTED: &str = "[redacted]";

/// A receiver of OTLP over HTTP that keeps the bytes of all requests.
#[derive(Clone, Default)]
struct RawReceiver(Arc<Mutex<String>>);

impl RawReceiver {
    /// Starts it in a thread that ends with the process. Returns it with its port.
    fn start() -> (Self, u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let receiver = Self::default();
        let accepting = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let receiver = accepting.clone();
                std::thread::spawn(move || receiver.serve(stream));
            }
        });
        (receiver, port)
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        loop {
            let mut length = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                if let Some((name, value)) = line.split_once(':')
                    && name.eq_ignore_ascii_case("content-length")
                {
                    length = value.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            self.0.lock().unwrap().push_str(&String::from_utf8_lossy(&body));
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\n";
            (&stream).write_all(format!("{head}Content-Length: 0\r\n\r\n").as_bytes()).ok()?;
        }
    }
}

/// The agent, with a server of its own and an export.
pub(crate) struct PlantedAgent {
    pub(crate) fixture: TestAgent,
    redacts: bool,
    receiver: RawReceiver,
    log: String,
    process: Option<Child>,
}

impl PlantedAgent {
    /// An agent that isn't started. With `redacts: false` it doesn't redact events, so that the
    /// search has to find what is planted.
    pub(crate) fn new(redacts: bool) -> Self {
        let fixture = TestAgent::new();
        // A pipe would fill up.
        let log = fixture.file("log", "");
        Self { fixture, redacts, receiver: RawReceiver::default(), log, process: None }
    }

    /// Starts it with a section `collectors`, and a rule for events of these kinds whose messages
    /// are in its stories.
    pub(crate) fn start(&mut self, collectors: &str, kinds: &str) {
        self.start_with_text(collectors, kinds, "{e.message}");
    }

    /// As [`start`](Self::start), with another text of the event in stories.
    pub(crate) fn start_with_text(&mut self, collectors: &str, kinds: &str, text: &str) {
        let Self { fixture, redacts, .. } = self;
        let rule = format!(
            "rule: leaking\nevents: {{ e: {{ kind: [{kinds}] }} }}\n\
             count: {{ event: e, by: [message], within: 60s, at_least: 1 }}\n\
             story:\n  pattern: leaking\n  name: '{text}'\n  \
             root_cause: ['{text}']\n  actions: ['look at {text}']\n"
        );
        let rule = fixture.file("rule.yaml", &rule);
        let dir = rule.trim_end_matches("/rule.yaml");
        let (receiver, port) = RawReceiver::start();
        // The second sink isn't there, so that the spool keeps what it has.
        let sink = "protocol: http/protobuf, compression: none, forward: all";
        let text = format!(
            "state_dir: {dir}/left\nnode: test\nadmin: {{ listen: \"127.0.0.1:{}\" }}\n\
             log: {{ level: debug }}\ndataflow: {{ rules: [\"{rule}\"] }}\n\
             redact: {{ enabled: {redacts} }}\ncollectors: {{ {collectors} }}\n\
             export: {{ otlp: [{{ name: seen, endpoint: \"http://127.0.0.1:{port}\", {sink} }}, \
             {{ name: absent, endpoint: \"http://127.0.0.1:1\", {sink} }}] }}\n\
             bridge: {{ endpoint: \"127.0.0.1:{}\", drain_timeout: 300ms }}\n\
             server: {{ grpc_listen: \"127.0.0.1:{}\", http_listen: \"127.0.0.1:{}\", \
             data_dir: \"{dir}/left/store\" }}\n",
            fixture.admin, fixture.grpc, fixture.grpc, fixture.http,
        );
        let config = fixture.file("tapio.yaml", &text);
        let mut agent = Command::new(TAPIO);
        agent.args(["run", "--standalone", "--config", &config]).stdin(Stdio::null());
        agent.stdout(Stdio::piped()).stderr(File::create(&self.log).unwrap());
        self.receiver = receiver;
        self.process = Some(agent.spawn().unwrap());
    }

    /// Waits until a collector runs.
    pub(crate) fn wait_until_running(&self, collector: &str) {
        self.fixture.wait(|s| s["collectors"][collector]["health"] == "running");
    }

    fn page(&self, port: u16, path: &str) -> Result<String, String> {
        let (head, body) = get(port, path).ok_or_else(|| format!("{path}: {}", self.log()))?;
        if head.contains("200") { Ok(body) } else { Err(format!("{path}: {head}\n{body}")) }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The planted texts among a text of events: as many are redacted, or aren't.
    fn planted(&self, text: &str) -> usize {
        match self.redacts {
            true => text.matches(REDACTED).count(),
            false => secrets(text).len(),
        }
    }

    /// Waits until this many secrets, or their redactions, are in the events of the server and of
    /// the export, and stories are stored. Ends the agent; returns what has left it.
    pub(crate) fn finish(mut self, planted: usize) -> Left {
        let (events, stories) = eventually_ok("the planted texts are stored", || {
            let events = self.page(self.fixture.http, "/api/v1/events?limit=10000")?;
            let stories = self.page(self.fixture.http, "/api/v1/stories?limit=10000")?;
            let exported = self.receiver.0.lock().unwrap().clone();
            let counts = [&events, &exported].map(|text| self.planted(text));
            let is_stored = counts.iter().all(|count| *count >= planted);
            // Not every text that leaks is counted: the verification has the leaks.
            let leaks = self.redacts && !secrets(&events).is_empty();
            if (is_stored && stories.contains("leaking")) || leaks {
                return Ok((events, stories));
            }
            Err(format!("{counts:?} of {planted}; {}", self.log()))
        });
        let mut left = Left { redacts: self.redacts, places: Vec::new() };
        left.add("events", events);
        left.add("stories", stories);
        for path in ["/metrics", "/healthz"] {
            left.add(&format!("server's {path}"), self.page(self.fixture.http, path).unwrap());
        }
        for path in ["/status", "/metrics", "/suggested-rules"] {
            left.add(path, self.page(self.fixture.admin, path).unwrap());
        }
        let output = terminate(self.process.take().unwrap());
        let log = self.log();
        assert!(output.status.success(), "{log}");
        assert!(log.contains("DEBUG"), "{log}");
        left.add("log", log);
        left.add("output", utf8(&output.stdout));
        left.add("export", self.receiver.0.lock().unwrap().clone());
        let folder = Path::new(&self.log).with_file_name("left");
        left.add_files(&folder, &folder);
        left
    }
}

impl Drop for PlantedAgent {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The planted secrets in a text, whole or cut.
pub(crate) fn secrets(text: &str) -> BTreeSet<&str> {
    let found = text.match_indices(MARK);
    found.map(|(at, _)| text.get(at..at + MARK.len() + 5).unwrap_or(MARK)).collect()
}

/// All that has left an agent.
pub(crate) struct Left {
    redacts: bool,
    places: Vec<(String, String)>,
}

impl Left {
    fn add(&mut self, place: &str, text: String) {
        self.places.push((place.to_owned(), text));
    }

    fn add_files(&mut self, root: &Path, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                self.add_files(root, &path);
            } else if kind.is_file() {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                self.add(&name, text);
            }
        }
    }

    /// Verifies that no secret is anywhere; without redaction, that the search finds them wherever
    /// events are.
    #[track_caller]
    pub(crate) fn verify(&self) {
        let mut found = String::new();
        for (place, text) in &self.places {
            let secrets = secrets(text);
            if !secrets.is_empty() {
                let first: Vec<_> = secrets.iter().take(10).collect();
                let _ = writeln!(found, "{place}: {} secrets, such as {first:?}", secrets.len());
            }
        }
        if self.redacts {
            assert!(found.is_empty(), "{found}");
            return;
        }
        let has = |start: &str| {
            let mut of_start = self.places.iter().filter(|(place, _)| place.starts_with(start));
            of_start.any(|(_, text)| !secrets(text).is_empty())
        };
        for place in ["events", "stories", "export", "store/", "spool"] {
            let names: Vec<_> = self.places.iter().map(|(name, _)| name).collect();
            assert!(has(place), "the search finds nothing in {place}: {names:?}\n{found}");
        }
        // These are redacted in any case.
        assert!(!has("log") && !has("/status") && !has("/metrics"), "{found}");
    }
}
