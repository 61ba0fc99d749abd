//! Replay: runs events from JSON lines through the production correlator in total order. The same
//! input gives the same output for any number of shards.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value as Json};

use crate::driver::topology::{Started, Topology};
use crate::evidence::{Assessor, Bounds, EvidenceReader, LearnedPair};
use crate::matcher::lane_options::LaneOptions;
use crate::matcher::match_line::MatchLine;
use crate::matcher::order::Order;
use crate::rules::{LiveRules, Rule, RuleSet};
use crate::shard::shard::Shard;
use tapio_core::cpu::ThreadLayout;
use tapio_core::event::{JsonEvent, Name, ParsedLine, Reason, Stage, Story, event_json_with};
use tapio_core::ring::{
    Bell, Ledger, Membership, OnFull, Record, RecordReader, RecordType, Router, Sink, Snapshot,
    StageLedger, attach, correlations_json, wait_until,
};
use tapio_core::shutdown::Shutdown;

/// Events between two watermarks.
const WATERMARK_INTERVAL: usize = 512;
/// The longest line that is read: a request of OTLP may have many events.
const MAX_LINE_BYTES: usize = 16 << 20;
/// Keys and stories of a lane: enough that evictions don't affect the result.
const MAX_KEYS: usize = 1 << 20;
/// The longest wait for the shards' bell.
const MAX_SLEEP: Duration = Duration::from_millis(5);

/// The output of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// Final stories.
    Stories,
    /// Every match, in order of completion.
    Matches,
    /// The enriched events, in total order.
    Events,
}

/// A line that isn't a valid event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {cause}")]
pub struct BadLine {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: u64,
    /// The column, from 1; also 1 where the whole line is meant.
    pub column: usize,
    /// The cause.
    pub cause: String,
}

/// A replay that couldn't run.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A file can't be read.
    #[error("{}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: std::io::Error,
    },
    /// A thread couldn't be started.
    #[error("can't start the shards: {0}")]
    Threads(#[from] std::io::Error),
}

/// The result of a replay.
pub struct Replayed {
    /// The output.
    pub lines: Vec<Json>,
    /// The stories behind the lines, for [`Emit::Stories`].
    pub stories: Vec<Story>,
    /// Pairs of kinds worth a rule, for [`Emit::Stories`].
    pub suggestions: Vec<LearnedPair>,
    /// Lines that aren't valid events.
    pub refused: Vec<BadLine>,
    /// CONS-1 at the end.
    pub account: Snapshot,
}

struct Input {
    event: JsonEvent,
    /// The position in the input: orders events of the same time.
    position: usize,
}

/// Events to replay, in any order, and the lines that aren't valid events.
#[derive(Default)]
pub struct Inputs {
    events: Vec<Input>,
    refused: Vec<BadLine>,
    processed: Processed,
}

/// Receives the number of events that were processed since it was called last.
pub type OnProcessed = Box<dyn Fn(u64) + Send + Sync>;

/// Whoever wants to know how far a replay is.
#[derive(Default)]
struct Processed(Option<OnProcessed>);

impl Processed {
    fn add(&self, events: usize) {
        if let Some(report) = &self.0 {
            report(events as u64);
        }
    }
}

impl Inputs {
    /// Reads events from files; `-` is standard input.
    ///
    /// # Errors
    /// If a file can't be read.
    pub fn files(files: &[PathBuf]) -> Result<Self, ReplayError> {
        let mut inputs = Self::default();
        for path in files {
            let failed = |cause| ReplayError::File { path: path.clone(), cause };
            let file: Box<dyn std::io::Read> = if path == Path::new("-") {
                Box::new(std::io::stdin())
            } else {
                Box::new(std::fs::File::open(path).map_err(failed)?)
            };
            let name = path.display().to_string();
            let reader = std::io::BufReader::new(file);
            inputs.read(&name, reader, &mut |_, _| None).map_err(failed)?;
        }
        Ok(inputs)
    }

    /// The number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Reports to `report` how many events were processed, as they are.
    #[must_use]
    pub fn with_progress(mut self, report: OnProcessed) -> Self {
        self.processed = Processed(Some(report));
        self
    }

    /// Reads events from a text. `name` takes the file's place in errors.
    #[must_use]
    pub fn text(name: &str, text: impl AsRef<[u8]>) -> Self {
        let mut inputs = Self::default();
        // Reading from memory can't fail.
        let _ = inputs.read(name, text.as_ref(), &mut |_, _| None);
        inputs
    }

