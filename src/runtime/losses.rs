//! Losses of the agent, for the log and `/status`: each one is logged at once and then once a
//! minute with its count, and makes `/status` degraded for a minute.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shortest time between two lines of the log, and how long a loss makes the state degraded.
const INTERVAL: Duration = Duration::from_secs(60);

/// A kind of loss.
#[derive(Clone, Copy, Debug)]
struct Loss {
    /// Count since the start.
    count: u64,
    /// Count when it was logged last.
    logged: u64,
    /// When the count has increased last.
    latest: Instant,
}

#[derive(Debug, Default)]
struct State {
    losses: BTreeMap<String, Loss>,
    logged_at: Option<Instant>,
}

/// Follows the counts of losses.
#[derive(Debug, Default)]
pub struct LossMonitor(Mutex<State>);

impl LossMonitor {
    /// Takes the counts since the start, by name, and logs those that have increased. To be called
    /// about once a second.
    pub(super) fn poll(&self, counts: impl IntoIterator<Item = (String, u64)>, now: Instant) {
        if let Some(text) = self.lock().observe(counts, now) {
            tracing::warn!(losses = text, "events are lost or incomplete; /status is degraded");
        }
    }

    /// The losses within the last minute, one text each.
    pub(super) fn current(&self, now: Instant) -> Vec<String> {
        let state = self.lock();
        let is_current = |loss: &Loss| now.saturating_duration_since(loss.latest) < INTERVAL;
        let current = state.losses.iter().filter(|(_, loss)| is_current(loss));
        current.map(|(name, loss)| format!("{name}: {} since the start", loss.count)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns the text to log, if a line is due.
    fn observe(
        &mut self,
        counts: impl IntoIterator<Item = (String, u64)>,
        now: Instant,
    ) -> Option<String> {
        for (name, count) in counts {
            match self.losses.get_mut(&name) {
                Some(loss) if loss.count < count => {
                    (loss.count, loss.latest) = (count, now);
                }
                Some(_) => {}
                None if count == 0 => {}
                None => {
                    self.losses.insert(name, Loss { count, logged: 0, latest: now });
                }
            }
        }
        let is_due = self.logged_at.is_none_or(|at| now.saturating_duration_since(at) >= INTERVAL);
        if !is_due {
            return None;
        }
        let mut texts = Vec::new();
        for (name, loss) in &mut self.losses {
            let more = loss.count - std::mem::replace(&mut loss.logged, loss.count);
            if more > 0 {
                texts.push(format!("{name}: {more}"));
            }
        }
        if texts.is_empty() {
            return None;
        }
        self.logged_at = Some(now);
        Some(texts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::clock;

    #[test]
    fn loss_is_logged_at_once_and_then_once_a_minute() {
        let (monitor, start) = (LossMonitor::default(), clock::instant());
        let at = |seconds| start + Duration::from_secs(seconds);
        let counts = |ring: u64, late: u64| [("ring_full".into(), ring), ("late".into(), late)];
        let observe = |ring, late, seconds| monitor.lock().observe(counts(ring, late), at(seconds));
        assert_eq!(observe(0, 0, 0), None);
        assert_eq!(monitor.current(at(0)), Vec::<String>::new());
        assert_eq!(observe(5, 0, 1).as_deref(), Some("ring_full: 5"));
        assert_eq!(observe(7, 1, 2), None, "not again within a minute");
        assert_eq!(
            monitor.current(at(2)),
            ["late: 1 since the start", "ring_full: 7 since the start"]
        );
        assert_eq!(observe(7, 1, 61).as_deref(), Some("late: 1, ring_full: 2"));
        assert_eq!(monitor.current(at(62)), Vec::<String>::new(), "it has ended");
        assert_eq!(observe(7, 1, 200), None);
        assert_eq!(observe(8, 1, 201).as_deref(), Some("ring_full: 1"));
    }
}
