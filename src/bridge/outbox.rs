//! Where finished batches go: into the spool, if there is one, and into the queue to the server.
//!
//! It has no threads, sockets or clocks: the bridge's thread and the simulation of delivery
//! (`tests/delivery/simulation.rs`) call it.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::account::EventAccount;
use super::batch::{Accounts, QueuedBatch, add};
use super::budget::Budget;
use super::exports::Exports;
use super::failure_log::{FailureLog, report_drop, unusable_spool};
use super::feed::SpoolFeed;
use super::flight_recorder::FlightRecorder;
use super::lane::Lane;
use super::lanes::{IMPORTANT, LANE_NAMES, LANES, ORDINARY, epoch_of};
use super::quarantine::Quarantine;
use super::queue::Acknowledged;
use super::refused::Refused;
use super::room::Room;
use super::spool::{LaneSpool, Spool};
use super::spool_index::total_of;
use crate::store::{Durability, Files, FramePosition, PendingSync, is_disk_full};
use tapio_core::event::{EventId, Reason};
use tapio_core::ring::{MAX_ACCOUNTS, StageLedger};
use tapio_wire::EncodedBatch;
use tapio_wire::proto::Ack;

/// Latest ids that a start reads from the spool.
const MAX_LATEST_IDS: usize = 524_288;
/// How often the server has to end the stream because of a batch, until it counts as refused.
const MAX_OBJECTIONS: u32 = 3;
/// Most refused batches that are divided at once; more are quarantined whole.
const MAX_SPLITS: u32 = 64;

/// The spool to be opened.
#[derive(Clone, Debug)]
pub struct SpoolConfig {
    /// Its folder; created if missing.
    pub dir: PathBuf,
    /// About the size of all segments.
    pub bytes: u64,
    /// The faults that accepted events survive.
    pub durability: Durability,
    /// The collector's number under which events of earlier processes are counted.
    pub recovered: u8,
}

/// An outbox to be opened.
pub struct OutboxConfig<'a> {
    /// The node's name.
    pub node: &'a str,
    /// Identifies the process.
    pub epoch: u64,
    /// Bytes of batches kept in memory.
    pub queue_bytes: usize,
    /// `None`: batches are in memory only.
    pub spool: Option<&'a SpoolConfig>,
    /// The file for items that the server refuses; `None`: they are counted only.
    pub quarantine: Option<PathBuf>,
}

/// A sync of the spool that is under way.
pub struct SpoolSync([Option<PendingSync>; LANES]);

impl SpoolSync {
    /// Writes the files to the disk.
    ///
    /// # Errors
    /// When the disk reports an error.
    pub fn run(&self) -> [io::Result<()>; LANES] {
        self.0.each_ref().map(|sync| sync.as_ref().map_or(Ok(()), PendingSync::run))
    }
}

/// The lanes, and the accounts of the events in them.
pub struct Outbox {
    lanes: [Lane; LANES],
    account: EventAccount,
    queue_bytes: usize,
    budget: Option<Budget>,
    exports: Option<Exports>,
    durability: Durability,
    quarantine: Quarantine,
    /// How many refused batches may still be divided.
    splits_left: u32,
    failures: FailureLog,
    /// Whether dropped events were logged: once, until the server has everything again.
    is_drop_logged: bool,
    pub(super) recorder: Arc<FlightRecorder>,
}

impl Outbox {
    /// Opens the spool. `account`: the ledger of stage `bridge`; `recovered`: the one in which the
    /// events of earlier processes are counted as received.
    ///
    /// # Errors
    /// With the folder, when it can't be used.
    pub fn open(
        config: OutboxConfig<'_>,
        files: &Arc<dyn Files>,
        ledger: Arc<StageLedger>,
        recovered: Option<&StageLedger>,
    ) -> io::Result<Self> {
        let OutboxConfig { node, epoch, queue_bytes, spool, quarantine } = config;
        let account = EventAccount::new(ledger, spool.is_some());
        let budget = spool.map(|spool| Budget::new(spool.bytes));
        let open_lane = |lane: usize| -> io::Result<Lane> {
            let (epoch, mut opened) = (epoch_of(epoch, lane), None);
            if let (Some(spool), Some(budget)) = (spool, &budget) {
                let config = LaneSpool {
                    dir: spool.dir.join(LANE_NAMES[lane]),
                    segment_bytes: budget.segment_bytes(lane),
                    durability: spool.durability,
                    epoch,
                    recovered: spool.recovered,
                };
                let (lane_spool, found) =
                    Spool::open(config, Arc::clone(files)).map_err(unusable_spool)?;
                let events = total_of(&found.waiting) + total_of(&found.lost);
                if let Some(recovered) = recovered {
                    recovered.add_received(spool.recovered, events);
                    recovered.add_forwarded(spool.recovered, events);
                }
                account.receive(&found.waiting);
                account.receive(&found.lost);
                account.drop_events(&found.lost, Reason::SpoolLost);
                opened = Some(lane_spool);
            }
            Ok(Lane::new(node, epoch, queue_bytes / LANES, opened))
        };
        Ok(Self {
            lanes: [open_lane(IMPORTANT)?, open_lane(ORDINARY)?],
            account,
            queue_bytes,
            budget,
            exports: None,
            durability: spool.map_or(Durability::Process, |spool| spool.durability),
            quarantine: Quarantine::new(quarantine),
            splits_left: MAX_SPLITS,
            failures: FailureLog::default(),
            is_drop_logged: false,
            recorder: Arc::default(),
        })
    }

