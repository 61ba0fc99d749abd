//! Collector `node`: what the node shows only to who looks: pressure and use of units and pods, processes
//! that leave zombies, a clock that was set.
//!
//! | file | purpose |
//! | --- | --- |
//! | `cgroups.rs` | the cgroups of units and pods, and the files in them |
//! | `pressure.rs` | stall times and shares between two looks |
//! | `zombies.rs` | children nobody waited for |

mod cgroups;
mod pressure;
mod zombies;

use std::time::{Duration, Instant};

use self::cgroups::Trees;
use self::pressure::Pressure;
use crate::events::enrich::Subject;
use crate::events::event_builder::{EventBuilder, EventHeader};
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, factory,
};
use tapio_core::clock;
use tapio_core::event::{ClockQuality, EventId, Name, Severity, names};
use tapio_core::identity::CgroupNames;
use tapio_core::ring::OnFull;

/// The shortest sleep: what is due is done so late at the most.
const SHORTEST_SLEEP: Duration = Duration::from_millis(80);
/// How often the clocks are compared.
const CLOCK: Duration = Duration::from_secs(1);
/// A step of the wall clock: slewing moves it by half a millisecond a second at the most (adjtimex(2)).
const STEP_NS: u64 = 1_000_000;
/// How often zombies are counted.
const ZOMBIES: Duration = Duration::from_secs(60);
/// The source number of this collector's event ids.
const SOURCE: u16 = 0x0100;

/// The section `collectors.node`.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether to run it.
    pub enabled: bool,
    /// How often pressure and use are read.
    #[serde(with = "tapio_core::durations")]
    pub interval: Duration,
    /// A cgroup that was held up for so many per cent of the time is told of.
    pub some_percent: f64,
    /// So is one that used this share (0 to 1) of what the node used.
    pub usage_share: f64,
    /// A process with so many zombies is told of.
    pub zombies: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(10),
            some_percent: 10.0,
            usage_share: 0.5,
            zombies: 20,
        }
    }
}

impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        self.enabled
    }

    /// What was measured is old by the time a full ring has room.
    fn on_full(&self) -> OnFull {
        OnFull::Drop
    }

    fn factory(&self) -> CollectorFactory {
        factory(self.clone(), Node)
    }
}

struct Node(Config);

/// Something that is due again and again.
struct Every {
    interval: Duration,
    last: Instant,
}

impl Every {
    fn new(interval: Duration) -> Self {
        Self { interval, last: clock::instant() }
    }

    /// How long it isn't due yet.
    fn left(&self) -> Duration {
        self.interval.saturating_sub(self.last.elapsed())
    }

    /// Whether it is due, and for how long it wasn't done.
    fn due(&mut self) -> Option<Duration> {
        let passed = self.last.elapsed();
        (passed >= self.interval).then(|| {
            self.last = clock::instant();
            passed
        })
    }
}

impl Collector for Node {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let config = &self.0;
        let trees = Trees::find();
        let mut pressure = Pressure::new(&trees);
        if let Some(missing) = trees.missing() {
            context.report.note("pressure", missing);
        }
        let (mut look, mut clocks) = (Every::new(config.interval), Every::new(CLOCK));
        let mut children = Every::new(ZOMBIES);
        let mut offset_ns = clock::monotonic_to_wall_ns();
        let mut teller = Teller::default();
        while !context.shutdown.is_requested() {
            let left = clocks.left().min(look.left()).min(children.left());
            context
                .shutdown
                .sleep(left.min(context.shutdown.heartbeat_interval()).max(SHORTEST_SLEEP));
            if clocks.due().is_some() {
                let now_ns = clock::monotonic_to_wall_ns();
                if now_ns.abs_diff(offset_ns) >= STEP_NS {
                    teller.clock(now_ns.wrapping_sub(offset_ns) as i64, context);
                }
                offset_ns = now_ns;
            }
            if let Some(passed) = look.due() {
                for found in pressure.look(&trees, passed) {
                    if found.some_percent >= config.some_percent
                        || found.usage_share >= config.usage_share
                    {
                        teller.pressure(&found, context);
                    }
                }
                context.report.count("cgroups", pressure.len() as u64);
            }
            if children.due().is_some() {
                for parent in zombies::parents(config.zombies) {
                    teller.zombies(&parent, context);
                }
            }
            context.sink.flush();
        }
        Ok(Ended::Stopped)
    }
}

