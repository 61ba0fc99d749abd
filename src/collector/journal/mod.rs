//! Collector `journal`: the records of systemd's journal, read from its files without journalctl or
//! libsystemd.
//!
//! | file | purpose |
//! | --- | --- |
//! | `format.rs` | the layout of headers and objects |
//! | `payload.rs` | xz, lz4 and zstd, up to a limit |
//! | `record.rs` | the fields that are kept of an entry |
//! | `position.rs` | a place in the journal, as journalctl writes it |
//! | `file.rs` | one file, entry by entry, as it grows |
//! | `folder.rs` | all files: found, followed, let go of, merged |
//! | `export.rs` | journalctl, for files of a later format |
//! | `rate.rs` | how many records of each unit are told |
//! | `tell.rs` | records as events |
//!
//! Files are read with pread and nothing is mapped, so that a file that is cut while it is read is an
//! error and no signal. The place reached is kept over restarts of the agent, as a cursor that
//! `journalctl --after-cursor` takes too; an event's id derives from its record's cursor.

mod export;
mod file;
mod folder;
mod format;
mod payload;
mod position;
mod rate;
mod record;
mod tell;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::export::Journalctl;
use self::file::JournalFile;
use self::folder::Journal;
use self::position::Position;
use self::rate::Rates;
use self::record::Record;
use self::tell::Teller;
use crate::events::Filter;
use crate::runtime::alarm::Alarm;
use crate::runtime::cursor::Cursor;
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, factory,
};
use tapio_core::clock;
use tapio_core::event::Reason;

/// How often files are looked at when nothing comes: journald appends through a mapping, which no
/// watch shows in time.
const NAP: Duration = Duration::from_millis(50);
/// The same once nothing has come for a while: the first record's delay then.
const QUIET_NAP: Duration = Duration::from_millis(200);
/// Looks without a record after which it is quiet: two seconds.
const QUIET_LOOKS: u32 = 40;
/// How often it is looked whether what was offered is settled, while nothing more may be.
const PAUSE: Duration = Duration::from_millis(5);
/// Causes of trouble that are logged one by one.
const LOGGED: u64 = 10;

/// The section `collectors.journal`.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether to run it. Without a journal it says so once and costs nothing.
    pub enabled: bool,
    /// The folders that hold `MACHINE-ID/*.journal`.
    pub directories: Vec<PathBuf>,
    /// Whether journalctl reads the files even where this collector can. It does so by itself for files of
    /// a later format than it knows.
    pub journalctl: bool,
    /// Whether the kernel's own records are told, as `kernel.log`: for nodes on which the collector `kmsg`
    /// can't run.
    pub kernel: bool,
    /// Records of one unit that are told in a second, on the average; 0 for no bound. What is more is dropped
    /// and counted.
    pub rate_per_unit: u32,
    /// Records of one unit that are told at once, after a pause.
    pub burst_per_unit: u32,
    /// The units whose records are told; records of no unit always are.
    pub units: Filter,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            directories: vec!["/var/log/journal".into(), "/run/log/journal".into()],
            journalctl: false,
            kernel: false,
            rate_per_unit: 1_000,
            burst_per_unit: 10_000,
            units: Filter { include: Vec::new(), exclude: Vec::new() },
        }
    }
}

/// Waits for a full ring. The journal keeps what wasn't read.
impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        self.enabled
    }

    fn factory(&self) -> CollectorFactory {
        factory(self.clone(), Reader)
    }
}

struct Reader(Config);

impl Collector for Reader {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let there: Vec<_> = self.0.directories.iter().filter(|d| d.is_dir()).cloned().collect();
        if there.is_empty() {
            return Err(CollectorError::Unavailable(format!(
                "no journal in {:?}: its records aren't told; in a container mount the node's \
                 /var/log/journal, or set collectors.journal.directories",
                self.0.directories
            )));
        }
        let cursor = Cursor::open(context.site.state_dir.as_deref(), "journal")
            .map_err(|e| CollectorError::new("the saved position", e))?;
        let after = Position::parse(cursor.saved());
        if after.is_none() && !cursor.saved().is_empty() {
            tracing::warn!("the saved position is no journal cursor: reading from now on");
        }
        let machine_id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        // Those that aren't there yet may come: /var/log/journal does, once /var is there.
        let journal = Journal::open(&self.0.directories, machine_id.trim(), after.as_ref());
        let later_format = journal.trouble.later_format;
        let mut reading = Reading {
            journal: Some(journal),
            cursor,
            teller: Teller::default(),
            rates: Rates::new(self.0.rate_per_unit, self.0.burst_per_unit),
            position: None,
            read: 0,
            throttled: 0,
            bad_entries: 0,
            gone_entries: 0,
            bad_fields: 0,
            logged: 0,
        };
        if self.0.journalctl || later_format {
            context.report.note("reader", "journalctl");
            let alarm = Alarm::new(&context.shutdown)?;
            return reading.by_journalctl(&self.0, &there[0], after.as_ref(), &alarm, context);
        }
        context.report.note("reader", "native");
        reading.run(&self.0, context)?;
        if let Err(e) = reading.cursor.finish(context) {
            context.report.note("position", format!("can't be saved: {e}"));
        }
        Ok(Ended::Stopped)
    }
}

struct Reading {
    journal: Option<Journal>,
    cursor: Cursor,
    teller: Teller,
    rates: Rates,
    position: Option<Position>,
    read: u64,
    throttled: u64,
    bad_entries: u64,
    gone_entries: u64,
    bad_fields: u64,
    logged: u64,
}

