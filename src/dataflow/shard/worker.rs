//! A shard's thread: takes records from its rings, shows them to the [`Shard`], passes them on to
//! the next shard that wants them or to the bridge.
//!
//! Visits go from lower shards to higher ones, so shards never wait for each other in a circle: a
//! shard that waits for room waits for one further down, and the bridge waits for nobody here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::evidence::{EvidenceMessage, EvidenceWriter};
use crate::rules::LiveRules;
use crate::shard::shard::{Found, Shard, ShardStats};
use tapio_core::clock;
use tapio_core::ring::{
    Bell, Header, MAX_COLLECTORS, MAX_FORWARDED_BLOCKS, OwnedRecord, Record, RecordReader,
    RecordType, RecordWriter, StageLedger,
};
use tapio_core::shutdown::{Shutdown, thread_waker};

/// Blocks read from one ring before the next one has its turn.
const TURN_BLOCKS: usize = 4096;
/// A round that found fewer records than this leaves time for more to gather: a shard that polls a
/// slower producer record by record would spend more on looking than on working.
const WORTH_ANOTHER_LOOK: usize = 64;
/// While traffic flows a shard naps instead of being woken for each event.
const NAP: Duration = Duration::from_micros(100);
/// Naps without input before the shard sleeps until a bell rings.
const NAPS_BEFORE_SLEEP: u32 = 2;
/// How often time moves on without an event.
const TICK_NS: u64 = 100_000_000;
/// Stories and facts that wait for room towards the assessor. Past it, no more input is taken in
/// replay; live, facts are left out and counted, and input waits for stories only.
const MAX_WAITING_NOTES: usize = 8_192;

/// In which order a shard shows events to its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they arrive: told at once.
    Arrival,
    /// By their place in the total order; records wait for every input's watermark.
    Total,
}

/// Where a shard's output goes.
pub struct ShardOutput {
    /// Rings to the shards with higher numbers, in order, with their bells.
    pub shards: Vec<(RecordWriter, Arc<Bell>)>,
    /// The ring to the bridge, with its bell.
    pub bridge: (RecordWriter, Arc<Bell>),
    /// The ring to the assessor.
    pub assessor: EvidenceWriter,
    /// The ring to who records what rules had a use for, with its bell.
    pub recorder: Option<(RecordWriter, Arc<Bell>)>,
}

/// How a shard is joined to the rest.
pub struct Wiring {
    /// The rings it reads: one of each collector, one of each lower shard.
    pub inputs: Vec<RecordReader>,
    /// The bell its producers ring.
    pub bell: Arc<Bell>,
    /// The rules in force; the shard takes others over when they come.
    pub rules: Arc<LiveRules>,
    /// Where its output goes.
    pub output: ShardOutput,
    /// Its counters of CONS-1.
    pub ledger: Arc<StageLedger>,
    /// Set once nothing new will come.
    pub shutdown: Shutdown,
}

/// A shard's counters, for other threads.
#[derive(Default)]
pub struct WorkerStats {
    values: [AtomicU64; 21],
}

impl WorkerStats {
    /// Names of the counters, in order.
    pub const NAMES: [&'static str; 21] = [
        "events",
        "matches",
        "keys",
        "keys_evicted",
        "runs_dropped",
        "stories_open",
        "stories_opened",
        "stories_closed",
        "stories_expired",
        "lives",
        "lives_opened",
        "lives_evicted",
        "pasts_evicted",
        "facts_left_out",
        "waiting",
        "forced",
        "late",
        "relinked",
        "retracted",
        "stories_untold",
        "not_recorded",
    ];

