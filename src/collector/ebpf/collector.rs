//! The collector's loop: drains the ring buffer, and about once a second reads losses, compares the
//! clocks and publishes counters.

use std::time::{Duration, Instant};

use super::cgroups::Cgroups;
use super::config::Config;
use super::decode::{self, Decoder};
use super::kernel::{Kernel, Loss};
use super::kinds::Kind;
use super::loader::{LoadError, Loaded, Loader, PROGRAMS, Verdict, kind_bits};
use super::plugin_runs::PluginRuns;
use super::process;
use super::processes::Processes;
use super::users::Users;
use crate::events::event_builder::EventHeader;
use crate::runtime::alarm::Alarm;
use crate::runtime::kernel_facts::Watched;
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended,
};
use tapio_core::clock;
use tapio_core::event::{Reason, Severity, names};
use tapio_core::memory;
use tapio_core::ring::OnFull;

/// Records per batch; the wall clock is read once for each batch.
const BATCH_RECORDS: usize = 64;
/// Batches between two checks for housekeeping.
const MAX_BATCHES: usize = 256;
/// Sleep between two reads while records arrive: with the timer's slack about 150 µs, a batch at
/// 165,000 records/s.
const BUSY_SLEEP: Duration = Duration::from_micros(100);
/// Consecutive empty reads after which the collector waits on the ring buffer.
const EMPTY_READS: u32 = 3;
/// Interval at which queued events are checked for new names.
const ENRICHMENT_INTERVAL: Duration = Duration::from_millis(50);
/// Interval at which losses are read and the clocks compared.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);
/// Time for the programs to finish runs in progress after they are disabled.
const QUIESCE_TIME: Duration = Duration::from_millis(5);

/// The eBPF collector.
pub struct Ebpf {
    config: Config,
}

/// State of one run; a restart creates all of it again.
struct Run<'a> {
    config: &'a Config,
    context: &'a mut Context,
    loader: Loader,
    kernel: Kernel,
    decoder: Decoder,
    last_housekeeping: Instant,
    /// When the programs last changed to the other generation of error counts.
    generation_started: Instant,
    /// Length of the window that ended with that change, while its counts aren't read yet.
    pending_window: Option<Duration>,
    /// Records read.
    drained: u64,
    /// Records read that are events: each of them is accounted for in the sink.
    drained_events: u64,
    control_lost: u64,
}

fn failed<E: std::fmt::Display>(operation: &'static str) -> impl FnOnce(E) -> CollectorError {
    move |cause| CollectorError::new(operation, cause)
}

/// The error of a collector that can't load any program, with its remedy.
fn disabled(cause: LoadError) -> CollectorError {
    let text = format!(
        "eBPF collector disabled: {cause}; kernel events will be missing; remedy: {}",
        cause.remedy()
    );
    if cause.is_final() { CollectorError::Unavailable(text) } else { CollectorError::Failed(text) }
}

/// Whether the program with this name is loaded.
fn is_loaded(loaded: &[Loaded], name: &str) -> bool {
    loaded.iter().any(|l| l.program.name == name && l.verdict == Verdict::Ok)
}

/// Fails unless a program that reports events is loaded. Iterators only read what exists already.
fn require_any(loaded: &[Loaded]) -> Result<(), CollectorError> {
    let reports = |l: &Loaded| l.verdict == Verdict::Ok && !l.program.hook.starts_with("iter/");
    if loaded.iter().any(reports) {
        return Ok(());
    }
    let cause = loaded.iter().find_map(|l| match &l.verdict {
        Verdict::Failed(cause) => Some(cause.as_str()),
        _ => None,
    });
    let cause = cause.unwrap_or("the configuration enables none");
    Err(CollectorError::new("no eBPF program can be loaded", cause))
}

/// Why the collector is degraded: the kernel rejects most of its enabled programs; empty: it isn't.
fn degradation(loaded: &[Loaded]) -> String {
    let enabled = loaded.iter().filter(|l| l.verdict != Verdict::Off).count();
    let causes = loaded.iter().filter_map(|l| match &l.verdict {
        Verdict::Failed(cause) => Some((l.program.name, cause.as_str())),
        _ => None,
    });
    let rejected = causes.clone().count();
    match causes.clone().next() {
        Some((name, cause)) if 2 * rejected > enabled => format!(
            "{rejected} of {enabled} eBPF programs rejected; the first, {name}: {cause}; \
             `tapio doctor` has each with the events that are missing"
        ),
        _ => String::new(),
    }
}

