//! The exporters' thread.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::config::{ExportConfig, OtlpSinkConfig};
use super::cursor::{CursorFile, remove_others};
use super::reader::Reader;
use super::sink::Sink;
use super::stats::SinkStats;
use crate::bridge::{ExportCursor, SpoolFeed};
use tapio_core::clock;
use tapio_core::cpu::Placement;
use tapio_core::ring::Bell;
use tapio_wire::{OtlpClient, OtlpEncoder, OtlpProtocol, OtlpService};

/// A sink to be started.
struct Prepared {
    config: OtlpSinkConfig,
    file: CursorFile,
    cursor: Option<ExportCursor>,
    stats: Arc<SinkStats>,
}

/// The name of the exporters' thread.
pub(crate) const THREAD: &str = "export";

/// The exporters: prepared before the bridge opens the spool, started after it.
pub struct Exporters {
    feed: Arc<SpoolFeed>,
    prepared: Vec<Prepared>,
    stats: Vec<Arc<SinkStats>>,
    thread: Option<JoinHandle<()>>,
}

impl Exporters {
    /// Reads how far each sink is; `None` without sinks. `spool`: its folder. `bell`: the bridge's.
    #[must_use]
    pub fn prepare(config: &ExportConfig, spool: &Path, bell: Arc<Bell>) -> Option<Self> {
        let names: Vec<String> = config.otlp.iter().map(OtlpSinkConfig::name).collect();
        remove_others(spool, &names);
        if names.is_empty() {
            return None;
        }
        let prepare = |sink: &OtlpSinkConfig| {
            let name = sink.name();
            let file = CursorFile::new(spool, &name);
            let protocol = match sink.protocol() {
                OtlpProtocol::Grpc => "grpc",
                OtlpProtocol::Http => "http/protobuf",
            };
            let stats = Arc::new(SinkStats::new(name, sink.endpoint(), protocol));
            stats.set_min_severity(sink.min_severity.0);
            Prepared { config: sink.clone(), cursor: file.read(), file, stats }
        };
        let prepared: Vec<Prepared> = config.otlp.iter().map(prepare).collect();
        let cursors = prepared.iter().map(|sink| sink.cursor);
        let feed = Arc::new(SpoolFeed::new(cursors, bell));
        let stats = prepared.iter().map(|sink| Arc::clone(&sink.stats)).collect();
        Some(Self { feed, prepared, stats, thread: None })
    }

    /// The spool as they read it, for the bridge.
    #[must_use]
    pub fn feed(&self) -> &Arc<SpoolFeed> {
        &self.feed
    }

    /// The state of each sink.
    #[must_use]
    pub fn stats(&self) -> &[Arc<SinkStats>] {
        &self.stats
    }

    /// Takes over the least severities of sinks with the same names.
    pub fn reload(&self, config: &ExportConfig) {
        for sink in &config.otlp {
            let name = sink.name();
            for stats in self.stats.iter().filter(|stats| stats.name == name) {
                stats.set_min_severity(sink.min_severity.0);
            }
        }
    }

    /// Starts the thread, which ends after the bridge has: at the latest `drain_timeout` later.
    ///
    /// # Errors
    /// When a sink's configuration is invalid, or the thread or its reactor can't be created.
    pub fn start(
        &mut self,
        service: &OtlpService,
        drain_timeout: Duration,
        placement: Placement,
    ) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let mut tasks = Vec::new();
        for (number, prepared) in self.prepared.drain(..).enumerate() {
            let sink = start_sink(&self.feed, number, prepared, service)?;
            tasks.push(sink.run(drain_timeout));
        }
        drop(inside);
        let thread = std::thread::Builder::new().name(THREAD.into()).spawn(move || {
            placement.begin(THREAD);
            runtime.block_on(async {
                let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
                for task in tasks {
                    if let Err(error) = task.await {
                        tracing::error!(%error, "export: a sink panicked");
                    }
                }
            });
        })?;
        self.thread = Some(thread);
        Ok(())
    }

    /// Waits until the thread has ended. To be called once the bridge has.
    pub fn join(&mut self) {
        self.feed.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("export: thread panicked");
        }
    }
}

fn start_sink(
    feed: &Arc<SpoolFeed>,
    number: usize,
    prepared: Prepared,
    service: &OtlpService,
) -> io::Result<Sink> {
    let Prepared { config, file, stats, .. } = prepared;
    let client = OtlpClient::new(&config.client()).map_err(|e| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("sink {}: {e}", stats.name))
    })?;
    let done = feed.cursor(number).unwrap_or_default();
    let encoder = OtlpEncoder::new(service.clone(), config.selection());
    let reader = Reader::new(encoder, number, done);
    let seed = clock::wall_ns() ^ u64::from(std::process::id()) ^ (number as u64) << 32;
    Ok(Sink::new((Arc::clone(feed), number), client, reader, (file, done), stats, seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::event::Severity;

    #[test]
    fn reload_takes_severities_of_sinks_with_the_same_name() {
        let sink = |name: &str, severity| OtlpSinkConfig {
            name: Some(name.into()),
            min_severity: severity,
            ..OtlpSinkConfig::default()
        };
        let config = |sinks: &[OtlpSinkConfig]| ExportConfig { otlp: sinks.to_vec() };
        let folder = tempfile::tempdir().unwrap();
        let old = config(&[sink("a", Severity::INFO), sink("b", Severity::WARN)]);
        let bell = Arc::new(Bell::new(Default::default()));
        let exporters = Exporters::prepare(&old, folder.path(), bell).unwrap();
        exporters.reload(&config(&[sink("b", Severity::ERROR), sink("c", Severity::FATAL)]));
        let severities: Vec<u8> = exporters.stats().iter().map(|s| s.min_severity()).collect();
        assert_eq!(severities, [Severity::INFO.0, Severity::ERROR.0]);
    }
}