    /// Reads lines of bounded length and parses them. `foreign` parses those in another format;
    /// it gets the line, and file and number, which identify it.
    ///
    /// # Errors
    /// When `reader` can't be read.
    pub fn read(
        &mut self,
        name: &str,
        mut reader: impl BufRead,
        foreign: &mut impl FnMut(&str, &str) -> Option<ParsedLine>,
    ) -> std::io::Result<()> {
        let (mut bytes, mut number) = (Vec::new(), 0u64);
        loop {
            bytes.clear();
            let mut bounded = std::io::Read::take(&mut reader, MAX_LINE_BYTES as u64 + 1);
            if bounded.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(());
            }
            number += 1;
            let mut reject = |column, cause: String| {
                self.refused.push(BadLine { file: name.to_owned(), line: number, column, cause });
            };
            if bytes.len() > MAX_LINE_BYTES {
                reject(1, format!("longer than {MAX_LINE_BYTES} bytes"));
                skip_line(&mut reader)?;
                continue;
            }
            let line = match std::str::from_utf8(&bytes) {
                // Some editors begin a file with a byte order mark.
                Ok(line) => line.trim().trim_start_matches('\u{feff}'),
                Err(e) => {
                    reject(e.valid_up_to() + 1, "not UTF-8".into());
                    continue;
                }
            };
            if line.is_empty() {
                continue;
            }
            let key = format!("{name}:{number}");
            let (events, cause) = match foreign(line, &key) {
                Some(line) => line,
                None => match JsonEvent::parse(line, &key) {
                    Ok(event) => (vec![event], None),
                    Err(e) => (Vec::new(), Some((e.column, e.cause))),
                },
            };
            if let Some((column, cause)) = cause {
                reject(column, cause);
            }
            for event in events {
                let position = self.events.len();
                self.events.push(Input { event, position });
            }
        }
    }
}

fn skip_line(reader: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        let Some(end) = buffer.iter().position(|b| *b == b'\n') else {
            let all = buffer.len();
            if all == 0 {
                return Ok(());
            }
            reader.consume(all);
            continue;
        };
        reader.consume(end + 1);
        return Ok(());
    }
}

/// Writes the events to the shards' rings in total order: time, then position in the input.
fn feed(sink: &mut Sink, inputs: &[Input], processed: &Processed) {
    let mut fields = Vec::new();
    for (i, input) in inputs.iter().enumerate() {
        let order = i as u64 + 1;
        let event = input.event.event(input.event.time_ns(), &mut fields);
        // The sink counts refused events; replay continues with the rest.
        let _ = sink.offer_at(&event, order);
        fields = Vec::new();
        if (i + 1) % WATERMARK_INTERVAL == 0 {
            sink.watermark(order);
            processed.add(WATERMARK_INTERVAL);
        }
    }
    processed.add(inputs.len() % WATERMARK_INTERVAL);
    sink.watermark(inputs.len() as u64);
}

/// Reads files and evaluates the rules on their events.
///
/// # Errors
/// When a file can't be read or a thread can't be started. A bad line is no error: it is in
/// [`Replayed::refused`], and the other lines are read.
pub fn replay(
    files: &[PathBuf],
    rules: Vec<Rule>,
    cluster: &str,
    shards: usize,
    emit: Emit,
) -> Result<Replayed, ReplayError> {
    run(Inputs::files(files)?, rules, cluster, shards, emit)
}

/// Evaluates rules on events.
///
/// # Errors
/// When a thread can't be started.
pub fn run(
    inputs: Inputs,
    rules: Vec<Rule>,
    cluster: &str,
    shards: usize,
    emit: Emit,
) -> Result<Replayed, ReplayError> {
    run_set(inputs, Arc::new(RuleSet::new(rules, cluster, shards)), emit)
}

/// Evaluates compiled rules on events.
///
/// # Errors
/// When a thread can't be started.
pub fn run_set(inputs: Inputs, rules: Arc<RuleSet>, emit: Emit) -> Result<Replayed, ReplayError> {
    let Inputs { events: mut inputs, refused, processed } = inputs;
    inputs.sort_by_key(|i| (i.event.time_ns(), i.position));
    let mut ledger = Ledger::new(vec!["jsonl".into()]);
    let collect = ledger.stage(Stage::Collect);
    let shutdown = Shutdown::default();
    let bell = Arc::new(Bell::new(Default::default()));
    let cluster = rules.cluster.clone();
    let rules = Arc::new(LiveRules::new(rules));
    let started =
        topology(&rules, emit).start(&bell, &mut ledger, &shutdown, &ThreadLayout::default())?;
    let Started { correlator, mut entrances, exits, messages, .. } = started;
    let end = ledger.stage(Stage::Bridge);
    let entrance = entrances.pop().unwrap_or_default();
    let router: Arc<dyn Router> = Arc::<LiveRules>::clone(&rules);
    let mut sink = Sink::new(0, OnFull::Wait, router, entrance, collect, shutdown.clone());
    sink.refuse(Reason::BadInput, refused.len() as u64);
    let assessor = Assessor::new(Bounds::REPLAY).with_cluster(&cluster);
    let mut output = Output { emit, assessor, stories: Vec::new(), lines: Vec::new() };
    let shards = std::thread::scope(|scope| {
        let shutdown = &shutdown;
        let (inputs, processed) = (&inputs, &processed);
        scope.spawn(move || {
            feed(&mut sink, inputs, processed);
            // Before the sink is dropped: that rings the bells, and a shard that wakes before
            // shutdown is requested sleeps until its next tick.
            shutdown.request();
            drop(sink);
        });
        receive(exits, messages, &bell, &end, &mut output);
        correlator.join()
    });
    let suggestions = output.assessor.suggestions();
    let (lines, stories) = output.finish(shards);
    Ok(Replayed { lines, stories, suggestions, refused, account: ledger.snapshot() })
}