    fn publish(&self, events: u64, [left_out, not_recorded]: [u64; 2], s: &ShardStats) {
        let l = &s.lane;
        let now = [
            events,
            l.matches,
            l.keys,
            l.evicted,
            l.dropped_runs,
            l.open,
            l.opened,
            l.closed,
            l.expired,
            s.lives,
            s.lives_opened,
            s.lives_evicted,
            s.pasts_evicted,
            left_out,
            s.settled.waiting,
            s.settled.forced,
            s.settled.late,
            s.settled.relinked,
            s.settled.retracted,
            s.settled.untold,
            not_recorded,
        ];
        // Relaxed, paired with the loads in `get`: counters for people, no order is needed.
        self.values.iter().zip(now).for_each(|(v, n)| v.store(n, Ordering::Relaxed));
    }

    /// The counters by name.
    pub fn get(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::NAMES.into_iter().zip(self.values.iter().map(|v| v.load(Ordering::Relaxed)))
    }
}

/// What runs on a shard's thread.
pub struct Worker {
    number: usize,
    shard: Shard,
    rules: Arc<LiveRules>,
    order: Order,
    inputs: Vec<RecordReader>,
    /// The last watermark of each input, and what waits for it (in total order).
    marks: Vec<u64>,
    waiting: Vec<OwnedRecord>,
    held: [u64; MAX_COLLECTORS],
    /// The last watermark the shards further down have.
    passed_mark: u64,
    /// Blocks known to be free in every ring further down.
    room_blocks: usize,
    output: ShardOutput,
    notes: VecDeque<EvidenceMessage>,
    facts_left_out: u64,
    not_recorded: u64,
    bell: Arc<Bell>,
    ledger: Arc<StageLedger>,
    stats: Arc<WorkerStats>,
    shutdown: Shutdown,
    found: Found,
    events: u64,
    clock_ns: u64,
    tick_ns: u64,
}

impl Worker {
    /// A worker for a shard. It ends when `stop` is set and every input's writer is gone and read
    /// out.
    #[must_use]
    pub fn new(number: usize, shard: Shard, order: Order, wiring: Wiring) -> Self {
        let Wiring { inputs, bell, rules, output, ledger, shutdown } = wiring;
        Self {
            number,
            shard,
            rules,
            order,
            marks: vec![0; inputs.len()],
            inputs,
            waiting: Vec::new(),
            held: [0; MAX_COLLECTORS],
            passed_mark: 0,
            room_blocks: 0,
            output,
            notes: VecDeque::new(),
            facts_left_out: 0,
            not_recorded: 0,
            bell,
            ledger,
            stats: Arc::default(),
            shutdown,
            found: Found::default(),
            events: 0,
            clock_ns: 0,
            tick_ns: 0,
        }
    }

    /// The shard's counters.
    #[must_use]
    pub fn stats(&self) -> Arc<WorkerStats> {
        Arc::clone(&self.stats)
    }

    /// Runs until the inputs end. Returns the shard for what it still has to say.
    pub fn run(mut self) -> Shard {
        // A second worker on one bell would be a defect of whoever built the pipeline.
        let _ = self.bell.target().set(thread_waker());
        let mut naps = 0u32;
        loop {
            let (records, notes_wait) = self.round(clock::wall_ns());
            if records >= WORTH_ANOTHER_LOOK {
                naps = 0;
                continue;
            }
            if records == 0 && self.is_finished() {
                break;
            }
            naps = if records > 0 { 0 } else { naps + 1 };
            if naps < NAPS_BEFORE_SLEEP || notes_wait {
                std::thread::sleep(NAP);
            } else {
                self.sleep();
            }
        }
        self.shard.finish(self.order == Order::Total, clock::wall_ns());
        self.shard.take_notes(&mut self.notes, true);
        while !self.send_notes() && !self.output.assessor.is_abandoned() {
            std::thread::sleep(NAP);
        }
        self.publish();
        let ShardOutput { shards, bridge, assessor, recorder } = self.output;
        assessor.close();
        for (writer, bell) in shards.into_iter().chain([bridge]).chain(recorder) {
            // The bell comes last: who wakes must see that no more will come, or sleeps again.
            drop(writer);
            bell.ring();
        }
        self.shard
    }

