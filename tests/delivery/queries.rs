//! Queries find what a scan of everything finds, whatever segments the events are in and however
//! the answer is divided into pages.

mod annotations;
mod damaged_store;
mod web_stream;

use std::path::PathBuf;

use prost::Message as _;
use serde_json::Value as Json;
use tapio::server::{List, Page};
use tapio_wire::proto;
use tonic::transport::Channel;

use super::support::sim_disk::{Rng, SimDisk};
use super::*;

const KINDS: [&str; 4] = ["t.one", "t.two", "u.three", "u.four"];
const PATTERNS: [&str; 2] = ["crash-loop", "oom"];
/// The rules of the stories in which events have these patterns.
const RULES: [&str; 2] = ["crash-rule", "oom-rule"];
const WORDS: [&str; 4] = ["Connection REFUSED", "out of memory", "größer", ""];

/// An event as it was stored.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    id: Vec<u8>,
    receipt_ns: u64,
    time_ns: u64,
    severity: u8,
    node: String,
    kind: usize,
    trace: Vec<u8>,
    pod: String,
    patterns: Vec<usize>,
    message: String,
}

impl Stored {
    fn random(id: u64, receipt_ns: u64, node: &str, rng: &mut Rng) -> Self {
        let trace = match rng.below(5) {
            0 => Vec::new(),
            n => vec![n as u8; 16],
        };
        Self {
            id: u128::from(id).to_be_bytes().to_vec(),
            receipt_ns,
            time_ns: (receipt_ns + rng.below(50)).saturating_sub(25),
            severity: rng.below(25) as u8,
            node: node.to_owned(),
            kind: rng.below(KINDS.len() as u64) as usize,
            trace,
            pod: format!("pod-{}", rng.below(12)),
            patterns: (0..PATTERNS.len()).filter(|_| rng.one_in(3)).collect(),
            message: format!("{} {id}", WORDS[rng.below(4) as usize]),
        }
    }

    fn to_proto(&self) -> proto::Event {
        let field = |key: usize, text: &str| proto::Field {
            key: key as u32,
            value: Some(proto::field::Value::StringValue(text.to_owned())),
        };
        let host = KINDS.len() + 1 + PATTERNS.len() + RULES.len();
        let correlation = |pattern: &usize| proto::Correlation {
            pattern: (KINDS.len() + 1 + pattern) as u32,
            rule: (KINDS.len() + 1 + PATTERNS.len() + pattern) as u32,
            ..Default::default()
        };
        proto::Event {
            time_unix_nano: self.time_ns,
            id: self.id.clone(),
            kind: self.kind as u32,
            severity: u32::from(self.severity),
            trace_id: self.trace.clone(),
            message: self.message.clone(),
            entity: vec![field(KINDS.len(), &self.pod), field(host, &self.node)],
            correlations: self.patterns.iter().map(correlation).collect(),
            ..Default::default()
        }
    }

    fn matches(&self, filter: &Filter) -> bool {
        (filter.node.is_empty() || filter.node == self.node)
            && (filter.trace_id.is_empty() || filter.trace_id == self.trace)
            && (filter.kind.is_empty() || tapio_core::glob::matches(&filter.kind, KINDS[self.kind]))
            && filter.entities.iter().all(|one| match one.split_once('=') {
                Some(("k8s.pod.name", pod)) => pod == self.pod,
                Some(("host.name" | "node", node)) => node == self.node,
                _ => false,
            })
            && filter.since_ns <= self.time_ns
            && (filter.until_ns == 0 || self.time_ns < filter.until_ns)
            && filter.severity.0 <= self.severity
            && (filter.pattern.is_empty()
                || self.patterns.iter().any(|p| {
                    PATTERNS[*p] == filter.pattern || filter.rules.iter().any(|r| r == RULES[*p])
                }))
            && self.message.to_lowercase().contains(&filter.text.to_lowercase())
    }
}

