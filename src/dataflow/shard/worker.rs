//! The thread of a shard: reads records from its rings, processes them with the [`Shard`], and
//! passes them to the next shard they are relevant to, or to the bridge.
//!
//! Records visit shards from lower to higher numbers, so shards never wait for each other in a
//! circle: a shard that waits for room waits for a higher one, and the bridge waits for no shard.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::evidence::{EvidenceMessage, Written, write_story};
use crate::guard::{guarded, report_instead_of_printing};
use crate::matcher::event_time::reached_by;
use crate::matcher::order::Order;
use crate::rules::LiveRules;
use crate::shard::failure_report::report_failures;
use crate::shard::shard::{Shard, StepOutput};
use crate::shard::shard_output::ShardOutput;
use crate::shard::worker_stats::WorkerStats;
use tapio_core::clock;
use tapio_core::event::Reason;
use tapio_core::memory::MemoryPressure;
use tapio_core::ring::{
    Bell, Header, MAX_FORWARDED_BLOCKS, Membership, OwnedRecord, Record, RecordReader, RecordType,
    StageLedger, attach, wait_until,
};
use tapio_core::shutdown::Shutdown;

/// Blocks read from one ring before the next one has its turn.
const TURN_BLOCKS: usize = 4096;
/// A round with fewer records is followed by a nap, so that more can gather: polling for each
/// record of a slower producer would cost more than processing it.
const BUSY_RECORDS: usize = 64;
/// While traffic flows a shard naps instead of being woken for each event.
const NAP: Duration = Duration::from_micros(100);
/// A nap of a shard whose input waits for room in an output.
const BLOCKED_NAP: Duration = Duration::from_millis(1);
/// Naps without input before the shard sleeps until its bell rings.
const NAPS_BEFORE_SLEEP: u32 = 2;
/// The interval at which time advances without an event.
const TICK_NS: u64 = 50_000_000;
/// The same while a story waits to be emitted for the first time: short, and long enough for what
/// comes with its first events.
const OPENING_TICK_NS: u64 = 10_000_000;
/// The longest sleep of a shard that doesn't depend on time: whatever matters rings the bell.
const MAX_SLEEP: Duration = Duration::from_secs(1);
/// Evidence messages that wait for room in the ring to the assessor. Beyond it, replay reads no
/// more input; live, facts are dropped, stories leave without an assessment, and both are counted.
const MAX_WAITING_MESSAGES: usize = 8_192;

/// The rings and bells that connect a shard with the other threads.
pub(crate) struct Connections {
    /// The rings that it reads: those of the collectors, then one for each lower shard.
    pub(crate) inputs: Vec<RecordReader>,
    /// The bell of these rings.
    pub(crate) bell: Arc<Bell>,
    /// The rule set in force; the shard reloads it when it changes.
    pub(crate) rules: Arc<LiveRules>,
    /// The level of memory, which the shard follows.
    pub(crate) memory: MemoryPressure,
    /// The rings that it writes.
    pub(crate) output: ShardOutput,
    /// Its stage ledger.
    pub(crate) ledger: Arc<StageLedger>,
    /// Requested once no further input follows.
    pub(crate) shutdown: Shutdown,
}

/// Runs a shard on its thread.
pub(crate) struct Worker {
    number: usize,
    shard: Shard,
    rules: Arc<LiveRules>,
    memory: MemoryPressure,
    order: Order,
    inputs: Vec<RecordReader>,
    /// The last watermark of each input, as a position in the total order.
    watermarks: Vec<u64>,
    /// Records that wait for the watermarks; in total order only.
    waiting: Vec<OwnedRecord>,
    /// The watermark passed to the higher shards last.
    passed_watermark: u64,
    /// Blocks known to be free in every output ring.
    free_blocks: usize,
    /// Whether a record waited for room in the last round.
    is_blocked: bool,
    output: ShardOutput,
    messages: VecDeque<EvidenceMessage>,
    bell: Arc<Bell>,
    ledger: Arc<StageLedger>,
    stats: Arc<WorkerStats>,
    evidence_dropped: u64,
    unassessed: u64,
    unrecorded: u64,
    /// Whether the recorder has to be woken.
    has_recorded: bool,
    /// Evictions of the shard when they were looked at last.
    evicted: u64,
    shutdown: Shutdown,
    step: StepOutput,
    /// The input whose next event made the shard panic, and why: the event is forwarded raw.
    failed: Option<(usize, String)>,
    events: u64,
    /// The latest event time.
    clock_ns: u64,
    tick_ns: u64,
}