    fn publish(&self) {
        let lost = [self.facts_left_out, self.not_recorded];
        self.stats.publish(self.events, lost, &self.shard.stats());
    }

    /// Sleeps until a bell rings, or until the next tick where something waits for time to pass.
    fn sleep(&mut self) {
        self.bell.doze();
        if self.inputs.iter().all(RecordReader::is_empty) && !self.is_finished() {
            let stats = self.shard.stats();
            if stats.lane.open > 0 || self.shard.waits() || self.shutdown.is_requested() {
                std::thread::park_timeout(Duration::from_nanos(TICK_NS));
            } else {
                // Nothing open: only a bell matters. The timeout is a seat belt for shutdown.
                std::thread::park_timeout(Duration::from_secs(1));
            }
        }
        self.bell.rouse();
    }

    fn is_finished(&self) -> bool {
        // A collector that hangs never leaves its ring. The rings of lower shards come last.
        let of_collectors = self.inputs.len().saturating_sub(self.number);
        let given_up = of_collectors * usize::from(self.shutdown.abandons_hung_threads());
        self.shutdown.is_requested()
            && self.inputs[..given_up].iter().all(RecordReader::is_empty)
            && self.inputs[given_up..].iter().all(RecordReader::is_finished)
            && self.waiting.is_empty()
    }

    /// One look at every input. Returns how many records it worked on, and whether notes wait for
    /// room on the way out.
    fn round(&mut self, now_ns: u64) -> (usize, bool) {
        if let Some(rules) = self.rules.newer(self.shard.rules()) {
            self.shard.reload(rules);
        }
        let mut records = 0;
        if self.notes.len() < MAX_WAITING_NOTES {
            let mut inputs = std::mem::take(&mut self.inputs);
            for (i, input) in inputs.iter_mut().enumerate() {
                records += input.drain(TURN_BLOCKS, |record| self.take(i, record, now_ns));
            }
            self.inputs = inputs;
        }
        if self.order == Order::Total {
            records += self.release(now_ns);
        }
        let ticks = self.order == Order::Arrival && now_ns.saturating_sub(self.tick_ns) >= TICK_NS;
        if ticks {
            self.tick_ns = now_ns;
            self.shard.advance(now_ns, self.clock_ns);
        }
        self.shard.take_notes(&mut self.notes, ticks);
        let all_sent = self.send_notes();
        if records > 0 {
            self.output.shards.iter().for_each(|(_, bell)| bell.ring());
            self.output.bridge.1.ring();
            if let Some((_, bell)) = &self.output.recorder {
                bell.ring();
            }
        }
        if records > 0 || ticks {
            self.publish();
        }
        (records, !all_sent)
    }

    /// Takes a record in. False where there is no room for it further down: it stays in its ring.
    fn take(&mut self, input: usize, record: &Record<'_>, now_ns: u64) -> bool {
        match (record.header().record, self.order) {
            (RecordType::Watermark, _) => {
                self.marks[input] = self.marks[input].max(record.header().order);
                true
            }
            (RecordType::Event, Order::Total) => {
                let collector = record.header().collector;
                self.ledger.take(collector, 1);
                let held = &mut self.held[usize::from(collector) % MAX_COLLECTORS];
                *held += 1;
                self.ledger.hold(collector, *held);
                self.waiting.push(record.to_owned());
                true
            }
            (RecordType::Event, Order::Arrival) => {
                if !self.has_room() {
                    return false;
                }
                self.ledger.take(record.header().collector, 1);
                self.show(record, now_ns);
                true
            }
            (RecordType::Story | RecordType::Skip, _) => true,
        }
    }

    /// Whether every ring further down takes the largest record there is. Looks into the rings
    /// only when what it knows to be free is used up.
    fn has_room(&mut self) -> bool {
        if self.room_blocks < 2 * MAX_FORWARDED_BLOCKS {
            let free = self.output.shards.iter().map(|(w, _)| w.free_blocks());
            self.room_blocks = free.fold(self.output.bridge.0.free_blocks(), usize::min);
        }
        self.room_blocks >= 2 * MAX_FORWARDED_BLOCKS
    }