fn random_filter(rng: &mut Rng, last_ns: u64) -> Filter {
    let mut one_of = |texts: &[&str]| texts[rng.below(texts.len() as u64) as usize].to_owned();
    let kind = one_of(&["", "", "", "t.one", "u.*", "absent"]);
    let node = one_of(&["", "", "", "node-0", "node-2", "absent"]);
    let entities = ["k8s.pod.name=pod-3", "k8s.pod.name=absent", "process.pid=1", "node=node-2"];
    let entity = one_of(&[&["", "", "", "host.name=node-1"][..], &entities].concat());
    let pattern = one_of(&["", "", "", "oom", "absent"]);
    let rule = one_of(&["", "crash-rule", "absent"]);
    let text = one_of(&["", "", "", "refused", "OUT of", "GRÖSS", "Größ", "7", "absent"]);
    let trace_id = match rng.below(12) {
        n @ 1..=5 => vec![n as u8; 16],
        _ => Vec::new(),
    };
    let severity = Severity(if rng.one_in(3) { rng.below(25) as u8 } else { 0 });
    let since_ns = if rng.one_in(3) { rng.below(last_ns) } else { 0 };
    let until_ns = if rng.one_in(3) { since_ns + 1 + rng.below(last_ns) } else { 0 };
    let filter = Filter {
        since_ns,
        until_ns,
        severity,
        trace_id,
        node,
        kind,
        entities: (!entity.is_empty()).then_some(entity).into_iter().collect(),
        text,
        rules: (!pattern.is_empty() && !rule.is_empty()).then_some(rule).into_iter().collect(),
        pattern,
        ..Filter::default()
    };
    filter.check().unwrap();
    filter
}

/// Stores a batch of one node.
fn append(storage: &mut Storage, events: &[Stored], first_sequence: u64) {
    let names = KINDS
        .iter()
        .chain(&["k8s.pod.name"])
        .chain(&PATTERNS)
        .chain(&RULES)
        .chain(&["host.name"])
        .map(|n| (*n).to_owned());
    let bytes = proto::EventBatch {
        first_sequence,
        count: events.len() as u32,
        node: events[0].node.clone(),
        epoch: 7,
        names: names.collect(),
        events: events.iter().map(Stored::to_proto).collect(),
        ..Default::default()
    }
    .encode_to_vec();
    storage.append(&bytes, events[0].receipt_ns).unwrap();
}

/// The ids of the events of a page, newest first.
fn ids(page: &Page<tapio::server::MatchingBatch>) -> Vec<Vec<u8>> {
    let mut ids = Vec::new();
    for found in &page.items {
        let batch = proto::EventBatch::decode(&found.batch[..]).unwrap();
        assert_eq!(batch.count as usize, batch.events.len());
        ids.extend(batch.events.into_iter().rev().map(|event| event.id));
    }
    ids
}

fn random_budget(rng: &mut Rng) -> Budget {
    let mut bound = |n| if rng.one_in(2) { usize::MAX } else { 1 + rng.below(n) as usize };
    Budget { items: bound(20), bytes: bound(2_000), segments: bound(4), ..Budget::UNLIMITED }
}

/// Reads all pages, which together are `expected`, newest first. Each page says since when the
/// pages so far are complete.
fn assert_pages(storage: &Storage, filter: &Filter, expected: &[&Stored], rng: &mut Rng) {
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let cursor = Cursor::from_token(&token, List::Events, filter).unwrap();
        let budget = random_budget(rng);
        let page = storage.select_events(filter.clone(), cursor).read(&budget);
        let ids = ids(&page);
        assert!(ids.len() <= budget.items);
        found.extend(ids);
        assert!(found.iter().eq(expected.iter().take(found.len()).map(|event| &event.id)));
        let missing = expected[found.len()..].iter().map(|event| event.receipt_ns).max();
        assert!(missing.is_none_or(|receipt_ns| receipt_ns < page.complete_since_ns));
        match page.next {
            Some(next) => token = next.token(List::Events, filter),
            None => {
                assert_eq!(page.complete_since_ns, 0);
                break;
            }
        }
    }
    assert_eq!(found.len(), expected.len(), "{filter:?}");
}