impl Worker {
    /// The worker of a shard. It ends once shutdown is requested and every input is read out.
    pub(crate) fn new(number: usize, shard: Shard, order: Order, connections: Connections) -> Self {
        let Connections { inputs, bell, rules, memory, output, ledger, shutdown } = connections;
        Self {
            number,
            shard,
            rules,
            memory,
            order,
            watermarks: vec![0; inputs.len()],
            inputs,
            waiting: Vec::new(),
            passed_watermark: 0,
            free_blocks: 0,
            is_blocked: false,
            output,
            messages: VecDeque::new(),
            bell,
            ledger,
            stats: Arc::default(),
            evidence_dropped: 0,
            unassessed: 0,
            unrecorded: 0,
            has_recorded: false,
            evicted: 0,
            shutdown,
            step: StepOutput::default(),
            failed: None,
            events: 0,
            clock_ns: 0,
            tick_ns: 0,
        }
    }

    /// The shard's counters.
    pub(crate) fn stats(&self) -> Arc<WorkerStats> {
        Arc::clone(&self.stats)
    }

    /// Runs until the inputs end. Returns the shard, for the matches that it recorded.
    pub(crate) fn run(mut self) -> Shard {
        attach(&self.bell);
        report_instead_of_printing();
        let mut naps = 0u32;
        loop {
            let (records, messages_wait) = self.round(clock::wall_ns());
            self.stats.rounds.add(1);
            if records >= BUSY_RECORDS {
                naps = 0;
                continue;
            }
            if records == 0 && self.is_finished() {
                break;
            }
            naps = if records > 0 { 0 } else { naps + 1 };
            if records == 0 && self.is_blocked {
                // The next stage has no room: its disk or the server may be away for hours.
                std::thread::sleep(BLOCKED_NAP);
            } else if naps < NAPS_BEFORE_SLEEP || messages_wait {
                std::thread::sleep(NAP);
            } else {
                self.sleep();
            }
        }
        self.finish();
        self.output.close();
        self.shard
    }

    /// Ends the shard's stories and sends what is left.
    fn finish(&mut self) {
        self.shard.finish(self.order == Order::Total, clock::wall_ns());
        self.shard.take_messages(&mut self.messages, true);
        while !self.push_messages() && !self.output.assessor.is_abandoned() {
            std::thread::sleep(NAP);
        }
        report_failures(&mut self.shard, &self.rules, self.order, clock::wall_ns());
        self.publish();
    }

    fn publish(&mut self) {
        self.stats.events.set(self.events);
        self.stats.evidence_messages_dropped.set(self.evidence_dropped);
        self.stats.stories_unassessed.set(self.unassessed);
        self.stats.recovery_log_overruns.set(self.unrecorded);
        let stats = self.shard.stats();
        self.stats.publish(&stats);
        if stats.evicted() > self.evicted {
            self.evicted = stats.evicted();
            self.memory.want_more();
        }
    }

    /// Sleeps until the bell rings, or until the next tick if the shard depends on time.
    fn sleep(&self) {
        let depends_on_time = self.shard.stats().lane.stories_open > 0
            || self.shard.is_pending()
            || self.shutdown.is_requested();
        let tick = Duration::from_nanos(self.tick_interval_ns());
        let timeout = if depends_on_time { tick } else { MAX_SLEEP };
        wait_until(&self.bell, timeout, || {
            !self.inputs.iter().all(RecordReader::is_empty) || self.is_finished()
        });
    }

    fn tick_interval_ns(&self) -> u64 {
        if self.shard.has_new_stories() { OPENING_TICK_NS } else { TICK_NS }
    }

    fn is_finished(&self) -> bool {
        // A hung collector never closes its ring. The rings of lower shards come last.
        let of_collectors = self.inputs.len().saturating_sub(self.number);
        let abandoned = of_collectors * usize::from(self.shutdown.abandons_hung_threads());
        self.shutdown.is_requested()
            && self.inputs[..abandoned].iter().all(RecordReader::is_empty)
            && self.inputs[abandoned..].iter().all(RecordReader::is_finished)
            && self.waiting.is_empty()
    }

    /// Processes what every input has. Returns the number of records, and whether evidence messages
    /// wait for room.
    fn round(&mut self, now_ns: u64) -> (usize, bool) {
        if let Some(rules) = self.rules.newer(self.shard.rules()) {
            self.shard.reload(rules);
        }
        self.follow_memory(now_ns);
        let mut records = 0;
        if self.order == Order::Arrival || self.messages.len() < MAX_WAITING_MESSAGES {
            let mut inputs = std::mem::take(&mut self.inputs);
            for (i, input) in inputs.iter_mut().enumerate() {
                records += self.drain(i, input, now_ns);
            }
            self.inputs = inputs;
        }
        if self.order == Order::Total {
            records += self.release(now_ns);
        }
        let ticks = self.order == Order::Arrival
            && now_ns.saturating_sub(self.tick_ns) >= self.tick_interval_ns();
        if ticks {
            self.tick_ns = now_ns;
            self.shard.advance(now_ns, self.clock_ns);
        }
        self.shard.take_messages(&mut self.messages, ticks);
        report_failures(&mut self.shard, &self.rules, self.order, now_ns);
        let all_sent = self.send_messages();
        if records > 0 {
            self.output.shards.iter().for_each(|(_, bell)| bell.ring());
            self.output.bridge.1.ring();
            self.wake_recorder();
        }
        if records > 0 || ticks {
            self.publish();
        }
        (records, !all_sent)
    }

