//! The progress of a command that takes longer than a second: one line on standard error, if that
//! is a terminal. It is drawn with carriage returns and blanks only, which every terminal has.

use std::io::{self, IsTerminal as _, Read, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use signal_hook::consts::SIGINT;
use signal_hook::{flag, low_level};

use tapio_core::clock;

/// Commands that take less have no progress.
const FIRST_DRAWN: Duration = Duration::from_secs(1);
/// Interval at which it is drawn.
const INTERVAL: Duration = Duration::from_millis(100);
/// Columns of a terminal that has no size.
const DEFAULT_COLUMNS: usize = 80;
/// Cells of the bar.
const BAR_CELLS: usize = 20;

/// Columns of what a terminal prints for Ctrl-C behind the line: `^C`.
const ECHO_COLUMNS: usize = 2;

/// Columns of the line that is drawn, 0 for none. Whoever prints removes it first.
static DRAWN: Mutex<usize> = Mutex::new(0);

/// Removes the line, for other output: it is drawn again behind that.
pub(super) fn clear() {
    erase(&mut DRAWN.lock().unwrap_or_else(PoisonError::into_inner));
}

fn erase(drawn: &mut usize) {
    if *drawn > 0 {
        // Standard error can't report that it is closed.
        let blanks = " ".repeat(*drawn + ECHO_COLUMNS);
        let _ = write!(std::io::stderr().lock(), "\r{blanks}\r");
        *drawn = 0;
    }
}

fn draw(line: &str) {
    if line.is_empty() {
        return;
    }
    let mut drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
    let columns = line.chars().count();
    let padded = columns.max(*drawn);
    let _ = write!(std::io::stderr().lock(), "\r{line:padded$}\r{line}");
    *drawn = columns;
}

/// The unit of a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Items(&'static str),
    Bytes,
    /// The time that passes, in milliseconds.
    Time,
}

/// The numbers that a thread draws.
struct State {
    label: &'static str,
    unit: Unit,
    done: AtomicU64,
    total: Option<u64>,
    started: Instant,
}

/// The progress of a command, drawn until it is dropped.
pub(crate) struct Progress {
    state: Arc<State>,
    /// `None`: standard error isn't a terminal.
    thread: Option<(SyncSender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Progress in items; `total`: their number, if it is known.
    pub(crate) fn of_items(label: &'static str, items: &'static str, total: Option<u64>) -> Self {
        Self::new(label, Unit::Items(items), total)
    }

    /// Progress in bytes of files, of which `total` are known.
    pub(crate) fn of_bytes(label: &'static str, total: Option<u64>) -> Self {
        Self::new(label, Unit::Bytes, total)
    }

    /// Progress of something that takes a time that is known.
    pub(crate) fn of_time(label: &'static str, total: Duration) -> Self {
        let total = u64::try_from(total.as_millis()).unwrap_or(u64::MAX);
        Self::new(label, Unit::Time, Some(total))
    }

    fn new(label: &'static str, unit: Unit, total: Option<u64>) -> Self {
        let done = AtomicU64::new(0);
        let started = clock::instant();
        let state = Arc::new(State { label, unit, done, total, started });
        let is_terminal = std::io::stderr().is_terminal();
        let thread = is_terminal.then(|| start(&state)).and_then(Result::ok);
        Self { state, thread }
    }

    /// Counts items or bytes that are done.
    pub(crate) fn add(&self, done: u64) {
        self.state.add(done);
    }

    /// A reader of which each byte is counted.
    pub(crate) fn counted<R: Read>(&self, reader: R) -> Counted<R> {
        Counted { reader, state: Arc::clone(&self.state) }
    }
}

/// A reader whose bytes are counted.
pub(crate) struct Counted<R> {
    reader: R,
    state: Arc<State>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(bytes)?;
        self.state.add(read as u64);
        Ok(read)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.thread.take() {
            drop(end);
            let _ = thread.join();
        }
    }
}