fn run(seed: u64) {
    let (mut rng, disk) = (Rng(seed), SimDisk::default());
    let config = ServerConfig {
        segment_bytes: 2_000,
        ..server_config(&PathBuf::from("/store"), any_port())
    };
    let open = || Storage::open(&config, Arc::new(disk.clone())).unwrap();
    let mut storage = open();
    let mut all: Vec<Stored> = Vec::new();
    let mut receipt_ns = 100;
    for _ in 0..60 {
        let node = format!("node-{}", rng.below(4));
        // The clock may step back.
        receipt_ns = if rng.one_in(15) { receipt_ns - 10 } else { receipt_ns + rng.below(10) };
        let events: Vec<_> = (0..1 + rng.below(6))
            .map(|n| Stored::random(all.len() as u64 + n, receipt_ns, &node, &mut rng))
            .collect();
        append(&mut storage, &events, all.len() as u64);
        all.extend(events);
        if rng.one_in(20) {
            drop(storage);
            disk.kill();
            storage = open();
        }
    }
    for _ in 0..20 {
        let filter = random_filter(&mut rng, receipt_ns);
        let expected: Vec<_> = all.iter().rev().filter(|event| event.matches(&filter)).collect();
        assert_pages(&storage, &filter, &expected, &mut rng);
    }
}

#[test]
fn pages_of_a_query_are_what_a_scan_finds() {
    for seed in 0..100 {
        let ran = std::panic::catch_unwind(|| run(seed));
        assert!(ran.is_ok(), "seed {seed}");
    }
}

/// A storage with one event for each batch, and one batch for each segment.
fn storage_of_segments(segments: u64) -> Storage {
    let config = ServerConfig {
        segment_bytes: 100,
        retention_bytes: 1 << 20,
        ..server_config(&PathBuf::from("/store"), any_port())
    };
    let mut storage = Storage::open(&config, Arc::new(SimDisk::default())).unwrap();
    for n in 0..segments {
        append(&mut storage, &[Stored::random(n, n, "node-1", &mut Rng(n))], n);
    }
    storage
}

#[test]
fn pages_survive_the_retirement_of_their_segments() {
    let mut storage = storage_of_segments(20);
    let age = ServerConfig { retention_age: Duration::from_nanos(100), ..ServerConfig::default() };
    storage.set_limits(&age);
    let budget = Budget { items: 5, ..Budget::UNLIMITED };
    let first = storage.select_events(Filter::default(), Cursor::NEWEST).read(&budget);
    assert_eq!((ids(&first).len(), first.complete_since_ns), (5, 15));
    let next = first.next.unwrap();
    let rest = |storage: &Storage| {
        let page = storage.select_events(Filter::default(), next).read(&Budget::UNLIMITED);
        (ids(&page).len(), page.next)
    };
    assert_eq!(rest(&storage), (15, None));
    storage.retire_expired(108);
    assert_eq!(rest(&storage), (7, None));
    storage.retire_expired(118);
    assert_eq!(rest(&storage), (0, None), "everything before the token was retired");
}

#[test]
fn page_that_reaches_the_bound_of_its_work_has_a_token() {
    let storage = storage_of_segments(100);
    let absent = Filter { text: "absent".into(), ..Filter::default() };
    let budget = Budget { segments: 64, ..Budget::UNLIMITED };
    let first = storage.select_events(absent.clone(), Cursor::NEWEST).read(&budget);
    assert_eq!((first.items.len(), first.complete_since_ns), (0, 36), "64 of 100 were read");
    let second = storage.select_events(absent, first.next.unwrap()).read(&budget);
    assert_eq!((second.items.len(), second.next, second.complete_since_ns), (0, None, 0));
    let no_time = Budget { time: Duration::ZERO, ..Budget::UNLIMITED };
    let (mut pages, mut cursor) = (0, Some(Cursor::NEWEST));
    while let Some(before) = cursor {
        let page = storage.select_events(Filter::default(), before).read(&no_time);
        assert_eq!(ids(&page).len(), 1, "each page gets further");
        (pages, cursor) = (pages + 1, page.next);
    }
    assert_eq!(pages, 100);
}