    /// Lets exporters read the spool. `answers`: a batch counts as answered once all of them have
    /// read it, since no server is configured.
    pub fn with_exports(mut self, feed: Arc<SpoolFeed>, answers: bool) -> Self {
        self.exports = Some(Exports::new(feed, answers, &self.lanes));
        self
    }

    /// Whether exporters wait for batches, or have answered some.
    pub(super) fn exports_are_due(&self) -> bool {
        self.exports.as_ref().is_some_and(|exports| exports.is_due(&self.lanes))
    }

    /// Shows the exporters what is released, if one waits for it.
    pub fn publish(&mut self, is_draining: bool, is_closed: bool) {
        if let Some(exports) = &mut self.exports {
            exports.publish(&self.lanes, is_draining, is_closed);
        }
    }

    /// Takes the answers of the exporters, if no server is configured; `None` if there are none.
    pub fn take_answers(&mut self) -> Option<Acknowledged> {
        self.exports.as_mut()?.answer(&mut self.lanes, &self.account)
    }

    /// Ids of the latest events in the spool that their sources may deliver again.
    pub(super) fn latest_ids(&self) -> HashSet<EventId, ahash::RandomState> {
        let mut ids = HashSet::default();
        for spool in self.lanes.iter().filter_map(|lane| lane.spool.as_ref()) {
            spool.add_latest_ids(&mut ids, MAX_LATEST_IDS);
        }
        ids
    }

    /// Whether there is a spool.
    #[must_use]
    pub fn has_spool(&self) -> bool {
        self.budget.is_some()
    }

    /// Bytes in the spool.
    #[must_use]
    pub fn spool_bytes(&self) -> u64 {
        self.lanes.iter().map(Lane::spool_bytes).sum()
    }