/// Starts the thread that draws.
fn start(state: &Arc<State>) -> io::Result<(SyncSender<()>, JoinHandle<()>)> {
    let interrupt = Interrupt::watch();
    let (end, ended) = sync_channel(0);
    let state = Arc::clone(state);
    let thread = std::thread::Builder::new().name("progress".into()).spawn(move || {
        while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
            if interrupt.is_some_and(Interrupt::is_received) {
                break;
            }
            let elapsed = clock::instant().saturating_duration_since(state.started);
            if elapsed >= FIRST_DRAWN {
                draw(&state.line(elapsed, columns()));
            }
        }
        clear();
        if let Some(interrupt) = interrupt {
            interrupt.end();
        }
    })?;
    Ok((end, thread))
}

/// Ctrl-C while a line is drawn: the line is removed before the process ends. A command that ends
/// by itself at the signal does so.
struct Interrupt {
    received: Arc<AtomicBool>,
    /// Whether the signal ends the process at once, as without a handler.
    is_default: Arc<AtomicBool>,
    /// Whether the command handles the signal itself.
    is_handled: AtomicBool,
}

static INTERRUPT: OnceLock<Option<Interrupt>> = OnceLock::new();

/// Leaves Ctrl-C to the command, which ends by itself.
pub(crate) fn interrupts_are_handled() {
    let interrupt = INTERRUPT.get_or_init(Interrupt::register);
    if let Some(interrupt) = interrupt {
        interrupt.is_handled.store(true, Ordering::Relaxed);
        interrupt.is_default.store(false, Ordering::Relaxed);
    }
}

impl Interrupt {
    fn register() -> Option<Self> {
        let (received, is_default) = (Arc::default(), Arc::new(AtomicBool::new(true)));
        // A signal's actions run in this order.
        flag::register_conditional_default(SIGINT, Arc::clone(&is_default)).ok()?;
        flag::register(SIGINT, Arc::clone(&received)).ok()?;
        Some(Self { received, is_default, is_handled: AtomicBool::new(false) })
    }

    /// Watches for the signal; `None`: the command handles it, or it can't be watched.
    fn watch() -> Option<&'static Self> {
        let interrupt = INTERRUPT.get_or_init(Self::register).as_ref()?;
        // Relaxed, as in all of this: no other data depends on the flags.
        if interrupt.is_handled.load(Ordering::Relaxed) {
            return None;
        }
        interrupt.is_default.store(false, Ordering::Relaxed);
        Some(interrupt)
    }

    fn is_received(&self) -> bool {
        self.received.load(Ordering::Relaxed)
    }

    /// Ends the watch, and the process if the signal came.
    fn end(&self) {
        self.is_default.store(true, Ordering::Relaxed);
        if self.is_received() {
            let _ = low_level::emulate_default_handler(SIGINT);
        }
    }
}

/// The columns of the terminal, now.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
    size.map(|size| usize::from(size.ws_col)).filter(|n| *n > 0).unwrap_or(DEFAULT_COLUMNS)
}

impl State {
    fn add(&self, done: u64) {
        // Relaxed: it is for people only, no other data depends on it.
        self.done.fetch_add(done, Ordering::Relaxed);
    }

    /// The line after a time, for a terminal of this width. Its last column stays free: in that one
    /// some terminals begin the next line.
    fn line(&self, elapsed: Duration, columns: usize) -> String {
        let done = match self.unit {
            Unit::Time => u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            _ => self.done.load(Ordering::Relaxed),
        };
        let room = columns.saturating_sub(1 + ECHO_COLUMNS);
        // With less room, the first parts are left out.
        let parts = self.parts(done, elapsed.as_secs_f64());
        let fits = |parts: &[String]| parts.join("  ").chars().count() <= room;
        let from = (0..parts.len()).find(|from| fits(&parts[*from..]));
        let line = from.map_or_else(String::new, |from| parts[from..].join("  "));
        if line.is_empty() { parts.concat().chars().take(room).collect() } else { line }
    }

