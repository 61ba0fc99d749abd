//! Connections to the bus, one after the other: feeds signals and replies to the unit table, sends
//! the table's requests, emits its changes, and advances the cursor.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;

use super::bus::{Bus, ConnectionLost};
use super::to_event::EventConverter;
use super::unit_table::{Reply, Request, UnitTable};
use crate::events::Filter;
use crate::runtime::cursor::Cursor;
use crate::runtime::poll_timer::{self, PollTimer};
use crate::runtime::{Context, Ended};
use tapio_core::backoff::Backoff;
use tapio_core::clock;

/// Interval of the timed work while a reply, a pending end or an unsaved cursor is left.
const TICK: Duration = Duration::from_millis(80);
/// Maximum number of concurrent requests: systemd answers them one by one, beside its own work.
const MAX_CONCURRENT_REQUESTS: usize = 8;
/// Time without a message after which systemd is pinged.
const PING_AFTER: Duration = Duration::from_secs(30);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// The state of one run, which spans connections.
pub(super) struct Session {
    table: UnitTable,
    converter: EventConverter,
    boot_id: String,
    cursor: Cursor,
    /// The latest change and the number of units as of the cursor's last advance.
    advanced_to: Option<(u64, usize)>,
    /// Whether to read nothing more until the events offered are finalized.
    paused: bool,
    connections: u64,
}

impl Session {
    /// A session that continues at the cursor.
    pub(super) fn new(filter: Filter, boot_id: &str, cursor: Cursor) -> Self {
        let (baseline_us, check_inactive) = baseline(cursor.saved(), boot_id);
        let mut table = UnitTable::new(filter, baseline_us, check_inactive);
        for (unit, invocation_id, changed_us) in saved_units(cursor.saved(), boot_id) {
            table.restore(unit, invocation_id, changed_us);
        }
        Self {
            table,
            advanced_to: None,
            converter: EventConverter::new(boot_id),
            boot_id: boot_id.to_owned(),
            cursor,
            paused: false,
            connections: 0,
        }
    }

    /// Connects, and reconnects with backoff, until shutdown.
    pub(super) async fn run(&mut self, address: &str, context: &mut Context) -> Ended {
        let mut backoff = Backoff::new(FIRST_BACKOFF, MAX_BACKOFF);
        loop {
            let connected = clock::instant();
            let lost = match self.connection(address, context).await {
                Ok(ended) => return ended,
                Err(ConnectionLost(cause)) => cause,
            };
            let state = format!("not connected, unit events are delayed: {lost}");
            context.report.note("bus", state);
            if connected.elapsed() > MAX_BACKOFF {
                backoff.reset();
            }
            if backoff.is_reset() {
                tracing::warn!(collector = "systemd", "bus connection lost, reconnecting: {lost}");
            }
            let until = clock::instant() + backoff.next_pause();
            let mut timer = PollTimer::new(&context.shutdown, TICK);
            while clock::instant() < until {
                if context.shutdown.is_requested() {
                    return Ended::Stopped;
                }
                self.save_cursor(context, &mut timer);
                timer.wake_by(until);
                timer.next().await;
            }
        }
    }

    /// Saves the cursor once the last events are finalized.
    pub(super) fn finish(&mut self, context: &mut Context) {
        if let Err(e) = self.cursor.finish(context) {
            report_unsaved(context, &e);
        }
    }

