//! The section `collectors.jsonl` and the run loop.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use super::positions::Positions;
use super::sources::{Sources, folder_of};
use super::stream::Stream;
use crate::runtime::alarm::Alarm;
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, factory,
};
use tapio_core::sandbox::FileRights;

/// Poll interval of a followed file, and so its delay. A fifo or standard input wakes the
/// collector.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Size of a read.
const CHUNK_BYTES: usize = 64 * 1024;

/// The section `collectors.jsonl`. The collector is enabled if it has paths.
#[derive(
    Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Files and fifos; `-` is standard input. `*` and `?` match any text and any character of a
    /// name; where files are followed, new ones that match are read, too. Files are read in this
    /// order.
    #[schemars(extend("examples" = [["/var/log/app/*.jsonl"]]))]
    pub paths: Vec<PathBuf>,
    /// Whether to continue at a file's end, as it grows, is truncated or is replaced, and at a
    /// start where the last run ended. Files that aren't followed are read completely at each
    /// start.
    pub follow: bool,
}

// A full ring: the collector waits, and files keep their lines.
impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        !self.paths.is_empty()
    }

    fn reads_again(&self) -> bool {
        true
    }

    fn has_given_times(&self) -> bool {
        true
    }

    fn files(&self) -> Vec<(PathBuf, FileRights)> {
        // Files are rotated: their successors are in the same folder.
        let files = self.paths.iter().filter(|path| path.as_os_str() != "-");
        files.filter_map(|path| folder_of(path)).map(|folder| (folder, FileRights::Read)).collect()
    }

    fn factory(&self) -> CollectorFactory {
        factory(Self { paths: distinct(&self.paths), ..self.clone() }, Jsonl)
    }
}

/// The paths without those of a file that an earlier one has: its lines would be events twice.
fn distinct(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut files = HashSet::new();
    let is_first = |path: &&PathBuf| {
        let is_first = files.insert(path.canonicalize().unwrap_or_else(|_| (*path).clone()));
        if !is_first {
            tracing::warn!(collector = "jsonl", path = %path.display(), "listed twice; read once");
        }
        is_first
    };
    paths.iter().filter(is_first).cloned().collect()
}

struct Jsonl(Config);

impl Collector for Jsonl {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let mut positions = Positions::open(self.0.follow, &self.0.paths, context)
            .map_err(|e| CollectorError::new("opening the cursor of followed files", e))?;
        let mut sources = Sources::new(&self.0.paths, self.0.follow, &positions);
        let mut streams = Vec::new();
        let ended = read_all(&mut sources, &mut streams, &mut positions, context)?;
        set_positions(&streams, &mut positions);
        positions.finish(context)?;
        Ok(ended)
    }
}

fn set_positions(streams: &[Stream], positions: &mut Positions) {
    for stream in streams {
        if let Some(position) = stream.position() {
            positions.set(&stream.source.name, position);
        }
    }
}

/// Reads the streams until all have ended or a shutdown is requested.
fn read_all(
    sources: &mut Sources,
    streams: &mut Vec<Stream>,
    positions: &mut Positions,
    context: &mut Context,
) -> Result<Ended, CollectorError> {
    let alarm = Alarm::new(&context.shutdown)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut is_paused = false;
    while !context.shutdown.is_requested() {
        sources
            .open(streams, positions, context)
            .map_err(|e| CollectorError::new("saving the cursor of followed files", e))?;
        let mut progress = false;
        for stream in streams.iter_mut().filter(|_| !is_paused) {
            match stream.pump(&mut chunk, context) {
                Ok(read_any) => progress |= read_any,
                Err(e) => stream.fail(&e, context),
            }
            if context.shutdown.is_requested() {
                break;
            }
        }
        let has_ended = streams.iter().any(|s| s.ended);
        if positions.is_due(!progress || has_ended) {
            set_positions(streams, positions);
        }
        is_paused = positions.save(context);
        streams.retain(|s| !s.ended);
        if streams.is_empty() && !sources.may_open() {
            return Ok(Ended::Finished);
        }
        if !progress {
            context.sink.flush();
            let is_polled = sources.may_open()
                || positions.is_pending()
                || streams.iter().any(|s| s.source.fd().is_none());
            let timeout = match is_polled {
                true => POLL_INTERVAL,
                false => context.shutdown.heartbeat_interval(),
            };
            // New input doesn't end a pause.
            alarm
                .wait(streams.iter().filter_map(|s| s.source.fd()).filter(|_| !is_paused), timeout);
        }
    }
    streams.iter().for_each(|s| s.report_refused(context));
    Ok(Ended::Stopped)
}
