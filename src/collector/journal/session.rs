//! One run: reads records, applies filter and rate limit, emits events, advances the cursor.

use std::path::Path;
use std::time::Duration;

use super::export::Journalctl;
use super::folder::{Journal, ReadErrors};
use super::position::Position;
use super::rate::RateLimiter;
use super::record::Record;
use super::to_event::{self, EventConverter, Now};
use crate::events::Filter;
use crate::runtime::alarm::Alarm;
use crate::runtime::cursor::Cursor;
use crate::runtime::{CollectorError, Context, Ended};
use tapio_core::event::Reason;

/// Poll interval: journald appends through a mapping, of which no watch notifies in time.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Poll interval of a quiet journal, and so the delay of the next record.
const QUIET_POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Polls without a record after which the journal is quiet: two seconds.
const QUIET_AFTER_POLLS: u32 = 40;
/// Interval of the checks whether the events offered are finalized, while reading has to pause.
const PAUSE_POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Maximum number of read errors logged one by one.
const MAX_LOGGED_ERRORS: u64 = 10;

/// The state of one run.
pub(super) struct Session<'a> {
    journal: Journal,
    output: Output<'a>,
    cursor: Cursor,
    bad_entries: u64,
    gone_entries: u64,
    bad_fields: u64,
    logged_errors: u64,
}

/// Filters, limits and emits records, whichever reader they come from.
struct Output<'a> {
    units: &'a Filter,
    /// Whether to emit the kernel's own records.
    kernel: bool,
    rates: RateLimiter,
    converter: EventConverter,
    /// The position of the last record processed.
    position: Option<Position>,
    records: u64,
    throttled: u64,
}

impl<'a> Session<'a> {
    /// A session that emits the records of `units`, within `rates`, and the kernel's own records
    /// if `kernel`.
    pub(super) fn new(
        journal: Journal,
        cursor: Cursor,
        units: &'a Filter,
        kernel: bool,
        rates: RateLimiter,
    ) -> Self {
        Self {
            journal,
            output: Output {
                units,
                kernel,
                rates,
                converter: EventConverter::default(),
                position: None,
                records: 0,
                throttled: 0,
            },
            cursor,
            bad_entries: 0,
            gone_entries: 0,
            bad_fields: 0,
            logged_errors: 0,
        }
    }

    /// Reads the files until shutdown.
    pub(super) fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let alarm = Alarm::new(&context.shutdown)?;
        let mut record = Record::default();
        let mut empty_polls = 0u32;
        while !context.shutdown.is_requested() {
            let now = Now::read();
            let has_read = self
                .journal
                .read_batch(&mut record, |record| self.output.process(record, now, context));
            self.account(context);
            self.advance_cursor(context);
            if has_read {
                empty_polls = 0;
                continue;
            }
            context.sink.flush();
            empty_polls = empty_polls.saturating_add(1);
            let is_quiet = empty_polls > QUIET_AFTER_POLLS && !self.cursor.is_pending();
            let interval = if is_quiet {
                QUIET_POLL_INTERVAL.min(context.shutdown.heartbeat_interval())
            } else {
                POLL_INTERVAL
            };
            self.journal.wait(&alarm, interval);
        }
        if let Err(e) = self.cursor.finish(context) {
            report_unsaved(context, &e);
        }
        Ok(Ended::Stopped)
    }

    /// Reads one folder through journalctl until shutdown.
    pub(super) fn run_journalctl(
        &mut self,
        folder: &Path,
        after: Option<&Position>,
        context: &mut Context,
    ) -> Result<Ended, CollectorError> {
        let alarm = Alarm::new(&context.shutdown)?;
        let failed = |e: std::io::Error| CollectorError::new("journalctl", e);
        let mut journalctl = Journalctl::start(folder, after).map_err(failed)?;
        let mut record = Record::default();
        while !context.shutdown.is_requested() {
            let now = Now::read();
            let timeout = if self.cursor.is_pending() {
                POLL_INTERVAL
            } else {
                context.shutdown.heartbeat_interval()
            };
            let has_read = journalctl.read(&alarm, timeout, &mut record, |record| {
                self.output.process(record, now, context);
            });
            self.account(context);
            self.advance_cursor(context);
            if !has_read.map_err(failed)? {
                context.sink.flush();
            }
        }
        Ok(Ended::Stopped)
    }

    /// Advances the cursor, and pauses while too many events are not finalized.
    fn advance_cursor(&mut self, context: &mut Context) {
        if let Some(position) = self.output.position {
            self.cursor.advance(&position.to_string());
        }
        while self.save_cursor(context) && !context.shutdown.is_requested() {
            context.sink.flush();
            std::thread::sleep(PAUSE_POLL_INTERVAL);
        }
    }

    /// Returns whether to pause until the events offered are finalized.
    fn save_cursor(&mut self, context: &mut Context) -> bool {
        self.cursor.try_save(context).unwrap_or_else(|e| {
            report_unsaved(context, &e);
            false
        })
    }

    /// Counts and reports the read errors since the last call.
    fn account(&mut self, context: &mut Context) {
        let errors: ReadErrors = std::mem::take(&mut self.journal.errors);
        if errors.bad_entries > 0 {
            context.sink.refuse(Reason::BadInput, errors.bad_entries);
        }
        if errors.gone_entries > 0 {
            context.sink.refuse(Reason::SourceGone, errors.gone_entries);
        }
        self.bad_entries += errors.bad_entries;
        self.gone_entries += errors.gone_entries;
        self.bad_fields += errors.bad_fields;
        for (path, cause) in errors.causes {
            self.logged_errors += 1;
            if self.logged_errors <= MAX_LOGGED_ERRORS {
                tracing::warn!(collector = "journal", "{path}: {cause}");
            }
            context.report.note(&path, cause);
        }
        context.report.count("files", self.journal.len() as u64);
        context.report.count("records_read", self.output.records);
        context.report.count("records_throttled", self.output.throttled);
        context.report.count("entries_corrupt", self.bad_entries);
        context.report.count("entries_gone", self.gone_entries);
        context.report.count("fields_corrupt", self.bad_fields);
    }
}

impl Output<'_> {
    /// Emits a record if the filter selects it and its unit's rate limit admits it. Returns
    /// whether to read on.
    fn process(&mut self, record: &Record, now: Now, context: &mut Context) -> bool {
        self.records += 1;
        let unit = to_event::sender_unit(record);
        let is_selected = (self.kernel || !to_event::is_from_kernel(record))
            && (unit.is_empty() || self.units.selects(unit));
        // A runtime writes for all its containers, and none of them may use up the others' share.
        let sender = to_event::container_of(record).unwrap_or(unit);
        if is_selected && self.rates.admits(sender, now.monotonic_ns) {
            self.converter.emit(record, now, context);
        } else if is_selected {
            self.throttled += 1;
            context.sink.refuse(Reason::Throttled, 1);
        }
        // A shutdown may have cut the event off: the next start reads the record again.
        if context.shutdown.is_requested() {
            return false;
        }
        self.position = Some(record.position);
        true
    }
}

fn report_unsaved(context: &Context, error: &std::io::Error) {
    context.report.note("cursor", format!("can't be saved: {error}; retrying"));
}