/// The headers of a page: the token of the next one, and the time since which it is complete.
fn page_of(web: SocketAddr, path: &str) -> (Vec<Json>, Option<String>, Option<String>) {
    let (code, body) = http(web, path);
    assert_eq!(code, 200, "{path}: {body}");
    let mut page: Json = serde_json::from_str(&body).unwrap();
    let text = |value: &Json| value.as_str().map(str::to_owned);
    let (next, complete_since) = (text(&page["next_page_token"]), text(&page["complete_since"]));
    let Json::Array(items) = page["items"].take() else { panic!("{path}: {body}") };
    (items, next, complete_since)
}

#[test]
fn pages_and_filters_work_over_http() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), any_port());
    let mut node = node(config(server.grpc_addr));
    for n in 1..=5 {
        node.writers[0].write_story(&story(n, 0)).unwrap();
    }
    node.writers = node.feed(0..100).join().unwrap();
    assert_cons1(&node.end(), 100, 100);
    let web = server.http_addr;
    for (list, expected) in [("events", 100_usize), ("stories", 5)] {
        let (mut items, mut pages, mut token) = (Vec::new(), 0, Some(String::new()));
        while let Some(of_page) = token {
            let path = format!("/api/v1/{list}?limit=2&node=node-1{of_page}");
            let (page, next, complete_since) = page_of(web, &path);
            items.extend(page);
            assert_eq!(next.is_none(), complete_since.is_none());
            (pages, token) = (pages + 1, next.map(|token| format!("&page_token={token}")));
        }
        assert_eq!(items.len(), expected, "{list}");
        // The last one is empty when only batches without events are left.
        assert!([0, 1].contains(&(pages - expected.div_ceil(2))), "{pages} pages of {list}");
        let ids: std::collections::HashSet<_> = items.iter().map(|i| i["id"].as_str()).collect();
        assert_eq!(ids.len(), expected);
    }
    let count = |path: &str| page_of(web, path).0.len();
    assert_eq!(count("/api/v1/events?text=SOMETHING&limit=1000"), 100);
    assert_eq!(count("/api/v1/events?until=2020-01-01T00:00:00Z"), 0);
    assert_eq!(count("/api/v1/events?since=2020-01-01T00:00:00Z&limit=1000"), 100);
    assert_eq!(count("/api/v1/events?severity=error"), 0);
    assert_eq!(count("/api/v1/events?since=9000000000000000000&until=5"), 0);
    assert_eq!(count("/api/v1/stories?severity=error&text=STORY"), 5);
    assert_eq!(count("/api/v1/stories?entity=host.name=node-1&kind=t.*&pattern=odd"), 3);
    assert_eq!(count("/api/v1/stories?entity=node=node-1&pattern=odd"), 3, "an alias");
    assert_eq!(count("/api/v1/stories?since=3"), 0, "all stories ended before");
    assert_eq!(count(&format!("/api/v1/stories?trace_id={}", "04".repeat(16))), 1);
    assert_eq!(count("/api/v1/stories?id_prefix=0505"), 1);
    assert_eq!(count("/api/v1/stories?state=open") + count("/api/v1/stories?state=closed"), 5);
    let id = "02".repeat(16);
    let of_story = page_of(web, &format!("/api/v1/stories/{id}/events")).0;
    assert!(of_story.iter().all(|event| event["trace_id"] == id.as_str()), "{of_story:?}");
    for part in ["graph", "explain"] {
        let (code, body) = http(web, &format!("/api/v1/stories/{id}/{part}"));
        let body: Json = serde_json::from_str(&body).unwrap();
        assert_eq!((code, &body["id"]), (200, &id.as_str().into()), "{part}: {body}");
    }
    let (code, body) = http(web, "/api/v1/entities/host.name=node-1?limit=3");
    let body: Json = serde_json::from_str(&body).unwrap();
    assert_eq!((code, body["stories"].as_array().unwrap().len()), (200, 3), "{body}");
}

