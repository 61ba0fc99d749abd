//! The collector: its configuration, and the loop with its intervals.

use std::time::{Duration, Instant};

use super::cgroups::CgroupMounts;
use super::pressure::PressureSampler;
use super::to_event::EventWriter;
use super::zombies;
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, factory,
};
use tapio_core::clock;
use tapio_core::ring::OnFull;

/// Shortest sleep, and so the longest delay of work that is due.
const MIN_SLEEP: Duration = Duration::from_millis(80);
/// Interval at which the clocks are compared.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);
/// Change from which the wall clock counts as stepped: slewing moves it by half a millisecond per
/// second at most (adjtimex(2)).
const MIN_STEP_NS: u64 = 1_000_000;
/// Interval at which zombies are counted.
const ZOMBIE_INTERVAL: Duration = Duration::from_secs(60);

/// Shortest interval between samples.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// The section `collectors.node`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether to run it.
    pub enabled: bool,
    /// Interval at which pressure and use are sampled.
    #[serde(with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub interval: Duration,
    /// Stall time, in percent of the interval, from which a cgroup's pressure is emitted.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub some_percent: f64,
    /// Share of the node's use (0 to 1) from which a cgroup's pressure is emitted.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub usage_share: f64,
    /// Number of zombies from which a process is reported.
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

    /// Drops: a sample is outdated by the time a full ring has room.
    fn on_full(&self) -> OnFull {
        OnFull::Drop
    }

    fn check(&self) -> Result<(), String> {
        if !(0.0..=100.0).contains(&self.some_percent) {
            return Err("some_percent: must be from 0 to 100".into());
        }
        if !(0.0..=1.0).contains(&self.usage_share) {
            return Err("usage_share: must be from 0 to 1".into());
        }
        if self.interval < MIN_INTERVAL {
            return Err(format!("interval: must be at least {MIN_INTERVAL:?}"));
        }
        Ok(())
    }

    fn factory(&self) -> CollectorFactory {
        factory(self.clone(), Node)
    }
}

struct Node(Config);

/// A recurring task's interval.
struct Interval {
    length: Duration,
    last: Instant,
}

impl Interval {
    fn new(length: Duration) -> Self {
        Self { length, last: clock::instant() }
    }

    /// Time until the task is due.
    fn remaining(&self) -> Duration {
        self.length.saturating_sub(self.last.elapsed())
    }

    /// Starts the next interval if the task is due, and returns the time since the last one.
    fn restart_if_due(&mut self) -> Option<Duration> {
        let passed = self.last.elapsed();
        (passed >= self.length).then(|| {
            self.last = clock::instant();
            passed
        })
    }
}

impl Collector for Node {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let config = &self.0;
        let mounts = CgroupMounts::find(&context.site.cgroup_base);
        let mut sampler = PressureSampler::new(&mounts);
        if let Some(missing) = mounts.missing() {
            context.report.note("pressure", missing);
        }
        let mut pressure_due = Interval::new(config.interval);
        let mut clock_due = Interval::new(CLOCK_INTERVAL);
        let mut zombies_due = Interval::new(ZOMBIE_INTERVAL);
        let mut offset_ns = clock::monotonic_to_wall_ns();
        let mut events = EventWriter::default();
        while !context.shutdown.is_requested() {
            let next =
                clock_due.remaining().min(pressure_due.remaining()).min(zombies_due.remaining());
            context.shutdown.sleep(next.min(context.shutdown.heartbeat_interval()).max(MIN_SLEEP));
            if clock_due.restart_if_due().is_some() {
                let now_ns = clock::monotonic_to_wall_ns();
                if now_ns.abs_diff(offset_ns) >= MIN_STEP_NS {
                    events.clock_step(now_ns.wrapping_sub(offset_ns) as i64, context);
                }
                offset_ns = now_ns;
            }
            if let Some(passed) = pressure_due.restart_if_due() {
                for sample in sampler.sample(&mounts, passed) {
                    if sample.some_percent >= config.some_percent
                        || sample.usage_share >= config.usage_share
                    {
                        events.pressure(&sample, context);
                    }
                }
                context.report.count("cgroups", sampler.len() as u64);
            }
            if zombies_due.restart_if_due().is_some() {
                for parent in zombies::parents(config.zombies, &context.site.cgroup_base) {
                    events.zombies(&parent, context);
                }
            }
            context.sink.flush();
        }
        Ok(Ended::Stopped)
    }
}