impl Ebpf {
    /// Creates a collector with this configuration.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }
}

impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        self.enabled
    }

    fn on_full(&self) -> OnFull {
        OnFull::Drop
    }

    fn busy_threads(&self) -> &'static [&'static str] {
        &["c:ebpf"]
    }

    fn factory(&self) -> CollectorFactory {
        let config = self.clone();
        Box::new(move || Box::new(Ebpf::new(config.clone())) as Box<dyn Collector>)
    }
}

impl Collector for Ebpf {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let mut run = Run::start(&self.config, context)?;
        run.context.opened();
        let alarm = Alarm::new(&run.context.shutdown)?;
        let mut empty = 0;
        while !run.context.shutdown.is_requested() {
            if run.drain()? > 0 {
                empty = 0;
            } else {
                empty += 1;
            }
            run.decoder.release(false, &mut run.context.sink);
            run.context.sink.flush();
            run.housekeeping(false)?;
            if empty < EMPTY_READS {
                std::thread::sleep(BUSY_SLEEP);
            } else {
                let timeout = run.sleep_timeout();
                run.kernel.sleep(&alarm, timeout).map_err(failed("sleeping on the ring buffer"))?;
            }
        }
        run.finish()?;
        Ok(Ended::Stopped)
    }
}

/// The facts that this collector reports and the kernel logs as well.
fn watched(config: &Config) -> Vec<Watched> {
    let all = [
        (Kind::OomKill, Watched::OomKills),
        (Kind::Signal, Watched::Crashes),
        (Kind::BlockError, Watched::BlockErrors),
    ];
    all.into_iter().filter(|(kind, _)| config.has_kind(*kind)).map(|(_, watched)| watched).collect()
}

impl<'a> Run<'a> {
    /// Loads and attaches the programs, reports the result of each, enables them, and reads the
    /// processes and connections that exist already.
    fn start(config: &'a Config, context: &'a mut Context) -> Result<Self, CollectorError> {
        let (mut loader, btf) = Loader::new(config.ring_bytes()).map_err(disabled)?;
        let maps = loader.maps().map_err(failed("opening the eBPF maps"))?;
        let loaded = loader.load(&btf, PROGRAMS, config, true);
        drop(btf);
        memory::trim();
        for one in &loaded {
            context.report.note(one.program.name, one.status());
        }
        require_any(&loaded)?;
        context.report.degrade(degradation(&loaded));
        let cgroups = Cgroups::new(config.max_cgroups, &context.site.cgroup_base);
        let enter_cgroup = match &config.syscall_enter_cgroup {
            None => 0,
            Some(path) => cgroups.number_of(path).ok_or_else(|| {
                CollectorError::new("syscall_enter_cgroup", format!("no cgroup {path:?}"))
            })?,
        };
        let mut kernel = Kernel::new(maps);
        kernel
            .configure(config.words(kind_bits(config), enter_cgroup))
            .map_err(failed("configuring the eBPF programs"))?;
        // New records wait in the ring buffer from here on. What existed before is read after
        // that, so that nothing is missed in between.
        let processes = Self::seed(config, context, &mut loader, &loaded);
        let plugins = PluginRuns::new(&config.cni_bin_dirs);
        let users = Users::new(&config.passwd_file);
        let mut decoder = Decoder::new(&context.site, cgroups, processes, plugins, users);
        decoder.scan(clock::monotonic_ns());
        decoder.wall_offset_ns = clock::monotonic_to_wall_ns();
        let now = clock::instant();
        let mut run = Self {
            config,
            context,
            loader,
            kernel,
            decoder,
            last_housekeeping: now,
            generation_started: now,
            pending_window: None,
            drained: 0,
            drained_events: 0,
            control_lost: 0,
        };
        run.publish_counters();
        run.context.site.kernel_facts.watch(watched(config));
        Ok(run)
    }

