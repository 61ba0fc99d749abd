//! The collector: its configuration, and the start of a run.

use std::path::PathBuf;
use std::sync::Arc;

use super::folder::Journal;
use super::position::Position;
use super::rate::RateLimiter;
use super::session::Session;
use crate::events::Filter;
use crate::runtime::cursor::Cursor;
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, factory,
};
use tapio_core::sandbox::FileRights;

/// The section `collectors.journal`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether to run the collector. Without a journal it reports so once and costs nothing.
    pub enabled: bool,
    /// The folders that contain `MACHINE-ID/*.journal`.
    pub directories: Vec<PathBuf>,
    /// Whether to read through journalctl even if this collector can read the files. For files of
    /// a later format it uses journalctl in any case.
    pub journalctl: bool,
    /// Whether to emit the kernel's own records, as `kernel.log`: for nodes on which the collector
    /// `kmsg` can't run.
    pub kernel: bool,
    /// Average number of records per second and unit; 0 for no limit. Further records are dropped
    /// and counted.
    pub rate_per_unit: u32,
    /// Number of records of one unit that may come at once, after a pause.
    pub burst_per_unit: u32,
    /// The units whose records are emitted; records without a unit always are.
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

/// Waits for a full ring: the journal keeps what isn't read.
impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        self.enabled
    }

    fn reads_again(&self) -> bool {
        true
    }

    fn files(&self) -> Vec<(PathBuf, FileRights)> {
        self.directories.iter().map(|dir| (dir.clone(), FileRights::Read)).collect()
    }

    fn factory(&self) -> CollectorFactory {
        factory(self.clone(), JournalCollector)
    }
}

struct JournalCollector(Config);

impl Collector for JournalCollector {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let config = &self.0;
        let Some(folder) = config.directories.iter().find(|folder| folder.is_dir()) else {
            return Err(CollectorError::Unavailable(format!(
                "journal collector disabled: no journal in {:?} (no journald, or not mounted); \
                 journal events will be missing; set collectors.journal.directories if it is \
                 elsewhere",
                config.directories
            )));
        };
        let cursor = Cursor::open(context, "journal", Position::check)
            .map_err(|e| CollectorError::new("journal cursor", e))?;
        let after = Position::parse(cursor.saved());
        let machine_id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        // All folders, because a missing one may still appear: /var/log/journal does once /var is
        // mounted.
        let journal = Journal::open(&config.directories, machine_id.trim(), after.as_ref());
        let needs_journalctl = config.journalctl || journal.errors.is_later_format;
        let rates = RateLimiter::new(config.rate_per_unit, config.burst_per_unit)
            .following(Arc::clone(&context.site.journal_rate));
        let mut session = Session::new(journal, cursor, &config.units, config.kernel, rates);
        if needs_journalctl {
            context.report.note("reader", "journalctl");
            return session.run_journalctl(folder, after.as_ref(), context);
        }
        context.report.note("reader", "native");
        session.run(context)
    }
}
