//! The eBPF collector: what the kernel itself sees.
//!
//! | file | purpose |
//! | --- | --- |
//! | `config.rs` | [`Config`], and how it reaches the programs |
//! | `kinds.rs` | [`Kind`], names of signals, errors and system calls |
//! | `loader.rs` | the table of programs; each is loaded alone and may fail alone |
//! | `kernel.rs` | the ring buffer, sleeping on it, losses counted in the kernel |
//! | `raw.rs` | the records' layouts |
//! | `decode.rs` | from a record to an event |
//! | `process.rs`, `tcp.rs`, `block.rs`, `syscalls.rs` | the families |
//! | `cni.rs` | runs of CNI plugins |
//! | `processes.rs`, `cgroups.rs`, `departed.rs` | who a process is, what a cgroup's path says, for how long |
//! | `nameless.rs` | events that wait for their pod's name |
//! | `scrub.rs` | secrets leave command lines |
//! | `words.rs` | numbers as a person reads them |
//! | `probe.rs` | [`findings`]: what this kernel and these privileges allow |
//!
//! The programs are in `ebpf/`; `docs/ebpf.md` lists them with what each is for.

mod block;
mod cgroups;
mod cni;
mod config;
mod decode;
mod departed;
mod kernel;
mod kinds;
mod loader;
mod nameless;
mod probe;
mod process;
mod processes;
mod raw;
mod scrub;
mod syscalls;
mod tcp;
mod words;

use std::time::{Duration, Instant};

pub use config::{Config, SyscallErrors};
pub(super) use kinds::signal_name;
pub use kinds::{ErrorSet, Kind, SignalSet};
pub use probe::{Finding, findings};

use self::cgroups::Cgroups;
use self::cni::CniCalls;
use self::decode::Decoder;
use self::kernel::{Kernel, Loss};
use self::loader::{LoadError, Loader, PROGRAMS, Verdict};
use self::processes::Processes;
use crate::events::event_builder::Meta;
use crate::runtime::alarm::Alarm;
use crate::runtime::{Collector, CollectorError, Context, Ended};
use tapio_core::clock;
use tapio_core::event::{Reason, Severity, names};

/// Records read at a time; the wall clock is read once for each batch.
const BATCH: usize = 64;
/// Batches read before the housekeeping gets a look.
const BATCHES: usize = 256;
/// How long to sleep between two looks while records come: with the timer's slack about 150 µs, a
/// batch at 165,000 a second.
const NAP: Duration = Duration::from_micros(100);
/// Empty looks before going to sleep on the ring buffer.
const EMPTY_LOOKS: u32 = 3;
/// How often it is looked whether names have come, while events wait for theirs.
const NAMES_EVERY: Duration = Duration::from_millis(50);
/// How often losses are read back and the clocks compared.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How long the programs get to finish what they had begun when the collector ends.
const SETTLE: Duration = Duration::from_millis(5);

/// The collector.
pub struct Ebpf {
    config: Config,
}

/// One run: everything that a restart makes anew.
struct Run<'a> {
    config: &'a Config,
    context: &'a mut Context,
    loader: Loader,
    kernel: Kernel,
    decoder: Decoder,
    last_housekeeping: Instant,
    last_turn: Instant,
    /// The length of the window that was turned away from and waits to be read.
    turned: Option<Duration>,
    /// Records read.
    drained: u64,
    /// Those of them that were events: each is accounted for in the sink.
    drained_events: u64,
    control_lost: u64,
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> CollectorError {
    move |cause| CollectorError::new(what, cause)
}

/// Without the loader there is nothing: says so, and what to do.
fn cant_start(why: LoadError) -> CollectorError {
    let text = format!("{}: {why}; to do: {}", probe::NOTHING, why.remedy());
    if why.is_final() { CollectorError::Unavailable(text) } else { CollectorError::Failed(text) }
}

impl Ebpf {
    /// A collector with this configuration.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }
}

impl Collector for Ebpf {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let mut run = Run::start(&self.config, context)?;
        let alarm = Alarm::new(&run.context.shutdown)?;
        let mut empty = 0;
        while !run.context.shutdown.is_requested() {
            if run.drain() > 0 {
                empty = 0;
            } else {
                empty += 1;
            }
            run.decoder.release(false, &mut run.context.sink);
            run.context.sink.flush();
            run.housekeeping(false)?;
            if empty < EMPTY_LOOKS {
                std::thread::sleep(NAP);
            } else {
                let at_most = run.sleep();
                run.kernel.sleep(&alarm, at_most).map_err(failed("sleeping on the ring buffer"))?;
            }
        }
        run.finish()?;
        Ok(Ended::Stopped)
    }
}

