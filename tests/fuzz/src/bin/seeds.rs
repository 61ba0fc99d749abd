//! Writes the seed corpus of each target from the project's rules, stories and conformance cases:
//! `seeds FOLDER` fills one folder per target.

#[path = "../../../support/sim_disk.rs"]
#[allow(dead_code, reason = "a part is used")]
mod sim_disk;

// The coverage flags need libFuzzer's runtime.
use libfuzzer_sys as _;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message as _;
use serde_json::{Value as Json, json};
use sim_disk::SimDisk;
use tapio::store::{Durability, SegmentLog, SegmentLogConfig};
use tapio_core::event::{Event, EventId, JsonEvent, LogBlock, names};
use tapio_core::ring::{Header, ring};
use tapio_dataflow::replay::{Emit, Inputs, run_set};
use tapio_dataflow::rules::Loaded;
use tapio_fuzz::{EVENTS_MARK, builtin_sets};
use tapio_wire::{Appended, BatchEncoder, proto};

/// Every 25th conformance case is a seed.
const CASE_STEP: usize = 25;

type Failed = Box<dyn std::error::Error>;

struct Corpus(PathBuf);

impl Corpus {
    fn add(&self, target: &str, name: &str, bytes: &[u8]) -> Result<(), Failed> {
        let folder = self.0.join(target);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join(name), bytes)?)
    }

    /// Adds the committed inputs of these targets.
    fn committed(&self, folder: &Path, targets: &[&str]) -> Result<(), Failed> {
        for target in targets {
            for entry in fs::read_dir(folder.join(target))? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                self.add(target, &name, &fs::read(&path)?)?;
            }
        }
        Ok(())
    }

    /// Adds events for the two targets that read them.
    fn events(&self, name: &str, lines: &str) -> Result<(), Failed> {
        self.add("lines", name, lines.as_bytes())?;
        self.add("batches", name, &batch(lines)?)
    }
}

/// A batch of these events and their stories.
fn batch(lines: &str) -> Result<Vec<u8>, Failed> {
    let (mut writer, mut reader) = ring(1 << 15);
    for (number, line) in lines.lines().enumerate() {
        let event = JsonEvent::parse(line, &format!("seed:{number}")).map_err(|e| e.cause)?;
        let mut fields = Vec::new();
        let event = event.event(event.time_ns(), &mut fields);
        writer.write_event(&Header::event(0, 1, event.time_ns), &event)?;
    }
    let stories =
        run_set(Inputs::text("seed", lines), builtin_sets().of_one_shard(), Emit::Stories)?.stories;
    let mut encoder = BatchEncoder::new("node", 1, 1 << 20);
    reader.drain(usize::MAX, |record| encoder.append(record) != Appended::Full);
    stories.iter().for_each(|story| encoder.story(story));
    Ok(encoder.finish().ok_or("an empty batch")?.message().to_vec())
}

/// A batch with a block of log records.
fn log_records() -> Result<Vec<u8>, Failed> {
    let time = 1_768_471_200_000_000_001u64.to_le_bytes();
    let body = [5 << 3 | 2, 4, 1 << 3 | 2, 2, b'h', b'i'];
    let attribute = [6 << 3 | 2, 8, 1 << 3 | 2, 1, b'k', 2 << 3 | 2, 3, 1 << 3 | 2, 1, b'v'];
    let record = [&[1 << 3 | 1][..], &time, &[2 << 3, 9], &body, &attribute].concat();
    let framed = [&[2 << 3 | 2, record.len() as u8][..], &record].concat();
    let (mut writer, mut reader) = ring(0);
    let block = LogBlock {
        shared: Event::new(EventId::default(), 1, names::OTLP_LOG, names::OTLP),
        records: 3,
        dropped_attributes: 1,
        resource_digest: [7; 16],
        scope: &[1 << 3 | 2, 1, b's'],
        encoded: &framed.repeat(3),
    };
    writer.write_log_block(&Header::event(0, 1, 1), &block, 0)?;
    let mut encoder = BatchEncoder::new("node", 1, 1 << 20);
    reader.drain(usize::MAX, |record| encoder.append(record) != Appended::Full);
    Ok(encoder.finish().ok_or("an empty batch")?.message().to_vec())
}