impl Reading {
    fn run(&mut self, config: &Config, context: &mut Context) -> Result<(), CollectorError> {
        let alarm = Alarm::new(&context.shutdown)?;
        let mut record = Record::default();
        let mut looks_for_nothing = 0u32;
        while !context.shutdown.is_requested() {
            let moved = self.round(config, &mut record, context);
            self.account(context);
            self.advance(context);
            if moved {
                looks_for_nothing = 0;
                continue;
            }
            context.sink.flush();
            looks_for_nothing = looks_for_nothing.saturating_add(1);
            let is_quiet = looks_for_nothing > QUIET_LOOKS && !self.cursor.is_pending();
            let nap =
                if is_quiet { QUIET_NAP.min(context.shutdown.heartbeat_interval()) } else { NAP };
            self.journal.iter().for_each(|journal| journal.wait(&alarm, nap));
        }
        Ok(())
    }

    /// The same through journalctl, of one folder.
    fn by_journalctl(
        &mut self,
        config: &Config,
        folder: &Path,
        after: Option<&Position>,
        alarm: &Alarm,
        context: &mut Context,
    ) -> Result<Ended, CollectorError> {
        let failed = |e: std::io::Error| CollectorError::new("journalctl", e);
        let mut journalctl = Journalctl::start(folder, after).map_err(failed)?;
        let mut record = Record::default();
        while !context.shutdown.is_requested() {
            let now = (clock::wall_ns(), clock::monotonic_ns());
            let at_most =
                if self.cursor.is_pending() { NAP } else { context.shutdown.heartbeat_interval() };
            let moved = journalctl.read(alarm, at_most, &mut record, |record| {
                self.tell(record, now, config, context);
            });
            self.account(context);
            self.advance(context);
            if !moved.map_err(failed)? {
                context.sink.flush();
            }
        }
        Ok(Ended::Stopped)
    }

    /// Says how far it has come, and waits where too much is under way.
    fn advance(&mut self, context: &mut Context) {
        if let Some(position) = self.position {
            self.cursor.advance(&position.to_string());
        }
        while self.settle(context) && !context.shutdown.is_requested() {
            context.sink.flush();
            std::thread::sleep(PAUSE);
        }
    }

    fn round(&mut self, config: &Config, record: &mut Record, context: &mut Context) -> bool {
        let now = (clock::wall_ns(), clock::monotonic_ns());
        // Taken out, as what is told of a record changes the rest.
        let Some(mut journal) = self.journal.take() else { return false };
        let moved = journal.round(record, |record| self.tell(record, now, config, context));
        self.journal = Some(journal);
        moved
    }

    /// Tells a record, unless it isn't wanted or is too much. Returns whether to go on.
    fn tell(
        &mut self,
        record: &Record,
        now: (u64, u64),
        config: &Config,
        context: &mut Context,
    ) -> bool {
        self.read += 1;
        let unit = tell::unit_of(record);
        let is_kernels = tell::is_kernels(record);
        let wanted =
            (config.kernel || !is_kernels) && (unit.is_empty() || config.units.selects(unit));
        if wanted && self.rates.admits(unit, now.1) {
            self.teller.tell(record, now, context);
        } else if wanted {
            self.throttled += 1;
            context.sink.refuse(Reason::Throttled, 1);
        }
        // What was cut off by the end is read again.
        if context.shutdown.is_requested() {
            return false;
        }
        self.position = Some(record.position);
        true
    }

    /// Whether to wait until what was offered is settled.
    fn settle(&mut self, context: &Context) -> bool {
        match self.cursor.try_save(context) {
            Ok(pause) => pause,
            Err(e) => {
                context.report.note("position", format!("can't be saved: {e}"));
                false
            }
        }
    }

    fn account(&mut self, context: &mut Context) {
        let Some(journal) = &mut self.journal else { return };
        let trouble = std::mem::take(&mut journal.trouble);
        if trouble.bad_entries > 0 {
            context.sink.refuse(Reason::BadInput, trouble.bad_entries);
        }
        if trouble.gone_entries > 0 {
            context.sink.refuse(Reason::SourceGone, trouble.gone_entries);
        }
        self.bad_entries += trouble.bad_entries;
        self.gone_entries += trouble.gone_entries;
        self.bad_fields += trouble.bad_fields;
        for (path, cause) in trouble.causes {
            self.logged += 1;
            if self.logged <= LOGGED {
                tracing::warn!("{path}: {cause}");
            }
            context.report.note(&path, cause);
        }
        context.report.count("files", journal.len() as u64);
        context.report.count("records", self.read);
        context.report.count("throttled", self.throttled);
        context.report.count("bad_entries", self.bad_entries);
        context.report.count("gone_entries", self.gone_entries);
        context.report.count("bad_fields", self.bad_fields);
    }
}

/// How many entries of a journal file can be read, and how many can't. Never panics, whatever the bytes
/// are: what the fuzz target looks at.
#[must_use]
pub fn count_entries(mut bytes: &[u8]) -> (u64, u64) {
    // The longest that is looked at; a file's size bounds the work.
    bytes = &bytes[..bytes.len().min(64 << 20)];
    let (mut good, mut bad) = (0, 0);
    let Ok(mut file) = JournalFile::open(bytes) else { return (0, 0) };
    let mut record = Record::default();
    loop {
        let left = file.left();
        match file.peek() {
            Ok(None) => return (good, bad),
            Ok(Some(_)) => match file.take(&mut record) {
                Ok(_) => good += 1,
                Err(_) => bad += 1,
            },
            Err(_) if file.left() < left => bad += 1,
            Err(_) => return (good, bad + file.abandon()),
        }
    }
}