    /// Bounds the shard to the level of memory. What that evicts isn't a wish for larger bounds.
    fn follow_memory(&mut self, now_ns: u64) {
        let level = self.memory.level();
        if level != self.shard.memory() {
            self.shard.limit(level, now_ns);
            self.evicted = self.shard.stats().evicted();
        }
    }

    /// Processes what an input has. One guard for all of it costs nothing for an event; the event
    /// on which the shard panics is still in the ring, and is forwarded raw under the next guard.
    fn drain(&mut self, i: usize, input: &mut RecordReader, now_ns: u64) -> usize {
        loop {
            let read = guarded(|| input.drain(TURN_BLOCKS, |r| self.take(i, r, now_ns)));
            match read {
                Ok(records) => return records,
                // Forwarding it raw panics as well: it is tried again in the next round.
                Err(_) if self.failed.is_some() => return 0,
                Err(cause) => self.failed = Some((i, cause)),
            }
        }
    }

    /// Takes a record from an input. False if an output ring has no room for it: the record stays
    /// in its ring.
    fn take(&mut self, input: usize, record: &Record<'_>, now_ns: u64) -> bool {
        match (record.header().record, self.order) {
            (RecordType::Watermark, _) => {
                let watermark = &mut self.watermarks[input];
                *watermark = (*watermark).max(record.header().order);
                true
            }
            (RecordType::Event | RecordType::LogBlock, Order::Total) => {
                let (account, events) = (record.header().account(), record.events().into());
                self.ledger.add_received(account, events);
                self.ledger.add_held(account, events);
                self.waiting.push(record.to_owned());
                true
            }
            (RecordType::Event | RecordType::LogBlock, Order::Arrival) => {
                if !self.has_room() {
                    return false;
                }
                if self.failed.as_ref().is_some_and(|(failed, _)| *failed == input) {
                    self.forward_raw(record);
                } else {
                    self.ledger.add_received(record.header().account(), record.events().into());
                    self.process(record, now_ns);
                }
                true
            }
            (RecordType::Story | RecordType::Skip, _) => true,
        }
    }

    /// Whether every output ring has room for the largest record. Reads the rings' state only when
    /// the blocks known to be free are used up.
    fn has_room(&mut self) -> bool {
        if self.free_blocks < 2 * MAX_FORWARDED_BLOCKS {
            let free = self.output.shards.iter().map(|(w, _)| w.free_blocks());
            self.free_blocks = free.fold(self.output.bridge.0.free_blocks(), usize::min);
        }
        self.is_blocked = self.free_blocks < 2 * MAX_FORWARDED_BLOCKS;
        !self.is_blocked
    }

    /// Processes one event, or log records that pass as they came, and passes them to the next
    /// shard or the bridge.
    fn process(&mut self, record: &Record<'_>, now_ns: u64) {
        self.events += u64::from(record.events());
        let time_ns = record.header().time_ns;
        self.clock_ns = self.clock_ns.max(match self.order {
            Order::Arrival => reached_by(time_ns, now_ns),
            Order::Total => time_ns,
        });
        if record.header().record == RecordType::LogBlock {
            let header = self.shard.pass(record, now_ns);
            return self.forward(record, &header, &[]);
        }
        let mut step = std::mem::take(&mut self.step);
        self.shard.step(record, now_ns, &mut step);
        let header = self.shard.next_header(record, &step);
        self.record(record, &header, &step);
        self.forward(record, &header, &step.memberships);
        self.step = step;
    }

    /// Passes on an event, which is received already, without the memberships of this shard.
    #[cold]
    fn forward_raw(&mut self, record: &Record<'_>) {
        let mut header = *record.header();
        header.visits &= !(1u64 << self.number);
        self.forward(record, &header, &[]);
        if let Some((_, cause)) = self.failed.take() {
            self.shard.event_failed(record, cause);
        }
    }