    fn show(&mut self, record: &Record<'_>, now_ns: u64) {
        self.events += 1;
        self.clock_ns = self.clock_ns.max(record.header().time_ns);
        let mut found = std::mem::take(&mut self.found);
        self.shard.step(record, now_ns, &mut found);
        let header = self.shard.next_header(record, &found);
        self.record(record, &header, &found);
        let writer = match header.visits {
            0 => &mut self.output.bridge.0,
            more => &mut self.output.shards[more.trailing_zeros() as usize - self.number - 1].0,
        };
        let collector = header.collector;
        // Twice the record: it may have to skip the ring's end.
        let used = 2 * (record.len_blocks() + found.memberships.len());
        self.room_blocks = self.room_blocks.saturating_sub(used);
        match writer.forward(record, &header, &found.memberships) {
            Ok(()) => self.ledger.pass(collector, 1),
            // has_room was asked before, so only a record that memberships made too large ends here.
            Err(_) => self.ledger.lose(collector, tapio_core::event::Reason::Oversize, 1),
        }
        self.found = found;
    }

    /// Hands an event that rules had a use for to the recorder, after its last visit. Nothing waits for room.
    fn record(&mut self, record: &Record<'_>, header: &Header, found: &Found) {
        // That it came late is to be seen from its places in stories.
        let places = if found.late { &found.memberships[..] } else { &[] };
        if let Some((writer, _)) = &mut self.output.recorder
            && found.wanted
            && header.visits == 0
            && writer.forward(record, header, places).is_err()
        {
            self.not_recorded += 1;
        }
    }

    /// Shows what every input has promised not to precede, in the total order.
    fn release(&mut self, now_ns: u64) -> usize {
        let finished = |i: &RecordReader| self.shutdown.is_requested() && i.is_finished();
        let marks = self.marks.iter().zip(&self.inputs);
        let mark = marks.filter(|(_, i)| !finished(i)).map(|(m, _)| *m).min().unwrap_or(u64::MAX);
        let order = |r: &OwnedRecord| r.record().header().order;
        self.waiting.sort_by_key(order);
        let ready = self.waiting.partition_point(|r| order(r) <= mark);
        let mut shown = 0;
        let waiting = std::mem::take(&mut self.waiting);
        for record in &waiting[..ready] {
            if !self.has_room() {
                break;
            }
            self.show(&record.record(), now_ns);
            self.shard.advance(0, self.clock_ns);
            let collector = record.record().header().collector;
            let held = &mut self.held[usize::from(collector) % MAX_COLLECTORS];
            *held -= 1;
            self.ledger.hold(collector, *held);
            shown += 1;
        }
        self.waiting = waiting;
        self.waiting.drain(..shown);
        if shown == ready && mark != u64::MAX && mark > self.passed_mark {
            self.pass_mark(mark);
        }
        shown
    }

    fn pass_mark(&mut self, mark: u64) {
        let mut all = true;
        for (writer, bell) in &mut self.output.shards {
            all &= writer.write_watermark(mark).is_ok();
            bell.ring();
        }
        if all {
            // A full ring only delays the promise: the next round makes it again.
            self.passed_mark = mark;
        }
    }

    /// Sends facts and stories on. True when none is left.
    fn send_notes(&mut self) -> bool {
        if self.notes.is_empty() {
            return true;
        }
        while let Some(note) = self.notes.pop_front() {
            if let Err(note) = self.output.assessor.send(note) {
                self.notes.push_front(note);
                break;
            }
        }
        self.output.assessor.ring();
        if self.order == Order::Arrival && self.notes.len() >= MAX_WAITING_NOTES {
            let before = self.notes.len();
            self.notes.retain(|note| !note.is_fact());
            self.facts_left_out += (before - self.notes.len()) as u64;
        }
        self.notes.is_empty()
    }
}
