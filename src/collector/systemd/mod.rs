//! Collector `systemd`: what happens to the node's units, from the manager's own signals on the system
//! bus (org.freedesktop.systemd1(5)).
//!
//! | file | purpose |
//! | --- | --- |
//! | `bus.rs` | the connection: every call ends in time |
//! | `properties.rs` | properties on the bus into a snapshot |
//! | `unit.rs` | what a unit's snapshots say happened between them; pure |
//! | `watch.rs` | all units and jobs: takes in signals and answers |
//! | `tell.rs` | what happened, as events |
//!
//! A run begins with a snapshot of all units and so does each connection after it: what changed
//! meanwhile is told once, by systemd's own time stamps, and what was already so isn't told. How far
//! the telling has come is kept over restarts of the agent as a time of the monotonic clock; ids derive
//! from the unit's run and the time stamp, so that what is told again has the same id.

mod bus;
mod properties;
mod tell;
mod unit;
mod watch;

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;

use self::bus::{Bus, Lost};
use self::tell::Teller;
use self::watch::{Answer, Ask, Watch};
use crate::events::Filter;
use crate::runtime::cursor::Cursor;
use crate::runtime::poll_timer::{self, PollTimer};
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, factory,
};
use tapio_core::clock;

/// How often it looks whether what was told is settled, while something isn't or is still asked for.
const TICK: Duration = Duration::from_millis(80);
/// Questions on their way at a time: systemd answers them one by one, beside its own work.
const ASKED_AT_ONCE: usize = 8;
/// How long nothing may be heard before systemd is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(30);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// The section `collectors.systemd`.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether to run it. Without systemd it says so once and costs nothing.
    pub enabled: bool,
    /// The bus's address, as D-Bus writes it; empty for the system bus.
    pub address: String,
    /// The units that are watched. Left out are what has no life of its own (devices, slices), what others
    /// tell better (scopes), and the mounts that containers come and go with.
    pub units: Filter,
}

impl Default for Config {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let include = list(&[
            "*.service",
            "*.socket",
            "*.timer",
            "*.path",
            "*.mount",
            "*.automount",
            "*.swap",
            "*.target",
        ]);
        let exclude = list(&[
            "run-containerd-*.mount",
            "run-docker-*.mount",
            "run-netns-*.mount",
            "run-user-*.mount",
            "var-lib-containerd-*.mount",
            "var-lib-containers-*.mount",
            "var-lib-docker-*.mount",
            "var-lib-kubelet-*.mount",
        ]);
        Self { enabled: true, address: String::new(), units: Filter { include, exclude } }
    }
}

/// Waits for a full ring. What isn't read yet stays with the bus, and the next snapshot tells what it can't hold.
impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        self.enabled
    }

    fn factory(&self) -> CollectorFactory {
        factory(self.clone(), Systemd)
    }
}

struct Systemd(Config);

impl Systemd {
    fn address(&self) -> Result<String, CollectorError> {
        if !self.0.address.is_empty() {
            return Ok(self.0.address.clone());
        }
        // `sd_booted`(3), or a container that was given the node's bus.
        if Path::new("/run/systemd/system").exists() || Path::new(SYSTEM_BUS).exists() {
            return Ok(format!("unix:path={SYSTEM_BUS}"));
        }
        Err(CollectorError::Unavailable(format!(
            "this node doesn't run systemd, or its bus isn't visible here: units aren't watched; in a \
             container mount the node's {SYSTEM_BUS}, or set collectors.systemd.address"
        )))
    }
}

impl Collector for Systemd {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let address = self.address()?;
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(|e| CollectorError::new("/proc/sys/kernel/random/boot_id", e))?;
        let boot_id = boot_id.trim();
        let cursor = Cursor::open(context.site.state_dir.as_deref(), "systemd")
            .map_err(|e| CollectorError::new("the saved position", e))?;
        let (baseline_us, look_at_all) = baseline(cursor.saved(), boot_id);
        let mut watch = Watch::new(self.0.units.clone(), baseline_us, look_at_all);
        for (unit, invocation_id, changed_us) in ran(cursor.saved(), boot_id) {
            watch.remember(unit, invocation_id, changed_us);
        }
        let mut session = Session {
            watch,
            told: None,
            teller: Teller::new(boot_id),
            boot_id: boot_id.to_owned(),
            cursor,
            paused: false,
            connections: 0,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| CollectorError::new("runtime", e))?;
        let ended = runtime.block_on(session.run(&address, context));
        runtime.shutdown_background();
        if let Err(e) = session.cursor.finish(context) {
            context.report.note("position", format!("can't be saved: {e}"));
        }
        Ok(ended)
    }
}