#[test]
fn invalid_parameters_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), any_port());
    let long = format!("text={}", "x".repeat(300));
    let token = Cursor::NEWEST.token(List::Events, &Filter::default());
    let other_filter = format!("kind=a&page_token={token}");
    for (query, cause) in
        [("page_token=beef", "isn't a token"), (&other_filter, "is of another query")]
    {
        let (code, body) = http(server.http_addr, &format!("/api/v1/events?{query}"));
        assert!(code == 404 && body.contains(cause), "{query}: {code} {body}");
    }
    for (query, expected) in [
        ("since=yesterday", ("since", "isn't an RFC 3339 time")),
        ("until=-1", ("until", "isn't an RFC 3339 time")),
        ("severity=loud", ("severity", "isn't a severity")),
        ("severity=25", ("severity", "isn't a severity")),
        ("trace_id=beef", ("trace_id", "isn't an id")),
        ("entity=pod", ("entity", "\"pod\" isn't key=value")),
        ("limit=many", ("limit", "isn't a number")),
        ("kinds=x", ("query", "unknown parameter \"kinds\"")),
        ("id_prefix=xyz", ("id_prefix", "isn't up to 32")),
        ("id_prefix=12", ("id_prefix", "is for stories only")),
        ("state=open", ("state", "is for stories only")),
        (&long, ("text", "300 characters")),
    ] {
        let (code, body) = http(server.http_addr, &format!("/api/v1/events?{query}"));
        let problem: Json = serde_json::from_str(&body).unwrap();
        let (parameter, cause) = expected;
        assert_eq!((code, &problem["parameter"]), (400, &parameter.into()), "{query}: {body}");
        assert!(problem["detail"].as_str().unwrap().contains(cause), "{query}: {body}");
    }
}

#[test]
fn tail_has_the_matching_items() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), any_port());
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    let endpoint = Channel::from_shared(format!("http://{}", server.grpc_addr)).unwrap();
    let channel = runtime.block_on(endpoint.connect()).unwrap();
    let mut client = proto::query_client::QueryClient::new(channel);
    let request = proto::TailRequest {
        stories: true,
        pattern: "odd".into(),
        severity: 17,
        node: "node-1".into(),
        ..Default::default()
    };
    let tail = runtime.block_on(client.tail(request)).unwrap().into_inner();
    let invalid = proto::TailRequest { trace_id: vec![1], ..Default::default() };
    let refused = runtime.block_on(client.tail(invalid)).err().unwrap();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert_eq!(refused.message(), "trace_id: 1 bytes instead of 16");
    let mut node = node(config(server.grpc_addr));
    for n in 1..=5 {
        node.writers[0].write_story(&story(n, 0)).unwrap();
    }
    node.writers = node.feed(0..10).join().unwrap();
    assert_cons1(&node.end(), 10, 10);
    let found = runtime.block_on(async {
        let (mut tail, mut found) = (tail, Vec::new());
        while found.len() < 3 {
            let batch = tail.message().await.unwrap().unwrap().batch.unwrap();
            assert_eq!((batch.events.len(), batch.count as usize), (0, batch.stories.len()));
            found.extend(batch.stories.into_iter().map(|story| story.id[0]));
        }
        found
    });
    assert_eq!(found, [1, 3, 5]);
}