    /// Reads the connections and processes that exist already. Returns the table of processes.
    fn seed(
        config: &Config,
        context: &Context,
        loader: &mut Loader,
        loaded: &[Loaded],
    ) -> Processes {
        if is_loaded(loaded, "tcp_seed")
            && let Err(cause) = loader.iterate("tcp_seed")
        {
            context.report.note(
                "tcp_seed",
                format!("{cause}; connections from before the start have no process"),
            );
        }
        let mut processes = Processes::new(config.max_processes);
        match loader.iterate("process_seed") {
            Ok(bytes) => process::seed(&bytes, &mut processes),
            Err(cause) => {
                context.report.note("process_seed", format!("{cause}; reading /proc instead"));
                process::seed_from_proc(&mut processes);
            }
        }
        processes
    }

    /// Reads the records in the ring buffer. Returns their number.
    fn drain(&mut self) -> Result<u64, CollectorError> {
        let before = self.drained;
        let (decoder, sink) = (&mut self.decoder, &mut self.context.sink);
        let (drained, drained_events) = (&mut self.drained, &mut self.drained_events);
        for _ in 0..MAX_BATCHES {
            let mut is_first = true;
            let read = self.kernel.drain(BATCH_RECORDS, |bytes| {
                if std::mem::take(&mut is_first) {
                    decoder.observed_ns = clock::wall_ns();
                }
                *drained_events += u64::from(decoder.record(bytes, sink));
                *drained += 1;
            });
            if read.map_err(failed("reading the ring buffer"))? < BATCH_RECORDS {
                break;
            }
        }
        Ok(self.drained - before)
    }

    /// The longest sleep while no record arrives.
    fn sleep_timeout(&self) -> Duration {
        let housekeeping = HOUSEKEEPING_INTERVAL.saturating_sub(self.last_housekeeping.elapsed());
        let timeout = housekeeping.min(self.context.shutdown.heartbeat_interval());
        match self.decoder.enrichment.len() {
            0 => timeout,
            _ => timeout.min(ENRICHMENT_INTERVAL),
        }
    }

    /// Reads losses, compares clocks, reads error counts and publishes counters, about once a
    /// second. `last`: at once, with all error counts.
    fn housekeeping(&mut self, last: bool) -> Result<(), CollectorError> {
        let now = clock::instant();
        if !last && now.duration_since(self.last_housekeeping) < HOUSEKEEPING_INTERVAL {
            return Ok(());
        }
        self.last_housekeeping = now;
        self.decoder.wall_offset_ns = clock::monotonic_to_wall_ns();
        self.decoder.observed_ns = clock::wall_ns();
        self.losses()?;
        let window = now.duration_since(self.generation_started);
        if let Some(ended) = self.pending_window.take() {
            self.error_rates(ended, last)?;
        } else if last {
            self.error_rates(window, true)?;
        }
        let interval = Duration::from_millis(self.config.syscall_errors.interval_ms.max(1));
        if window >= interval {
            self.pending_window = Some(window);
            self.generation_started = now;
            self.kernel
                .switch_error_generation()
                .map_err(failed("switching the error counts' generation"))?;
        }
        self.publish_counters();
        self.context.sink.flush();
        Ok(())
    }

    /// Accounts for records that the kernel lost, and emits an event for them, so that consumers of
    /// the stream see the gap.
    fn losses(&mut self) -> Result<(), CollectorError> {
        let mut losses: Vec<Loss> = Vec::new();
        self.kernel.losses(|loss| losses.push(loss)).map_err(failed("reading the losses"))?;
        for loss in losses {
            let Some(kind) = loss.kind else {
                // A lost control record is no lost event, but the path of a cgroup may be missing.
                self.control_lost += loss.count;
                self.decoder.scan(clock::monotonic_ns());
                continue;
            };
            self.context.sink.refuse(loss.reason, loss.count);
            self.emit_loss(kind, loss);
        }
        Ok(())
    }

    fn emit_loss(&mut self, kind: Kind, loss: Loss) {
        let now_ns = clock::monotonic_ns();
        let decoder = &mut self.decoder;
        let meta = EventHeader {
            kind: names::TAPIO_KERNEL_LOST,
            ..decoder.meta(kind, decode::NO_CPU, now_ns, Severity::WARN)
        };
        let (kind, reason, count) = (kind.name().text(), loss.reason.as_str(), loss.count);
        let event = &mut decoder.event;
        event.clear();
        event.text(names::HOST_NAME, &decoder.node);
        event.end_entities();
        event.word(names::TAPIO_LOST_KIND, kind);
        event.word(names::TAPIO_LOST_REASON, reason);
        event.int(names::TAPIO_LOST_COUNT, count);
        event.message(format_args!("{count} events of {kind} were lost in the kernel: {reason}"));
        // The sink has counted an event it couldn't take.
        let _ = event.offer(&meta, &mut self.context.sink);
    }