/// From where on to tell, in microseconds of CLOCK_MONOTONIC, and whether units that are inactive may
/// have changed since. In another boot than the saved position's everything is new; without one nothing
/// that was before is.
fn baseline(saved: &str, boot_id: &str) -> (u64, bool) {
    let mut words = saved.split_whitespace();
    match (words.next(), words.next()) {
        (Some(boot), Some(us)) if boot == boot_id => (us.parse().unwrap_or_default(), true),
        (Some(_), _) => (0, true),
        (None, _) => (clock::monotonic_ns() / 1_000, false),
    }
}

/// The units that ran at the saved position, in this boot: name, run, last change.
fn ran<'a>(saved: &'a str, boot_id: &str) -> impl Iterator<Item = (&'a str, &'a str, u64)> {
    let mut lines = saved.lines();
    let is_this_boot = lines.next().is_some_and(|first| first.starts_with(boot_id));
    lines.filter(move |_| is_this_boot).filter_map(|line| {
        let mut words = line.split(' ');
        let (unit, invocation_id) = (words.next()?, words.next()?);
        Some((unit, invocation_id, words.next()?.parse().ok()?))
    })
}

/// What goes on over connections.
struct Session {
    watch: Watch,
    teller: Teller,
    boot_id: String,
    cursor: Cursor,
    /// The latest change, and how many units there were, when the position was written down last.
    told: Option<(u64, usize)>,
    /// Whether to wait until what was offered is settled.
    paused: bool,
    connections: u64,
}