/// Reports of the CNI plugin, and a netlink packet: a new link and its removal.
fn packets() -> Vec<Vec<u8>> {
    let report = json!({"command": "ADD", "network": "podnet", "plugin": "tapio-cni", "container_id": "c",
        "ifname": "eth0", "netns": "/run/netns/a", "netns_inode": 7, "host_interface": "veth1",
        "addresses": ["10.88.0.2", "fd00::2"], "time_ns": 1, "duration_ns": 2,
        "pod": {"uid": "u", "name": "n", "namespace": "s"}, "error": {"code": 11, "message": "m"}});
    let args = "IgnoreUnknown=1;K8S_POD_UID=u;K8S_POD_NAME=n;K8S_POD_NAMESPACE=s";
    let mut link = Vec::new();
    for kind in [16u16, 17] {
        link.extend([48u32.to_ne_bytes().as_slice(), &kind.to_ne_bytes(), &[0; 10]].concat());
        // Index 7, up and running; then its name.
        link.extend([[0; 4], 7u32.to_ne_bytes(), 0x41u32.to_ne_bytes(), [0; 4]].concat());
        link.extend(
            [
                12u16.to_ne_bytes(),
                3u16.to_ne_bytes(),
                *b"ve",
                *b"th",
                *b"1\0",
                [0; 2],
                [0; 2],
                [0; 2],
            ]
            .concat(),
        );
    }
    vec![report.to_string().into_bytes(), args.into(), link]
}

/// Records of the kernel log, as read from /dev/kmsg.
const KMSG: &str = concat!(
    "3,1042,84512334,-;blk_update_request: I/O error, dev sda, sector 1234\n SUBSYSTEM=block\n DEVICE=+block:sda\n\0",
    "30,1043,84512400,-,caller=T1;systemd[1]: hello\n\0",
    "4,1050,84512500,-;EXT4-fs error (device nvme0n1p2): a\\x09b\\x5c\n",
);

/// A length-delimited protobuf field of fewer than 128 bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

/// Export requests: a log record and a span, with a resource and attributes of every type.
fn exports() -> [Vec<u8>; 2] {
    let pair = |key: &str, value: &[u8]| [field(1, key.as_bytes()), field(2, value)].concat();
    let fixed = |number: u8, n: u64| [vec![number << 3 | 1], n.to_le_bytes().to_vec()].concat();
    let list = field(5, &[field(1, &field(1, b"a")), field(1, &[3 << 3, 7])].concat());
    let map = field(6, &field(1, &pair("m", &field(7, &[0xfe, 0xff]))));
    let of_either = |number: u8| {
        let values = [list.clone(), map.clone(), vec![2 << 3, 1], fixed(4, 4.5f64.to_bits())];
        let pairs = values.iter().flat_map(|value| field(number, &pair("k", value)));
        pairs.collect::<Vec<u8>>()
    };
    let log = [
        [fixed(1, 1_000), vec![2 << 3, 17], field(5, &field(1, b"it broke"))].concat(),
        [of_either(6), field(9, &[1; 16]), field(10, &[2; 8]), fixed(11, 9)].concat(),
    ];
    let span = [
        [field(1, &[3; 16]), field(2, &[4; 8]), field(5, b"GET /"), fixed(7, 5)].concat(),
        [fixed(8, 9), field(15, &[field(2, b"no"), vec![3 << 3, 2]].concat())].concat(),
    ];
    let resource = field(1, &field(1, &pair("k8s.pod.uid", &field(1, b"u"))));
    [log.concat(), span.concat()].map(|record| {
        // Too long for `field`: the length takes two bytes.
        let long = |number: u8, bytes: &[u8]| {
            let len = [bytes.len() as u8 | 0x80, (bytes.len() >> 7) as u8];
            [&[number << 3 | 2], &len[..], bytes].concat()
        };
        long(1, &[resource.clone(), long(2, &long(2, &record))].concat())
    })
}