    async fn connection(
        &mut self,
        address: &str,
        context: &mut Context,
    ) -> Result<Ended, ConnectionLost> {
        let connecting = Bus::connect(address);
        let (bus, mut messages) = tokio::select! {
            connected = connecting => connected?,
            () = poll_timer::shutdown_requested(&context.shutdown) => return Ok(Ended::Stopped),
        };
        self.connections += 1;
        self.table.begin_connection();
        context.report.note("bus", "ok");
        let mut in_flight: JoinSet<Result<Reply, ConnectionLost>> = JoinSet::new();
        let mut timer = PollTimer::new(&context.shutdown, TICK);
        let mut last_message = clock::instant();
        loop {
            if context.shutdown.is_requested() {
                return Ok(Ended::Stopped);
            }
            while in_flight.len() < MAX_CONCURRENT_REQUESTS
                && let Some(request) = self.table.requests.pop_front()
            {
                in_flight.spawn(send(bus.clone(), request));
            }
            tokio::select! {
                biased;
                message = messages.next(), if !self.paused => {
                    let closed = || ConnectionLost("the bus closed the connection".into());
                    let message = message.ok_or_else(closed)?;
                    let message = message.map_err(|e| ConnectionLost(format!("the bus: {e}")))?;
                    last_message = clock::instant();
                    self.handle_message(&message, context)?;
                    timer.wake_soon();
                }
                Some(reply) = in_flight.join_next(), if !self.paused => {
                    let reply = reply.map_err(|e| ConnectionLost(e.to_string()))?;
                    let now_ns = clock::monotonic_ns();
                    self.table.handle_reply(reply?, &context.site.directory, now_ns);
                    timer.wake_soon();
                }
                () = timer.next() => {
                    self.tick(in_flight.is_empty(), &mut last_message, &mut timer, context);
                }
            }
            self.emit_changes(context);
        }
    }

    fn handle_message(
        &mut self,
        message: &zbus::Message,
        context: &Context,
    ) -> Result<(), ConnectionLost> {
        let header = message.header();
        if header.member().is_some_and(|m| m.as_str() == "NameOwnerChanged") {
            // Signals between systemd's departure and its return are lost either way, so both
            // signals lead to a new snapshot.
            return Err(ConnectionLost("systemd left the bus or returned to it".into()));
        }
        if message.message_type() == zbus::message::Type::Signal {
            let now_ns = clock::monotonic_ns();
            self.table.handle_signal(message, &context.site.directory, now_ns);
        }
        Ok(())
    }

    fn emit_changes(&mut self, context: &mut Context) {
        if self.table.changes.is_empty() {
            return;
        }
        for change in self.table.changes.drain(..) {
            self.converter.emit(&change, context);
        }
        context.sink.flush();
    }

    /// Does the timed work: pending ends, ping, cursor, counters.
    fn tick(
        &mut self,
        all_answered: bool,
        last_message: &mut Instant,
        timer: &mut PollTimer,
        context: &mut Context,
    ) {
        self.table.release_pending(clock::monotonic_ns());
        if !all_answered || self.table.has_pending() {
            timer.wake_soon();
        } else if self.table.requests.is_empty() {
            self.advance_cursor();
            if last_message.elapsed() > PING_AFTER {
                *last_message = clock::instant();
                self.table.requests.push_back(Request::Ping);
            }
        }
        self.save_cursor(context, timer);
        context.report.count("units", self.table.len() as u64);
        context.report.count("connections", self.connections);
        context.report.count("units_refused", self.table.refused);
    }

    /// Advances the cursor to the latest change and the running units: every change up to there
    /// has been emitted.
    fn advance_cursor(&mut self) {
        let current = (self.table.latest_us, self.table.len());
        if self.advanced_to == Some(current) {
            return;
        }
        self.advanced_to = Some(current);
        let mut position = format!("{} {}", self.boot_id, current.0);
        for (unit, invocation_id, changed_us) in self.table.running() {
            position.push_str(&format!("\n{unit} {invocation_id} {changed_us}"));
        }
        self.cursor.advance(&position);
    }

    fn save_cursor(&mut self, context: &mut Context, timer: &mut PollTimer) {
        match self.cursor.try_save(context) {
            Ok(pause) => self.paused = pause,
            Err(e) => report_unsaved(context, &e),
        }
        if self.cursor.is_pending() {
            timer.wake_soon();
        }
    }
}