impl Session {
    async fn run(&mut self, address: &str, context: &mut Context) -> Ended {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let began = clock::instant();
            let lost = match self.connection(address, context).await {
                Ok(ended) => return ended,
                Err(Lost(cause)) => cause,
            };
            context.report.note("bus", format!("no units are watched: {lost}"));
            if began.elapsed() > LONGEST_BACKOFF {
                backoff = FIRST_BACKOFF;
            }
            if backoff == FIRST_BACKOFF {
                tracing::warn!(collector = "systemd", "{lost}: connecting again");
            }
            let until = clock::instant() + backoff;
            let mut timer = PollTimer::new(&context.shutdown, TICK);
            while clock::instant() < until {
                if context.shutdown.is_requested() {
                    return Ended::Stopped;
                }
                self.settle(context, &mut timer);
                timer.wake_by(until);
                timer.next().await;
            }
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    async fn connection(&mut self, address: &str, context: &mut Context) -> Result<Ended, Lost> {
        let connecting = Bus::connect(address);
        let (bus, mut signals) = tokio::select! {
            connected = connecting => connected?,
            () = poll_timer::shutdown_requested(&context.shutdown) => return Ok(Ended::Stopped),
        };
        self.connections += 1;
        self.watch.begin();
        context.report.note("bus", "ok");
        let mut asked: JoinSet<Result<Answer, Lost>> = JoinSet::new();
        let mut timer = PollTimer::new(&context.shutdown, TICK);
        let mut heard = clock::instant();
        loop {
            if context.shutdown.is_requested() {
                return Ok(Ended::Stopped);
            }
            while asked.len() < ASKED_AT_ONCE
                && let Some(ask) = self.watch.asks.pop_front()
            {
                asked.spawn(answer(bus.clone(), ask));
            }
            tokio::select! {
                biased;
                message = signals.next(), if !self.paused => {
                    let message = message.ok_or_else(|| Lost("the bus closed the connection".into()))?;
                    let message = message.map_err(|e| Lost(format!("the bus: {e}")))?;
                    heard = clock::instant();
                    self.heard(&message, context)?;
                    timer.wake_soon();
                }
                Some(answered) = asked.join_next(), if !self.paused => {
                    let answered = answered.map_err(|e| Lost(e.to_string()))?;
                    let now_ns = clock::monotonic_ns();
                    self.watch.answered(answered?, &context.site.directory, now_ns);
                    timer.wake_soon();
                }
                () = timer.next() => self.tick(asked.is_empty(), &mut heard, &mut timer, context),
            }
            self.tell(context);
        }
    }

    fn heard(&mut self, message: &zbus::Message, context: &Context) -> Result<(), Lost> {
        let header = message.header();
        if header.member().is_some_and(|m| m.as_str() == "NameOwnerChanged") {
            // The first one says that it has gone: only the one that says it is back is of use.
            return Err(Lost("systemd left the bus or came back to it".into()));
        }
        if message.message_type() == zbus::message::Type::Signal {
            self.watch.heard(message, &context.site.directory, clock::monotonic_ns());
        }
        Ok(())
    }

    fn tell(&mut self, context: &mut Context) {
        if self.watch.news.is_empty() {
            return;
        }
        let mut news = std::mem::take(&mut self.watch.news);
        for one in news.drain(..) {
            self.teller.tell(&one, context);
        }
        self.watch.news = news;
        context.sink.flush();
    }

    fn tick(
        &mut self,
        all_answered: bool,
        heard: &mut Instant,
        timer: &mut PollTimer,
        context: &mut Context,
    ) {
        self.watch.release(clock::monotonic_ns());
        if !all_answered || self.watch.holds() {
            timer.wake_soon();
        } else if self.watch.asks.is_empty() {
            self.advance();
            if heard.elapsed() > SILENCE {
                *heard = clock::instant();
                self.watch.asks.push_back(Ask::Ping);
            }
        }
        self.settle(context, timer);
        context.report.count("units", self.watch.len() as u64);
        context.report.count("connections", self.connections);
        context.report.count("refused", self.watch.refused);
    }

    /// Everything up to the latest change has been told: the position is that, and the units that run.
    fn advance(&mut self) {
        let told = (self.watch.latest_us, self.watch.len());
        if self.told == Some(told) {
            return;
        }
        self.told = Some(told);
        let mut position = format!("{} {}", self.boot_id, told.0);
        for (unit, invocation_id, changed_us) in self.watch.running() {
            position.push_str(&format!("\n{unit} {invocation_id} {changed_us}"));
        }
        self.cursor.advance(&position);
    }

    fn settle(&mut self, context: &Context, timer: &mut PollTimer) {
        match self.cursor.try_save(context) {
            Ok(pause) => self.paused = pause,
            Err(e) => context.report.note("position", format!("can't be saved: {e}")),
        }
        if self.cursor.is_pending() {
            timer.wake_soon();
        }
    }
}

async fn answer(bus: Bus, ask: Ask) -> Result<Answer, Lost> {
    Ok(match ask {
        Ask::List => Answer::List(bus.list().await?),
        Ask::Read { unit, heard } => {
            let read = bus.read(&unit).await?;
            Answer::Read { unit, heard, read }
        }
        Ask::Group { unit } => {
            let group = bus.control_group(&unit).await?;
            Answer::Group { unit, group }
        }
        Ask::Job { id, path } => Answer::Job { id, kind: bus.job_type(&path).await? },
        Ask::Dependency { id, unit } => {
            Answer::Dependency { id, failed: bus.failed_dependency(&unit).await? }
        }
        Ask::Ping => {
            bus.ping().await?;
            Answer::Pong
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_telling_goes_on_where_it_ended() {
        assert_eq!(baseline("boot-1 77", "boot-1"), (77, true));
        assert_eq!(baseline("boot-1 77", "boot-2"), (0, true), "all of a new boot is new");
        let saved = "boot-1 77\na.service 0af7 12\nnot a unit\n-.mount  3";
        assert_eq!(baseline(saved, "boot-1"), (77, true));
        let ran = |boot| super::ran(saved, boot).collect::<Vec<_>>();
        assert_eq!(ran("boot-1"), [("a.service", "0af7", 12), ("-.mount", "", 3)]);
        assert_eq!(ran("boot-2"), []);
        let (now_us, look_at_all) = baseline("", "boot-1");
        assert!(now_us > 0 && !look_at_all, "at the very first start nothing is");
    }
}
