//! The status of the last hour: one line a minute, for `tapio debug bundle`.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tapio_core::text_prefix::text_prefix;

/// Interval of the lines.
const INTERVAL: Duration = Duration::from_secs(60);
/// Lines that are kept: an hour.
const LINES: usize = 60;
/// Longest line, in bytes.
const MAX_LINE_BYTES: usize = 2048;

/// The lines.
#[derive(Debug, Default)]
pub struct StatusHistory(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    latest: Option<Instant>,
    lines: VecDeque<String>,
}

impl StatusHistory {
    /// Adds a line, if one is due. To be called about once a second.
    pub(super) fn poll(&self, now: Instant, line: impl FnOnce() -> String) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.latest.is_some_and(|latest| now.saturating_duration_since(latest) < INTERVAL) {
            return;
        }
        state.latest = Some(now);
        if state.lines.len() >= LINES {
            state.lines.pop_front();
        }
        let line = line();
        let line = text_prefix(&line, MAX_LINE_BYTES);
        state.lines.push_back(line.to_owned());
    }

    /// The lines, the oldest first.
    pub(super) fn text(&self) -> String {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::clock;

    #[test]
    fn line_a_minute_is_kept_for_an_hour() {
        let history = StatusHistory::default();
        let start = clock::instant();
        for second in 0..2 * 3600 {
            history.poll(start + Duration::from_secs(second), || format!("{second}"));
        }
        let text = history.text();
        assert_eq!(text.lines().count(), LINES);
        assert!(text.starts_with("3600\n3660\n") && text.ends_with("\n7140\n"), "{text}");
        history.poll(start + Duration::from_secs(7200), || "ä".repeat(5000));
        assert!(history.text().lines().last().unwrap().len() <= MAX_LINE_BYTES);
    }
}