/// One collector, and shards in total order; the caller assesses stories once all facts are in.
fn topology(rules: &Arc<LiveRules>, emit: Emit) -> Topology {
    let topology =
        Topology::new(Arc::clone(rules), Order::Total).collectors(1).lane_options(LaneOptions {
            max_keys: MAX_KEYS,
            max_stories: MAX_KEYS,
            max_seen: 1 << 20,
            record_matches: emit == Emit::Matches,
            ..LaneOptions::default()
        });
    match emit {
        Emit::Stories => topology.evidence(Bounds::REPLAY),
        Emit::Matches | Emit::Events => topology,
    }
}

/// Reads the shards' output until all of them have ended.
fn receive(
    mut exits: Vec<RecordReader>,
    mut messages: Vec<EvidenceReader>,
    bell: &Bell,
    ledger: &StageLedger,
    output: &mut Output,
) {
    attach(bell);
    loop {
        let mut received = 0;
        for exit in &mut exits {
            received += exit.drain(usize::MAX, |record| {
                if record.header().record == RecordType::Event {
                    ledger.add_received(record.header().collector, 1);
                    ledger.add_forwarded(record.header().collector, 1);
                }
                output.record(record);
                true
            });
        }
        for reader in &mut messages {
            while let Some(message) = reader.take() {
                output.assessor.collect(message);
                received += 1;
            }
        }
        if received > 0 {
            continue;
        }
        if exits.iter().all(RecordReader::is_finished)
            && messages.iter().all(EvidenceReader::is_finished)
        {
            return;
        }
        wait_until(bell, MAX_SLEEP, || {
            !exits.iter().all(RecordReader::is_empty)
                || !messages.iter().all(EvidenceReader::is_empty)
        });
    }
}

struct Output {
    emit: Emit,
    assessor: Assessor,
    stories: Vec<Story>,
    /// The lines of [`Emit::Events`], with their positions in the total order.
    lines: Vec<(u64, Json)>,
}

impl Output {
    fn record(&mut self, record: &Record<'_>) {
        if (self.emit, record.header().record) == (Emit::Events, RecordType::Event)
            && let Some(json) = enriched(record)
        {
            self.lines.push((record.header().order, json));
        }
    }

    fn finish(mut self, mut shards: Vec<Shard>) -> (Vec<Json>, Vec<Story>) {
        let lines = match self.emit {
            Emit::Matches => {
                let mut matches: Vec<MatchLine> =
                    shards.iter_mut().flat_map(Shard::take_matches).collect();
                matches.sort_by_key(|m| (m.time_ns, m.order, m.rule_number, m.first));
                matches.into_iter().map(|m| m.json).collect()
            }
            Emit::Stories => {
                // All facts are in: the result doesn't depend on their order.
                self.stories = self.assessor.finish();
                self.assessor.report_failures();
                self.stories.sort_by_key(|s| (s.last_ns, s.first_ns, s.id.0));
                self.stories.iter().map(Story::json).collect()
            }
            Emit::Events => {
                self.lines.sort_by_key(|(order, _)| *order);
                self.lines.into_iter().map(|(_, json)| json).collect()
            }
        };
        (lines, self.stories)
    }
}

/// An event as JSON, with its trace and memberships.
#[must_use]
pub fn enriched(record: &Record<'_>) -> Option<Json> {
    let archived = record.event()?;
    let mut fields = Vec::new();
    let event = archived.borrowed(&mut fields);
    let header = record.header();
    let mut more = Map::new();
    if header.trace_id.is_some() {
        more.insert("trace_id".into(), header.trace_id.to_string().into());
        more.insert("span_id".into(), hex(header.span_id).into());
    }
    let mut memberships: Vec<Membership> = record.memberships().collect();
    memberships.sort_by_key(|m| (m.rank, m.story));
    if !memberships.is_empty() {
        more.insert("correlation".into(), correlations_json(&memberships, Name::text));
    }
    Some(event_json_with(&event, more, Name::text))
}

fn hex(span: [u8; 8]) -> String {
    format!("{:016x}", u64::from_be_bytes(span))
}
