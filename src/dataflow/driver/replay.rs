//! Replay: events from JSON lines through the production correlator, in total order. The same input
//! gives the same output for any number of shards.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::{Correlator, CorrelatorPlan, Started, ThreadPlan};
use crate::evidence::{Assessor, Bounds, Learned, NoteReader};
use crate::rules::{LiveRules, Rule, RuleSet};
use crate::{LaneOptions, MatchLine, Order, Shard, Unknown};
use tapio_core::event::{JsonEvent, Reason, Stage, Story, event_json_with};
use tapio_core::ring::{
    Bell, Ledger, Membership, OnFull, Record, RecordReader, RecordType, Sink, Snapshot,
    correlations_json,
};
use tapio_core::shutdown::{Shutdown, thread_waker};

/// Events between two watermarks.
const WATERMARK_INTERVAL: usize = 512;
/// Longest line.
const MAX_LINE_BYTES: usize = 1 << 20;

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

/// A line that was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {cause}")]
pub struct BadLine {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: u64,
    /// The column, from 1; 1 also stands for the whole line.
    pub column: usize,
    /// The reason.
    pub cause: String,
}

/// A replay couldn't run.
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
    /// A thread can't be started.
    #[error("can't start the shards' threads: {0}")]
    Threads(#[from] std::io::Error),
}

/// The result of a replay.
pub struct Replayed {
    /// The output.
    pub lines: Vec<Json>,
    /// The stories of the lines; empty unless the output is stories.
    pub stories: Vec<Story>,
    /// Learned pairs of kinds that deserve a rule; empty unless the output is stories.
    pub suggestions: Vec<Learned>,
    /// The rejected lines.
    pub refused: Vec<BadLine>,
    /// CONS-1 at the end.
    pub account: Snapshot,
}

struct Input {
    event: JsonEvent,
    /// The position in the input: the last key of the total order.
    position: usize,
}