    fn forward(&mut self, record: &Record<'_>, header: &Header, memberships: &[Membership]) {
        let writer = match header.visits {
            0 => &mut self.output.bridge.0,
            more => &mut self.output.shards[more.trailing_zeros() as usize - self.number - 1].0,
        };
        let account = header.account();
        // Twice the record: it may have to skip the end of the ring.
        let used = 2 * (record.len_blocks() + memberships.len());
        self.free_blocks = self.free_blocks.saturating_sub(used);
        match writer.forward(record, header, memberships) {
            Ok(()) => self.ledger.add_forwarded(account, record.events().into()),
            // has_room held before, so only a record that its memberships made too large fails.
            Err(_) => self.ledger.add_dropped(account, Reason::Oversize, record.events().into()),
        }
    }

    /// Wakes the recorder, if something was recorded since it was woken last.
    fn wake_recorder(&mut self) {
        if std::mem::take(&mut self.has_recorded)
            && let Some((_, bell)) = &self.output.recorder
        {
            bell.ring();
        }
    }

    /// Passes a relevant event to the recorder, after its last visit. Nothing waits for room.
    fn record(&mut self, record: &Record<'_>, header: &Header, step: &StepOutput) {
        // The memberships of a late event show that it was late.
        let memberships = if step.late { &step.memberships[..] } else { &[] };
        if let Some((writer, _)) = &mut self.output.recorder
            && step.relevant
            && header.visits == 0
        {
            match writer.forward(record, header, memberships) {
                Ok(()) => self.has_recorded = true,
                Err(_) => self.unrecorded += 1,
            }
        }
    }

    /// Processes, in total order, the records that the watermarks of all inputs have passed.
    fn release(&mut self, now_ns: u64) -> usize {
        let is_finished = |i: &RecordReader| self.shutdown.is_requested() && i.is_finished();
        let open = self.watermarks.iter().zip(&self.inputs).filter(|(_, i)| !is_finished(i));
        let watermark = open.map(|(w, _)| *w).min().unwrap_or(u64::MAX);
        let order = |r: &OwnedRecord| r.record().header().order;
        self.waiting.sort_by_key(order);
        let ready = self.waiting.partition_point(|r| order(r) <= watermark);
        let mut processed = 0;
        let waiting = std::mem::take(&mut self.waiting);
        for record in &waiting[..ready] {
            if !self.has_room() {
                break;
            }
            if let Err(cause) = guarded(|| self.process(&record.record(), now_ns)) {
                self.failed = Some((0, cause));
                self.forward_raw(&record.record());
            }
            self.shard.advance(0, self.clock_ns);
            let events = record.record().events();
            self.ledger.remove_held(record.record().header().account(), events.into());
            processed += 1;
        }
        self.waiting = waiting;
        self.waiting.drain(..processed);
        if processed == ready && watermark != u64::MAX && watermark > self.passed_watermark {
            self.pass_watermark(watermark);
        }
        processed
    }

    fn pass_watermark(&mut self, watermark: u64) {
        let mut all = true;
        for (writer, bell) in &mut self.output.shards {
            all &= writer.write_watermark(watermark).is_ok();
            bell.ring();
        }
        if all {
            // A full ring only delays the watermark: the next round passes it again.
            self.passed_watermark = watermark;
        }
    }

    /// Sends evidence messages to the assessor as it has room. True when none is left.
    fn push_messages(&mut self) -> bool {
        while let Some(message) = self.messages.pop_front() {
            if let Err(message) = self.output.assessor.send(message) {
                self.messages.push_front(message);
                break;
            }
        }
        self.output.assessor.ring();
        self.messages.is_empty()
    }

    /// The same, and drops facts of which too many wait.
    fn send_messages(&mut self) -> bool {
        if !self.messages.is_empty() {
            self.push_messages();
        }
        if self.order == Order::Arrival && self.messages.len() >= MAX_WAITING_MESSAGES {
            let before = self.messages.len();
            self.messages.retain(|message| !message.is_fact());
            self.evidence_dropped += (before - self.messages.len()) as u64;
            self.send_unassessed();
        }
        self.messages.is_empty()
    }

    /// Sends the oldest half of the waiting stories straight to the bridge: no event waits for the
    /// assessor.
    fn send_unassessed(&mut self) {
        while self.messages.len() > MAX_WAITING_MESSAGES / 2
            && let Some(mut story) = self.messages.pop_front().and_then(EvidenceMessage::into_story)
        {
            match write_story(&mut self.output.bridge.0, &mut story.story) {
                Written::Whole => self.unassessed += 1,
                Written::Oversize => self.evidence_dropped += 1,
                Written::Full => {
                    self.messages.push_front(EvidenceMessage::story(story));
                    break;
                }
            }
        }
        self.free_blocks = 0;
        self.output.bridge.1.ring();
    }
}