fn report_unsaved(context: &Context, error: &std::io::Error) {
    context.report.note("cursor", format!("can't be saved: {error}; retrying"));
}

/// Returns the time from which changes are emitted, in microseconds of CLOCK_MONOTONIC, and
/// whether inactive units may have changed since. In another boot than the cursor's, everything is
/// new; without a cursor, nothing before now is.
fn baseline(saved: &str, boot_id: &str) -> (u64, bool) {
    let mut words = saved.split_whitespace();
    match (words.next(), words.next()) {
        (Some(boot), Some(us)) if boot == boot_id => (us.parse().unwrap_or_default(), true),
        (Some(_), _) => (0, true),
        (None, _) => (clock::monotonic_ns() / 1_000, false),
    }
}

/// Checks the first line of a cursor: boot and time. Other lines are skipped one by one.
pub(super) fn check_saved(saved: &str) -> Result<(), String> {
    let first = saved.lines().next().and_then(|line| line.split_once(' '));
    let is_valid = |(boot, us): (&str, &str)| {
        boot.chars().all(|c| c.is_ascii_hexdigit() || c == '-') && us.parse::<u64>().is_ok()
    };
    match first.is_some_and(is_valid) {
        true => Ok(()),
        false => Err("the first line isn't a boot id and a time".to_owned()),
    }
}

/// The units that were running as of a cursor of this boot: name, invocation, last change.
fn saved_units<'a>(saved: &'a str, boot_id: &str) -> impl Iterator<Item = (&'a str, &'a str, u64)> {
    let mut lines = saved.lines();
    let is_this_boot = lines.next().is_some_and(|first| first.starts_with(boot_id));
    lines.filter(move |_| is_this_boot).filter_map(|line| {
        let mut words = line.split(' ');
        let (unit, invocation_id) = (words.next()?, words.next()?);
        Some((unit, invocation_id, words.next()?.parse().ok()?))
    })
}

/// Sends a request and waits for its reply.
async fn send(bus: Bus, request: Request) -> Result<Reply, ConnectionLost> {
    Ok(match request {
        Request::List => Reply::List(bus.list().await?),
        Request::Read { unit, signals } => {
            let properties = bus.read(&unit).await?;
            Reply::Read { unit, signals, properties }
        }
        Request::ControlGroup { unit } => {
            let control_group = bus.control_group(&unit).await?;
            Reply::ControlGroup { unit, control_group }
        }
        Request::JobType { id, path } => {
            Reply::JobType { id, job_type: bus.job_type(&path).await? }
        }
        Request::FailedDependency { id, unit } => {
            Reply::FailedDependency { id, failed: bus.failed_dependency(&unit).await? }
        }
        Request::Ping => {
            bus.ping().await?;
            Reply::Pong
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_not_a_cursor() {
        let boot = "6c7c6013-a8a3-4b5a-b7a6-f1a2ae5ab8ec";
        assert_eq!(check_saved(&format!("{boot} 77\na.service 0af7 12")), Ok(()));
        for bad in ["77", "\0\u{1}", "{}", "some words", boot, "a.service 0af7 12"] {
            assert!(check_saved(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn session_continues_at_cursor_of_this_boot() {
        assert_eq!(baseline("boot-1 77", "boot-1"), (77, true));
        assert_eq!(baseline("boot-1 77", "boot-2"), (0, true), "all of a new boot is new");
        let saved = "boot-1 77\na.service 0af7 12\nnot a unit\n-.mount  3";
        assert_eq!(baseline(saved, "boot-1"), (77, true));
        let units = |boot| saved_units(saved, boot).collect::<Vec<_>>();
        assert_eq!(units("boot-1"), [("a.service", "0af7", 12), ("-.mount", "", 3)]);
        assert_eq!(units("boot-2"), []);
        let (now_us, check_inactive) = baseline("", "boot-1");
        assert!(now_us > 0 && !check_inactive, "nothing is new at the first start");
    }
}