    /// The parts of the line, the least important first.
    fn parts(&self, done: u64, seconds: f64) -> Vec<String> {
        let rate = done as f64 / seconds.max(1e-3);
        let per_second = match self.unit {
            Unit::Time => String::new(),
            unit => format!("{}/s", unit.text(rate.round() as u64)),
        };
        let label = self.label.to_owned();
        let mut parts = match self.total {
            Some(total) if total > 0 => {
                let done = done.min(total);
                let part = done as f64 / total as f64;
                let left = (total - done) as f64 / rate.max(1e-9);
                vec![
                    label,
                    bar(part),
                    per_second,
                    match self.unit {
                        Unit::Items(noun) => format!("{done} of {total} {noun}"),
                        unit => format!("{} of {}", unit.text(done), unit.text(total)),
                    },
                    if done > 0 { format!("{} left", time_text(left)) } else { String::new() },
                    format!("{:.0} %", (100.0 * part).floor()),
                ]
            }
            _ => vec![label, per_second, self.unit.text(done)],
        };
        parts.retain(|part| !part.is_empty());
        parts
    }
}

impl Unit {
    fn text(self, number: u64) -> String {
        match self {
            Self::Items(noun) => format!("{number} {noun}"),
            Self::Bytes if number < 1024 => format!("{number} B"),
            Self::Bytes => {
                let exponent = (number.ilog2() / 10).min(6);
                let scaled = number as f64 / f64::from(10 * exponent).exp2();
                let prefix = ["", "K", "M", "G", "T", "P", "E"][exponent as usize];
                format!("{scaled:.1} {prefix}iB")
            }
            Self::Time => time_text(number as f64 / 1e3),
        }
    }
}

fn bar(part: f64) -> String {
    let full = (part * BAR_CELLS as f64) as usize;
    format!("[{}{}]", "#".repeat(full), "-".repeat(BAR_CELLS - full.min(BAR_CELLS)))
}

fn time_text(seconds: f64) -> String {
    let seconds = seconds.round().min(1e9) as u64;
    match (seconds / 3600, seconds / 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (hours, minutes) => format!("{hours} h {} min", minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state(unit: Unit, done: u64, total: Option<u64>) -> State {
        let done = AtomicU64::new(done);
        State { label: "reading", unit, done, total, started: clock::instant() }
    }

    #[test]
    fn known_total_has_percent_rate_and_time_left() {
        let half = state(Unit::Bytes, 512 << 20, Some(1 << 30));
        let elapsed = Duration::from_secs(4);
        assert_eq!(
            half.line(elapsed, 100),
            "reading  [##########----------]  128.0 MiB/s  512.0 MiB of 1.0 GiB  4 s left  50 %"
        );
        assert_eq!(half.line(elapsed, 50), "512.0 MiB of 1.0 GiB  4 s left  50 %");
        assert_eq!(half.line(elapsed, 10), "50 %");
        assert_eq!((half.line(elapsed, 5), half.line(elapsed, 3)), ("re".into(), String::new()));
        let begun = state(Unit::Items("stories"), 0, Some(9));
        assert_eq!(
            begun.line(elapsed, 80),
            "reading  [--------------------]  0 stories/s  0 of 9 stories  0 %"
        );
        let waiting = state(Unit::Time, 0, Some(200_000));
        assert_eq!(
            waiting.line(Duration::from_secs(50), 80),
            "reading  [#####---------------]  50 s of 3 min 20 s  2 min 30 s left  25 %"
        );
    }

    #[test]
    fn unknown_total_has_count_and_rate() {
        let events = state(Unit::Items("events"), 5_000, None);
        assert_eq!(events.line(Duration::from_secs(2), 80), "reading  2500 events/s  5000 events");
    }

    proptest! {
        /// No line is as wide as the terminal, or has a character that isn't printable ASCII.
        #[test]
        fn lines_fit_every_terminal(
            done in any::<u64>(), total in prop::option::of(any::<u64>()), columns in 0usize..200,
            seconds in 0.0f64..1e7, kind in 0usize..3,
        ) {
            let unit = [Unit::Items("events"), Unit::Bytes, Unit::Time][kind];
            let line = state(unit, done, total).line(Duration::from_secs_f64(seconds), columns);
            prop_assert!(line.len() <= columns.saturating_sub(1 + ECHO_COLUMNS), "{line:?}");
            prop_assert!(line.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{line:?}");
        }
    }
}