/// Events to replay, in the order of input, and the rejected lines.
#[derive(Default)]
pub struct Inputs {
    events: Vec<Input>,
    refused: Vec<BadLine>,
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
            inputs.read(&name, std::io::BufReader::new(file)).map_err(failed)?;
        }
        Ok(inputs)
    }

    /// Reads events from a text; `name` stands for its file in messages.
    #[must_use]
    pub fn text(name: &str, text: impl AsRef<[u8]>) -> Self {
        let mut inputs = Self::default();
        // Reading from memory can't fail.
        let _ = inputs.read(name, text.as_ref());
        inputs
    }

    /// Reads lines, of bounded length.
    fn read(&mut self, name: &str, mut reader: impl BufRead) -> std::io::Result<()> {
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
                Ok(line) => line.trim(),
                Err(e) => {
                    reject(e.valid_up_to() + 1, "not UTF-8".into());
                    continue;
                }
            };
            if line.is_empty() {
                continue;
            }
            match JsonEvent::parse(line, &format!("{name}:{number}")) {
                Ok(event) => {
                    let position = self.events.len();
                    self.events.push(Input { event, position });
                }
                Err(e) => reject(e.column, e.cause),
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

/// Sends the events to the shards in total order: time, then position in the input.
fn feed(sink: &mut Sink, inputs: &[Input]) {
    let mut fields = Vec::new();
    for (i, input) in inputs.iter().enumerate() {
        let order = i as u64 + 1;
        let event = input.event.event(input.event.time_ns(), &mut fields);
        // The sink counts rejected events; replay continues with the rest.
        let _ = sink.offer_at(&event, order);
        fields = Vec::new();
        if (i + 1) % WATERMARK_INTERVAL == 0 {
            sink.watermark(order);
        }
    }
    sink.watermark(inputs.len() as u64);
}

/// Replays the events of files.
///
/// # Errors
/// If a file can't be read or a thread can't be started. A rejected line is no error: it is in
/// [`Replayed::refused`], and replay continues.
pub fn replay(
    files: &[PathBuf],
    rules: Vec<Rule>,
    cluster: &str,
    shards: usize,
    emit: Emit,
) -> Result<Replayed, ReplayError> {
    run(Inputs::files(files)?, rules, cluster, shards, emit)
}

/// Replays events.
///
/// # Errors
/// If a thread can't be started.
pub fn run(
    inputs: Inputs,
    rules: Vec<Rule>,
    cluster: &str,
    shards: usize,
    emit: Emit,
) -> Result<Replayed, ReplayError> {
    run_set(inputs, Arc::new(RuleSet::new(rules, cluster, shards)), emit)
}

/// Replays events with a rule set.
///
/// # Errors
/// If a thread can't be started.
pub fn run_set(inputs: Inputs, rules: Arc<RuleSet>, emit: Emit) -> Result<Replayed, ReplayError> {
    let Inputs { events: mut inputs, refused } = inputs;
    inputs.sort_by_key(|i| (i.event.time_ns(), i.position));
    let mut ledger = Ledger::new(vec!["jsonl".into()]);
    let collect = ledger.stage(Stage::Collect);
    let shutdown = Shutdown::default();
    let bell = Arc::new(Bell::new(Default::default()));
    let rules = Arc::new(LiveRules::new(rules));
    let plan = CorrelatorPlan {
        rules: Arc::clone(&rules),
        order: Order::Total,
        options: LaneOptions {
            tell_open: false,
            unknown: Unknown::Told,
            order: Order::Total,
            record_matches: emit == Emit::Matches,
            max_keys: 1 << 20,
            max_stories: 1 << 20,
        },
        grouping: true,
        evidence: (emit == Emit::Stories).then_some(Bounds::REPLAY),
        ring_blocks: 1 << 15,
        recorder: None,
    };
    let mut threads = ThreadPlan::default();
    let started = Correlator::start(
        &plan,
        plan.shards(),
        1,
        [&bell, &bell],
        &mut ledger,
        &shutdown,
        &mut threads,
    )?;
    let Started { correlator, mut entrances, exits, notes, .. } = started;
    let end = ledger.stage(Stage::Bridge);
    let entrance = entrances.pop().unwrap_or_default();
    let router: Arc<dyn tapio_core::ring::Router> = Arc::<LiveRules>::clone(&rules);
    let mut sink = Sink::new(0, OnFull::Wait, router, entrance, collect, shutdown.clone());
    sink.refuse(Reason::BadInput, refused.len() as u64);
    let assessor = Assessor::new(Bounds::REPLAY);
    let mut output = Output { emit, assessor, stories: Vec::new(), lines: Vec::new() };
    let shards = std::thread::scope(|scope| {
        let shutdown = &shutdown;
        let inputs = &inputs;
        scope.spawn(move || {
            feed(&mut sink, inputs);
            // Before the sink is dropped, which rings the bells: a shard that wakes before the
            // request would sleep until its next tick.
            shutdown.request();
            drop(sink);
        });
        receive(exits, notes, &bell, &end, &mut output);
        correlator.join()
    });
    let suggestions = output.assessor.suggestions();
    let (lines, stories) = output.finish(shards);
    Ok(Replayed { lines, stories, suggestions, refused, account: ledger.snapshot() })
}

/// Receives the output of the shards until all of them have ended.
fn receive(
    mut exits: Vec<RecordReader>,
    mut notes: Vec<NoteReader>,
    bell: &Bell,
    ledger: &tapio_core::ring::StageLedger,
    output: &mut Output,
) {
    let _ = bell.target().set(thread_waker());
    loop {
        let mut worked = 0;
        for exit in &mut exits {
            worked += exit.drain(usize::MAX, |record| {
                if record.header().record == RecordType::Event {
                    ledger.take(record.header().collector, 1);
                    ledger.pass(record.header().collector, 1);
                }
                output.record(record);
                true
            });
        }
        for reader in &mut notes {
            while let Some(note) = reader.take() {
                output.assessor.keep(note);
                worked += 1;
            }
        }
        if worked > 0 {
            continue;
        }
        if exits.iter().all(RecordReader::is_finished) && notes.iter().all(NoteReader::is_finished)
        {
            return;
        }
        bell.doze();
        if exits.iter().all(RecordReader::is_empty) && notes.iter().all(NoteReader::is_empty) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        bell.rouse();
    }
}

struct Output {
    emit: Emit,
    assessor: Assessor,
    stories: Vec<Story>,
    /// Each with the position of its event in the total order.
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
                // All facts have arrived, so the result doesn't depend on their order.
                self.stories = self.assessor.finish();
                self.stories.sort_by_key(|g| (g.last_ns, g.first_ns, g.id.0));
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

/// An event with its trace and its memberships, as JSON.
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
        more.insert("correlation".into(), correlations_json(&memberships));
    }
    Some(event_json_with(&event, more))
}

fn hex(span: [u8; 8]) -> String {
    format!("{:016x}", u64::from_be_bytes(span))
}