    /// Bytes of batches in memory.
    #[must_use]
    pub fn queue_bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.queue.bytes()).sum()
    }

    /// Whether the disk refuses batches.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failures.is_failing()
    }

    /// Whether there is room for another batch.
    #[must_use]
    pub fn has_room(&self) -> bool {
        if self.has_spool() {
            self.lanes.iter().all(Lane::has_room)
        } else {
            self.queue_bytes() < self.queue_bytes
        }
    }

    /// Whether the server has answered every batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(Lane::is_empty)
    }

    /// Whether every batch is in the spool, where it survives what it is to survive.
    #[must_use]
    pub fn is_spooled(&self) -> bool {
        self.has_spool() && self.lanes.iter().all(Lane::is_spooled)
    }

    /// Takes a batch of a lane; its events are held from then on. Until then they count as in the
    /// rings. `now_ns`: the time, nanoseconds since the Unix epoch.
    pub fn push(&mut self, lane: usize, batch: EncodedBatch, now_ns: u64) {
        self.account.receive(&batch.accounts);
        self.recorder.record(&batch.message(), batch.events);
        self.lanes[lane].push(batch);
        self.append(now_ns);
    }

    /// Appends the batches to the spool that aren't in it yet.
    pub fn append(&mut self, now_ns: u64) {
        for lane in [IMPORTANT, ORDINARY] {
            while self.lanes[lane].next_unspooled().is_some() {
                if let Err(error) = self.append_one(lane, now_ns) {
                    self.failures.failed(&error, "can't write a batch");
                    return;
                }
            }
        }
        self.failures.succeeded();
    }

    fn append_one(&mut self, lane: usize, now_ns: u64) -> io::Result<()> {
        let next_bytes = self.lanes[lane].next_unspooled().map_or(0, EncodedBatch::len_bytes);
        self.room().make(lane, next_bytes as u64);
        let mut appended = self.lanes[lane].append(now_ns);
        let lanes = [IMPORTANT, ORDINARY];
        while appended.as_ref().is_err_and(is_disk_full) && self.room().drop_any_answered(&lanes) {
            appended = self.lanes[lane].append(now_ns);
        }
        // Only once: when that doesn't help, others take the room, and dropping more would not
        // help either. Sources are paused then.
        if appended.as_ref().is_err_and(is_disk_full)
            && !self.failures.is_failing()
            && self.room().drop_oldest(&[ORDINARY, IMPORTANT])
        {
            appended = self.lanes[lane].append(now_ns);
        }
        self.drop_removed(Reason::SpoolFull);
        appended?;
        if self.durability == Durability::Process {
            self.release(lane, None);
        }
        Ok(())
    }

    fn room(&mut self) -> Room<'_> {
        let (budget, exports) = (self.budget.as_ref(), self.exports.as_ref());
        Room { lanes: &mut self.lanes, budget, exports }
    }

    /// The first batch of a lane that some exporter hasn't read.
    fn kept(&self, lane: usize) -> Option<FramePosition> {
        self.exports.as_ref()?.kept(lane)
    }

    /// Counts the events of segments that were removed.
    fn drop_removed(&mut self, reason: Reason) {
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            if let Some(exports) = &self.exports {
                exports.note_removed(number, lane);
            }
            let Some(spool) = &mut lane.spool else { continue };
            if let Some(dropped) = spool.drop_removed(Some(&mut lane.queue)) {
                self.account.drop_events(&dropped, reason);
                report_drop(&mut self.is_drop_logged, &dropped, reason);
            }
        }
    }

    fn release(&mut self, lane: usize, through: Option<FramePosition>) {
        for lost in self.lanes[lane].release(through, &self.account) {
            self.account.drop_events(&lost, Reason::SpoolLost);
            report_drop(&mut self.is_drop_logged, &lost, Reason::SpoolLost);
        }
    }

    /// Notes what has to be synced before it is released; `None` if nothing has.
    pub fn begin_sync(&mut self) -> Option<SpoolSync> {
        if self.durability == Durability::Process {
            return None;
        }
        let syncs = self.lanes.each_mut().map(|lane| lane.spool.as_mut()?.begin_sync());
        syncs.iter().any(Option::is_some).then_some(SpoolSync(syncs))
    }

    /// Takes the results of a sync: releases what is synced; what the disk failed to write is
    /// appended again.
    pub fn finish_sync(&mut self, sync: &SpoolSync, results: [io::Result<()>; LANES]) {
        for (lane, result) in results.into_iter().enumerate() {
            let Some(pending) = &sync.0[lane] else { continue };
            match self.lanes[lane].finish_sync(pending, result) {
                Ok(()) => self.release(lane, Some(pending.through())),
                Err(error) => self.failures.failed(&error, "the disk failed to write batches"),
            }
        }
    }

    /// Reads batches from the spool into the queues as far as there is room.
    pub fn refill(&mut self) {
        for lane in &mut self.lanes {
            if let Some(lost) = lane.refill() {
                self.account.drop_events(&lost, Reason::SpoolLost);
                report_drop(&mut self.is_drop_logged, &lost, Reason::SpoolLost);
            }
        }
    }

    /// The next batch to send, important ones first, if less than `window_bytes` are in flight; one
    /// batch may be in any case.
    pub(super) fn unsent(&self, window_bytes: usize) -> Option<&QueuedBatch> {
        let in_flight: usize = self.lanes.iter().map(|lane| lane.queue.in_flight_bytes()).sum();
        if in_flight > 0 && in_flight >= window_bytes {
            return None;
        }
        self.lanes.iter().find_map(|lane| lane.queue.unsent())
    }

    /// Sends the next batch by `send`, in its frame for gRPC. Returns its size; `None`: there is
    /// none, the window is full, or `send` doesn't take it.
    pub fn send_next(
        &mut self,
        window_bytes: usize,
        send: impl FnOnce(&bytes::Bytes) -> bool,
    ) -> Option<usize> {
        let framed = self.unsent(window_bytes)?.framed.clone();
        if !send(&framed) {
            return None;
        }
        let lane = self.lanes.iter_mut().find(|lane| lane.queue.unsent().is_some())?;
        lane.queue.mark_sent();
        Some(framed.len())
    }

    /// Batches that are sent and not answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.lanes.iter().map(|lane| lane.queue.in_flight()).sum()
    }

    /// Whether a batch waits to be sent.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.lanes.iter().any(|lane| lane.queue.unsent().is_some())
    }

    /// Whether batches wait on disk only.
    pub(super) fn has_backlog(&self) -> bool {
        self.lanes.iter().any(Lane::has_backlog)
    }

    /// Marks all batches as unsent after a lost connection. Returns how many were sent.
    pub fn rewind(&mut self) -> usize {
        self.lanes.iter_mut().map(|lane| lane.queue.rewind()).sum()
    }

    /// Takes an ack. Refused batches have to be handled then ([`Outbox::handle_refused`]).
    pub fn acknowledge(&mut self, ack: &Ack) -> Acknowledged {
        let mut done = Acknowledged::default();
        for lane in &mut self.lanes {
            done.add(&lane.queue.acknowledge(ack, &self.account));
        }
        done
    }

    /// Takes the server's objection, for which it has ended the stream, to the only batch in
    /// flight. After some of them the batch counts as refused.
    pub(super) fn object(&mut self, cause: &str) {
        if self.in_flight() != 1 {
            return;
        }
        let lane = self.lanes.iter_mut().find(|lane| lane.queue.in_flight() == 1);
        if let Some(lane) = lane
            && lane.queue.object() >= MAX_OBJECTIONS
        {
            lane.queue.refuse_oldest(cause);
        }
    }

    /// Handles refused batches: divides them, to find the items that the server objects to, and
    /// puts single items into quarantine. Returns how many events were dropped, and whether the
    /// pieces have to be sent on a new stream.
    pub(super) fn handle_refused(&mut self) -> Refused {
        let mut handled = Refused::default();
        for lane in &mut self.lanes {
            while let Some(batch) = lane.queue.next_refused() {
                if batch.items > 1 && self.splits_left > 0 {
                    self.splits_left -= 1;
                    if lane.queue.split_refused() {
                        handled.splits += 1;
                        continue;
                    }
                }
                if let Some(batch) = lane.queue.next_refused() {
                    handled.cause.get_or_insert_with(|| batch.refusal.clone().unwrap_or_default());
                    handled.quarantined += self.quarantine.add(batch);
                }
                handled.events += u64::from(lane.queue.drop_refused(&self.account));
            }
        }
        handled
    }

    /// To be called about once a second: removes what the server has answered from the spool, and
    /// notices what somebody deleted there.
    pub fn maintain(&mut self) {
        self.splits_left = (self.splits_left + 1).min(MAX_SPLITS);
        let mut lost = [0; MAX_ACCOUNTS];
        if let Some(exports) = &self.exports {
            exports.note_events(&self.lanes);
        }
        for at in [IMPORTANT, ORDINARY] {
            let kept = self.kept(at);
            match self.lanes[at].maintain(kept) {
                Ok(more) => more.iter().for_each(|more| add(&mut lost, more)),
                Err(error) => self.failures.failed(&error, "can't be maintained"),
            }
        }
        self.account.drop_events(&lost, Reason::SpoolLost);
        report_drop(&mut self.is_drop_logged, &lost, Reason::SpoolLost);
        if self.is_empty() {
            self.is_drop_logged = false;
        }
        self.failures.tick();
    }

    /// When the oldest batch in the spool that the server hasn't answered was appended, nanoseconds
    /// since the Unix epoch. To be called about once a second: it reads that batch.
    pub fn oldest_ns(&mut self) -> Option<u64> {
        self.lanes.iter_mut().filter_map(Lane::oldest_ns).min()
    }

    /// Ends the outbox. Batches in the spool stay for the next process; others are dropped. Returns
    /// the number of events dropped.
    ///
    /// # Errors
    /// When the position up to which the server has answered can't be noted.
    pub fn close(&mut self) -> io::Result<u64> {
        let mut dropped = 0;
        let mut closed = Ok(());
        for at in [IMPORTANT, ORDINARY] {
            let kept = self.kept(at);
            let lane = &mut self.lanes[at];
            let (unspooled, result) = lane.close(kept);
            for batch in unspooled {
                self.account.drop_unspooled(&batch.accounts, Reason::Shutdown);
                dropped += u64::from(batch.events);
            }
            if lane.spool.is_none() {
                dropped += lane.queue.abandon(&self.account);
            }
            closed = closed.and(result);
        }
        closed.map(|()| dropped)
    }

    /// Counts events that are dropped before they are in a batch.
    pub(super) fn drop_from_rings(&self, events: &Accounts, reason: Reason) {
        self.account.receive(events);
        self.account.drop_unspooled(events, reason);
    }
}