    fn error_rates(&mut self, window: Duration, all: bool) -> Result<(), CollectorError> {
        let now_ns = clock::monotonic_ns();
        let min = self.config.syscall_errors.min_count;
        let (decoder, sink) = (&mut self.decoder, &mut self.context.sink);
        self.kernel
            .take_error_counts(all, |key, count| {
                if count >= min {
                    decoder.error_rate(key, count, window.as_nanos() as u64, now_ns, sink);
                }
            })
            .map_err(failed("reading the error counts"))
    }

    /// Publishes the collector's counters for `/status` and `/metrics`.
    fn publish_counters(&mut self) {
        let report = &self.context.report;
        for (kind, emitted) in self.kernel.emitted() {
            let kind = kind.map_or("control", |k| k.name().text());
            if emitted > 0 {
                report.count(&format!("records_emitted.{kind}"), emitted);
            }
        }
        let decoder = &self.decoder;
        report.count("records_drained", self.drained);
        report.count("control_records_lost", self.control_lost);
        report.count("processes", decoder.processes.len() as u64);
        report.count("processes_untracked", decoder.processes.untracked);
        report.count("cgroups", decoder.cgroups.len() as u64);
        report.count("cgroups_untracked", decoder.cgroups.untracked);
        report.count("cgroups_unresolved", decoder.unresolved);
        report.count("names_patched", decoder.enrichment.patched);
        report.count("names_unresolved", decoder.enrichment.unresolved);
        report.count("cni_calls_unread", decoder.plugins.unread);
        report.count("program_runs_missed", self.loader.missed_runs());
    }

    /// Disables the programs, reads their remaining records and accounts for the losses.
    fn finish(mut self) -> Result<(), CollectorError> {
        self.kernel
            .configure(self.config.words(0, 0))
            .map_err(failed("disabling the eBPF programs"))?;
        std::thread::sleep(QUIESCE_TIME);
        while self.drain()? > 0 {}
        self.decoder.release(true, &mut self.context.sink);
        self.housekeeping(true)
    }
}

impl Drop for Run<'_> {
    /// Accounts for the records that a failed or panicked run leaves in the ring buffer as lost.
    /// After [`Run::finish`] there are none.
    fn drop(&mut self) {
        self.context.site.kernel_facts.watch(Vec::new());
        if self.kernel.configure(self.config.words(0, 0)).is_err() {
            return;
        }
        std::thread::sleep(QUIESCE_TIME);
        let sink = &mut self.context.sink;
        let read = self.kernel.losses(|loss| {
            if loss.kind.is_some() {
                sink.refuse(loss.reason, loss.count);
            }
        });
        let emitted: u64 = self.kernel.emitted().filter_map(|(kind, n)| kind.map(|_| n)).sum();
        let left =
            emitted.saturating_sub(self.drained_events) + self.decoder.enrichment.len() as u64;
        if read.is_ok() && left > 0 {
            sink.refuse(Reason::CollectorPanic, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collector_is_degraded_once_most_enabled_programs_are_rejected() {
        let loaded = |failed: usize, fine: usize| -> Vec<Loaded> {
            let verdicts = std::iter::repeat_n(Verdict::Failed("no such hook".into()), failed)
                .chain(std::iter::repeat_n(Verdict::Ok, fine))
                .chain(std::iter::repeat(Verdict::Off));
            let programs = PROGRAMS.iter().zip(verdicts);
            programs.map(|(program, verdict)| Loaded { program, verdict }).collect()
        };
        assert_eq!(degradation(&loaded(0, 0)), "");
        assert_eq!(degradation(&loaded(3, 3)), "");
        let cause = degradation(&loaded(4, 3));
        assert!(
            cause.starts_with(
                "4 of 7 eBPF programs rejected; the first, cgroup_mkdir: no such hook"
            ),
            "{cause}"
        );
    }
}