/// A segment as an earlier process left it, and edits of others: a flipped bit, an end.
fn segments() -> Result<Vec<Vec<u8>>, Failed> {
    let disk = SimDisk::default();
    let config = SegmentLogConfig {
        dir: "/log".into(),
        segment_bytes: 250,
        retention_bytes: 1 << 20,
        retires_when_full: true,
        durability: Durability::Process,
        acknowledges_recovered: true,
    };
    let mut log = SegmentLog::open(config, Arc::new(disk.clone()), ())?;
    for payload in [&b"first"[..], b"second", b"a third frame, in another segment"] {
        log.append(payload, 7)?;
    }
    let paths = disk.paths();
    let files = paths.iter().filter(|p| p.extension().is_some_and(|e| e == "tapio"));
    let mut seeds: Vec<_> = files.map(|p| [&[0], &disk.contents(p)[..]].concat()).collect();
    seeds.extend([vec![1, 0, 130, 0, 1], vec![3, 0x81, 140, 0, 0], vec![3, 2, 200, 1, 9]]);
    Ok(seeds)
}

/// Messages of a stream: two batches, the first one again, one that overlaps, one that says that
/// items were dropped, and one of another process.
fn stream() -> Vec<u8> {
    let batch = |epoch: u64, first_sequence: u64, count: u64| proto::EventBatch {
        first_sequence,
        count: count as u32,
        node: "n".into(),
        epoch,
        names: vec!["test.kind".into()],
        events: (0..count)
            .map(|n| proto::Event { id: vec![n as u8; 16], ..Default::default() })
            .collect(),
        ..Default::default()
    };
    let dropped = proto::EventBatch { dropped_from: Some(5), ..batch(7, 9, 0) };
    let batches =
        [batch(7, 0, 3), batch(7, 3, 2), batch(7, 0, 3), batch(7, 4, 3), dropped, batch(8, 0, 1)];
    let framed = |batch: &proto::EventBatch| {
        let message = batch.encode_to_vec();
        [&(message.len() as u16).to_le_bytes()[..], &message].concat()
    };
    batches.iter().flat_map(framed).collect()
}

/// Rule sets: nested correlations, aggregates, sequences that share events.
const SETS: [(&str, &str); 4] = [
    ("correlations", include_str!("../../sets/correlations.yaml")),
    ("sigma-measures", include_str!("../../sets/sigma-measures.yaml")),
    ("measures", include_str!("../../sets/measures.yaml")),
    ("sequences", include_str!("../../sets/sequences.yaml")),
];

/// Events for the rule sets: of four kinds, `step_ms` apart, of two keys, two pods and three users
/// in turn.
fn events_of_sets(count: u64, step_ms: u64) -> String {
    let mut lines = String::new();
    for n in 0..count {
        let time_ns = 1_700_000_000_000_000_000 + n * step_ms * 1_000_000;
        let kind = ["A", "B", "B", "C", "A", "D", "B"][n as usize % 7];
        let (key, pod) = (["x", "y"][n as usize / 3 % 2], ["u", "v"][n as usize / 2 % 2]);
        let attributes = json!({"k": key, "n": n % 5, "who": n % 3});
        let entity = json!({"node": "h", "k8s.pod.uid": pod});
        let event = json!({"id": n, "time": time_ns, "kind": format!("t.{kind}"), "source": "test",
            "severity": "warn", "entity": entity, "attributes": attributes});
        lines += &format!("{event}\n");
    }
    lines
}

/// A conformance case as a rule and its events.
fn case(case: &Json) -> Result<(String, String), Failed> {
    let stages: Vec<&str> =
        case["stages"].as_array().ok_or("stages")?.iter().filter_map(Json::as_str).collect();
    let mut rule = String::from("rule: case\nevents:\n");
    let mut named = stages.clone();
    named.sort_unstable();
    named.dedup();
    for stage in named {
        writeln!(rule, "  e{stage}: {{ kind: t.{stage} }}")?;
    }
    let by = if case["by"].is_null() { "" } else { "attributes.k" };
    let within = case["maxspan_s"].as_u64().filter(|s| *s > 0).unwrap_or(86_400);
    writeln!(rule, "sequence:\n  by: [{by}]\n  within: {within}s\n  steps:")?;
    for stage in stages {
        writeln!(rule, "    - {{ event: e{stage} }}")?;
    }
    if let Some(until) = case["until"].as_str() {
        writeln!(rule, "  until: {{ kind: t.{until} }}")?;
    }
    writeln!(rule, "story: {{ pattern: case }}")?;
    let mut lines = String::new();
    for event in case["events"].as_array().ok_or("events")? {
        let time_ns = (1_700_000_000 + event[1].as_u64().ok_or("a time")?) * 1_000_000_000;
        let kind = format!("t.{}", event[2].as_str().ok_or("a kind")?);
        let attributes = json!({"k": event[3], "n": event[0]});
        writeln!(lines, "{}", json!({"time": time_ns, "kind": kind, "attributes": attributes}))?;
    }
    Ok((rule, lines))
}

