//! Timed work of collectors that wait for messages.

use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

use tapio_core::clock;
use tapio_core::shutdown::{Shutdown, ShutdownFuture};

/// Wakes a collector's loop when no message arrives: soon while work is left, otherwise when a
/// heartbeat is due, and at once on shutdown.
pub(crate) struct PollTimer {
    requested: ShutdownFuture,
    soon: Duration,
    heartbeat_interval: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl PollTimer {
    /// A timer that wakes after `soon` while work is left. The first wake-up is due at once.
    pub(crate) fn new(shutdown: &Shutdown, soon: Duration) -> Self {
        let sleep = Box::pin(sleep_until(clock::instant().into()));
        Self {
            requested: shutdown.requested(),
            soon: soon.min(shutdown.heartbeat_interval()),
            heartbeat_interval: shutdown.heartbeat_interval(),
            sleep,
        }
    }

    /// Waits for the next wake-up. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            () = &mut self.requested => {}
            () = &mut self.sleep => {}
        }
        self.sleep.as_mut().reset((clock::instant() + self.heartbeat_interval).into());
    }

    /// Brings the next wake-up forward because work is left.
    pub(crate) fn wake_soon(&mut self) {
        self.wake_by(clock::instant() + self.soon);
    }

    /// Brings the next wake-up forward to `at`, if it would come later.
    pub(crate) fn wake_by(&mut self, at: Instant) {
        if self.sleep.deadline() > at.into() {
            self.sleep.as_mut().reset(at.into());
        }
    }
}

/// Completes when shutdown is requested. Gives heartbeats until then.
pub(crate) async fn shutdown_requested(shutdown: &Shutdown) {
    let mut requested = shutdown.requested();
    // Each timeout polls the future again, which is a heartbeat.
    while tokio::time::timeout(shutdown.heartbeat_interval(), &mut requested).await.is_err() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREVER: Duration = Duration::from_secs(3600);

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(future)
    }

    #[test]
    fn timer_wakes_soon_on_request_and_otherwise_for_heartbeats() {
        let (shutdown, handle) = Shutdown::default().track_run(Duration::from_millis(30));
        block_on(async {
            let mut timer = PollTimer::new(&shutdown, Duration::from_millis(1));
            let mut at = clock::instant();
            let mut passed = || std::mem::replace(&mut at, clock::instant()).elapsed();
            timer.next().await;
            timer.next().await;
            assert!(passed() >= Duration::from_millis(30));
            timer.wake_soon();
            timer.wake_soon();
            assert!(timer.sleep.deadline() <= (clock::instant() + Duration::from_millis(1)).into());
            timer.next().await;
            let heartbeats = handle.heartbeats();
            timer.next().await;
            assert!(passed() >= Duration::from_millis(30), "wake_soon applies once");
            assert!(handle.heartbeats() > heartbeats);
        });
    }

    #[test]
    fn abandoning_ends_every_wait() {
        let all = Shutdown::default();
        let (shutdown, handle) = all.track_run(FOREVER);
        block_on(async {
            let mut timer = PollTimer::new(&shutdown, FOREVER);
            timer.heartbeat_interval = FOREVER;
            timer.next().await;
            let wait = async { tokio::join!(timer.next(), shutdown_requested(&shutdown)) };
            let abandon = async { handle.abandon() };
            tokio::join!(wait, abandon);
            timer.next().await;
        });
    }

    #[test]
    fn waiting_for_shutdown_gives_heartbeats() {
        let (shutdown, handle) = Shutdown::default().track_run(Duration::from_millis(1));
        block_on(async {
            tokio::select! {
                () = shutdown_requested(&shutdown) => panic!("no shutdown was requested"),
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        });
        assert!(handle.heartbeats() >= 3, "{}", handle.heartbeats());
    }
}