impl<'a> Run<'a> {
    /// Loads everything, tells how that went, and lets the programs speak.
    fn start(config: &'a Config, context: &'a mut Context) -> Result<Self, CollectorError> {
        let mut loader = Loader::new(config.ring_bytes()).map_err(cant_start)?;
        let maps = loader.maps().map_err(failed("opening the eBPF maps"))?;
        let loaded = loader.load(PROGRAMS, config, true);
        for one in &loaded {
            context.report.note(one.program.name, one.sentence());
        }
        let runs =
            |l: &loader::Loaded| l.verdict == Verdict::Ok && !l.program.hook.starts_with("iter/");
        if !loaded.iter().any(runs) {
            let why = loaded.iter().find_map(|l| match &l.verdict {
                Verdict::Failed(why) => Some(why.as_str()),
                _ => None,
            });
            return Err(CollectorError::new(
                "no eBPF program can be loaded",
                why.unwrap_or("the configuration wants none"),
            ));
        }
        let cgroups = Cgroups::new(config.max_cgroups);
        let enter_cgroup = match &config.syscall_enter_cgroup {
            None => 0,
            Some(path) => cgroups.number_of(path).ok_or_else(|| {
                CollectorError::new("syscall_enter_cgroup", format!("no cgroup {path:?}"))
            })?,
        };
        let mut kernel = Kernel::new(maps);
        kernel
            .configure(config.words(loader::kind_bits(config), enter_cgroup))
            .map_err(failed("configuring the eBPF programs"))?;
        // From here on records wait in the ring buffer; what was there before is read now, so that
        // nothing falls between the two.
        let mut processes = Processes::new(config.max_processes);
        let seeds_tcp =
            |l: &loader::Loaded| l.program.name == "tcp_seed" && l.verdict == Verdict::Ok;
        if loaded.iter().any(seeds_tcp)
            && let Err(why) = loader.iterate("tcp_seed")
        {
            context.report.note("tcp_seed", why);
        }
        match loader.iterate("process_seed") {
            Ok(bytes) => process::seed(&bytes, &mut processes),
            Err(why) => {
                context.report.note("process_seed", format!("{why}; read from /proc instead"));
                process::seed_from_proc(&mut processes);
            }
        }
        let mut decoder =
            Decoder::new(&context.site, cgroups, processes, CniCalls::new(&config.cni_bin_dirs));
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
            last_turn: now,
            turned: None,
            drained: 0,
            drained_events: 0,
            control_lost: 0,
        };
        run.publish_counters();
        Ok(run)
    }

    /// Reads what is in the ring buffer. Returns how many records there were.
    fn drain(&mut self) -> u64 {
        let before = self.drained;
        let (decoder, sink) = (&mut self.decoder, &mut self.context.sink);
        let (drained, drained_events) = (&mut self.drained, &mut self.drained_events);
        for _ in 0..BATCHES {
            let mut seen = false;
            let n = self.kernel.drain(BATCH, |bytes| {
                if !seen {
                    seen = true;
                    decoder.observed_ns = clock::wall_ns();
                }
                *drained_events += u64::from(decoder.record(bytes, sink));
                *drained += 1;
            });
            if n < BATCH {
                break;
            }
        }
        self.drained - before
    }

    /// How long it may sleep if the kernel has nothing to say.
    fn sleep(&self) -> Duration {
        let housekeeping = HOUSEKEEPING.saturating_sub(self.last_housekeeping.elapsed());
        let at_most = housekeeping.min(self.context.shutdown.heartbeat_interval());
        if self.decoder.nameless.len() > 0 { at_most.min(NAMES_EVERY) } else { at_most }
    }

    /// What is to be done about once a second: losses, clocks, sums, `/status`.
    fn housekeeping(&mut self, last: bool) -> Result<(), CollectorError> {
        let now = clock::instant();
        if !last && now.duration_since(self.last_housekeeping) < HOUSEKEEPING {
            return Ok(());
        }
        self.last_housekeeping = now;
        self.decoder.wall_offset_ns = clock::monotonic_to_wall_ns();
        self.decoder.observed_ns = clock::wall_ns();
        self.losses()?;
        if let Some(window) = self.turned.take() {
            self.error_rates(window, last)?;
        } else if last {
            self.error_rates(now.duration_since(self.last_turn), true)?;
        }
        let interval = Duration::from_millis(self.config.syscall_errors.interval_ms.max(1));
        if now.duration_since(self.last_turn) >= interval {
            self.turned = Some(now.duration_since(self.last_turn));
            self.last_turn = now;
            self.kernel.turn_error_counts().map_err(failed("turning the error counts"))?;
        }
        self.publish_counters();
        self.context.sink.flush();
        Ok(())
    }

    /// Accounts for what the kernel lost, and says so in an event, so that whoever reads the stream
    /// knows of the gap.
    fn losses(&mut self) -> Result<(), CollectorError> {
        let mut losses: Vec<Loss> = Vec::new();
        self.kernel.losses(|loss| losses.push(loss)).map_err(failed("reading the losses"))?;
        for loss in losses {
            let Some(kind) = loss.kind else {
                // No event is missing, but paths may be: look for them.
                self.control_lost += loss.count;
                self.decoder.scan(clock::monotonic_ns());
                continue;
            };
            self.context.sink.refuse(loss.reason, loss.count);
            self.tell_loss(kind, loss);
        }
        Ok(())
    }

    fn tell_loss(&mut self, kind: Kind, loss: Loss) {
        let now_ns = clock::monotonic_ns();
        let decoder = &mut self.decoder;
        let meta = Meta {
            kind: names::TAPIO_KERNEL_LOST,
            ..decoder.meta(kind, decode::NO_CPU, now_ns, Severity::WARN)
        };
        let (kind, reason, count) = (kind.name().text(), loss.reason.as_str(), loss.count);
        let draft = &mut decoder.draft;
        draft.clear();
        draft.text(names::HOST_NAME, &decoder.node);
        draft.entities_end();
        draft.word(names::TAPIO_LOST_KIND, kind);
        draft.word(names::TAPIO_LOST_REASON, reason);
        draft.int(names::TAPIO_LOST_COUNT, count);
        draft.message(format_args!("{count} events of {kind} were lost in the kernel: {reason}"));
        // The sink has counted an event it couldn't take.
        let _ = draft.offer(&meta, &mut self.context.sink);
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

    /// The collector's own counters, for `/status` and `/metrics`.
    fn publish_counters(&mut self) {
        let report = &self.context.report;
        for (kind, emitted) in self.kernel.emitted() {
            let kind = kind.map_or("control", |k| k.name().text());
            if emitted > 0 {
                report.count(&format!("emitted.{kind}"), emitted);
            }
        }
        let decoder = &self.decoder;
        report.count("drained", self.drained);
        report.count("control_lost", self.control_lost);
        report.count("processes", decoder.processes.len() as u64);
        report.count("processes_untracked", decoder.processes.untracked);
        report.count("cgroups", decoder.cgroups.len() as u64);
        report.count("cgroups_untracked", decoder.cgroups.untracked);
        report.count("cgroups_unresolved", decoder.unresolved);
        report.count("names_patched", decoder.nameless.patched);
        report.count("names_unresolved", decoder.nameless.unresolved);
        report.count("cni_unread", decoder.cni.unread);
        report.count("missed_runs", self.loader.missed_runs());
    }

    /// Silences the programs, takes in what they still had to say, and accounts for the rest.
    fn finish(mut self) -> Result<(), CollectorError> {
        self.kernel
            .configure(self.config.words(0, 0))
            .map_err(failed("silencing the eBPF programs"))?;
        std::thread::sleep(SETTLE);
        while self.drain() > 0 {}
        self.decoder.release(true, &mut self.context.sink);
        self.housekeeping(true)
    }
}

impl Drop for Run<'_> {
    /// A run that fails or panics leaves records behind that the kernel had emitted. They are
    /// accounted for as lost with it. After [`Run::finish`] there are none.
    fn drop(&mut self) {
        let silent = self.kernel.configure(self.config.words(0, 0)).is_ok();
        if !silent {
            return;
        }
        std::thread::sleep(SETTLE);
        let sink = &mut self.context.sink;
        let read = self.kernel.losses(|loss| {
            if loss.kind.is_some() {
                sink.refuse(loss.reason, loss.count);
            }
        });
        let emitted: u64 = self.kernel.emitted().filter_map(|(kind, n)| kind.map(|_| n)).sum();
        let left = emitted.saturating_sub(self.drained_events) + self.decoder.nameless.len() as u64;
        if read.is_ok() && left > 0 {
            sink.refuse(Reason::CollectorPanic, left);
        }
    }
}