/// Adds the seeds of store, ingest and configuration.
fn add_delivery(corpus: &Corpus, root: &Path) -> Result<(), Failed> {
    for (number, segment) in segments()?.iter().enumerate() {
        corpus.add("segments", &number.to_string(), segment)?;
    }
    corpus.add("ingest", "stream", &stream())?;
    corpus
        .committed(&root.join("tests/fuzz/corpus"), &["storage", "configuration", "otlp_json"])?;
    let readme = fs::read_to_string(root.join("README.md"))?;
    for (number, block) in readme.split("```yaml\n").skip(1).enumerate() {
        let yaml = block.split("```").next().unwrap_or_default();
        corpus.add("configuration", &number.to_string(), yaml.as_bytes())?;
    }
    Ok(())
}

fn main() -> Result<(), Failed> {
    let folder = std::env::args().nth(1).ok_or("usage: seeds FOLDER")?;
    let corpus = Corpus(folder.into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for entry in fs::read_dir(root.join("rules"))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        corpus.add("rules", &name, &fs::read(&path)?)?;
    }
    add_delivery(&corpus, &root)?;
    corpus.add("batches", "log-records", &log_records()?)?;
    let journal = fs::read(root.join("src/collector/journal/samples/small.journal"))?;
    corpus.add("journal", "small", &journal)?;
    corpus.add("kmsg", "records", KMSG.as_bytes())?;
    for (number, request) in exports().iter().enumerate() {
        corpus.add("otlp", &number.to_string(), request)?;
    }
    let shapes = fs::read_to_string(root.join("tests/fuzz/shapes.yaml"))?;
    let sigma = fs::read_to_string(root.join("tests/conformance/sigma/rules.yml"))?;
    let eql = fs::read_to_string(root.join("tests/conformance/eql.jsonl"))?;
    let mut some = String::new();
    for (number, line) in eql.lines().enumerate().step_by(CASE_STEP) {
        let (rule, events) = case(&serde_json::from_str(line)?)?;
        let input = format!("{rule}{EVENTS_MARK}{events}");
        corpus.add("rules", &format!("eql-{number}"), input.as_bytes())?;
        corpus.events(&format!("eql-{number}"), &events)?;
        some = events;
    }
    for (number, document) in shapes.split("\n---\n").enumerate() {
        let input = format!("{document}{EVENTS_MARK}{some}");
        corpus.add("rules", &format!("shapes-{number}"), input.as_bytes())?;
    }
    // A correlation needs the rules it refers to.
    let (correlations, detections): (Vec<&str>, Vec<&str>) =
        sigma.split("\n---\n").partition(|document| document.contains("\ncorrelation:"));
    let detections = detections.join("\n---\n");
    for (number, correlation) in correlations.iter().enumerate() {
        let input = format!("{detections}\n---\n{correlation}{EVENTS_MARK}{some}");
        corpus.add("rules", &format!("sigma-{number}"), input.as_bytes())?;
    }
    for (name, documents) in SETS {
        let mut loaded = Loaded::default();
        loaded.text(name, documents);
        if let Some(error) = loaded.errors.first() {
            return Err(format!("invalid seed: {error}").into());
        }
        // Few events far apart, and more than a story keeps.
        for (count, step_ms) in [(30, 1_700), (110, 90)] {
            let events = events_of_sets(count, step_ms);
            let input = format!("{documents}{EVENTS_MARK}{events}");
            corpus.add("rules", &format!("set-{name}-{count}"), input.as_bytes())?;
            corpus.events(&format!("set-{count}"), &events)?;
        }
    }
    for (number, packet) in packets().iter().enumerate() {
        corpus.add("cni", &number.to_string(), packet)?;
    }
    for entry in fs::read_dir(root.join("tests/stories"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            corpus.events(&name, &fs::read_to_string(&path)?)?;
        }
    }
    for (number, line) in include_str!("../../watch.jsonl").lines().enumerate() {
        corpus.add("kubernetes", &number.to_string(), line.as_bytes())?;
    }
    Ok(())
}