/// Puts the events together.
#[derive(Default)]
struct Teller {
    draft: EventBuilder,
    latest_ns: u64,
}

impl Teller {
    fn start(&mut self, names: Option<&CgroupNames>, context: &Context) {
        self.draft.clear();
        self.draft.text(names::HOST_NAME, &context.site.node);
        if let Some(names) = names {
            let known = Subject {
                container_id: names.container_id.as_deref(),
                pod_uid: names.pod_uid.as_deref(),
            };
            // What isn't known yet is known at the next look.
            let _ = self.draft.enrich(known, &context.site.directory);
            if let Some(unit) = &names.unit {
                self.draft.text(names::SYSTEMD_UNIT, unit);
            }
        }
    }

    fn send(&mut self, kind: Name, severity: Severity, context: &mut Context) {
        let now_ns = clock::wall_ns();
        // An id is the time at which it was made: no other run of this start makes it.
        self.latest_ns = clock::monotonic_ns().max(self.latest_ns + 1);
        let meta = EventHeader {
            id: EventId::from_sequence(context.site.origin, SOURCE, self.latest_ns),
            time_ns: now_ns,
            observed_ns: now_ns,
            kind,
            source: names::NODE,
            clock: ClockQuality::Micros,
            severity,
        };
        // The sink has counted an event it couldn't take.
        let _ = self.draft.offer(&meta, &mut context.sink);
    }

    fn clock(&mut self, jump_ns: i64, context: &mut Context) {
        self.start(None, context);
        self.draft.end_entities();
        self.draft.int(names::TAPIO_CLOCK_JUMP_NS, jump_ns);
        let way = if jump_ns < 0 { "back" } else { "forward" };
        let milliseconds = jump_ns.unsigned_abs() as f64 / 1e6;
        self.draft.message(format_args!("the clock was set {way} by {milliseconds:.1} ms"));
        self.send(names::KERNEL_CLOCK_CHANGED, Severity::WARN, context);
    }

    fn pressure(&mut self, found: &pressure::Found<'_>, context: &mut Context) {
        self.start(Some(found.names), context);
        self.draft.int(names::CGROUP_ID, found.cgroup_id);
        self.draft.end_entities();
        self.draft.text(names::TAPIO_CGROUP_PATH, &found.names.path);
        self.draft.word(names::TAPIO_PRESSURE_RESOURCE, found.resource);
        self.draft.float(names::TAPIO_PRESSURE_SOME_PERCENT, found.some_percent);
        self.draft.float(names::TAPIO_PRESSURE_USAGE_SHARE, found.usage_share);
        self.draft.message(format_args!(
            "{} waited for {} {:.0} % of the time and used {:.0} % of what the node used",
            found.names.path,
            found.resource,
            found.some_percent,
            found.usage_share * 100.0
        ));
        let severity = if found.some_percent >= 50.0 { Severity::WARN } else { Severity::INFO };
        self.send(names::KERNEL_PRESSURE, severity, context);
    }

    fn zombies(&mut self, parent: &zombies::Parent, context: &mut Context) {
        self.start(Some(&parent.cgroup), context);
        self.draft.int(names::PROCESS_PID, parent.pid);
        self.draft.end_entities();
        self.draft.text(names::TAPIO_CGROUP_PATH, &parent.cgroup.path);
        self.draft.text(names::PROCESS_EXECUTABLE_NAME, &parent.name);
        self.draft.int(names::TAPIO_COUNT, parent.zombies);
        self.draft.message(format_args!(
            "{} (pid {}) has {} zombies",
            parent.name, parent.pid, parent.zombies
        ));
        self.send(names::KERNEL_PROCESS_ZOMBIES, Severity::WARN, context);
    }
}
