//! When a collector that waits for messages does what else there is to do.

use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

use tapio_core::clock;
use tapio_core::shutdown::{Shutdown, ShutdownFuture};

/// A loop's turns though no message comes: one soon while something is left to do, else when a sign of life is due; and at once
/// when the collector is to end.
pub(crate) struct Turns {
    asked: ShutdownFuture,
    soon: Duration,
    nap: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl Turns {
    /// Turns that come after `soon` where something is left to do. The first one is due.
    pub(crate) fn new(shutdown: &Shutdown, soon: Duration) -> Self {
        let sleep = Box::pin(sleep_until(clock::instant().into()));
        Self {
            asked: shutdown.requested(),
            soon: soon.min(shutdown.heartbeat_interval()),
            nap: shutdown.heartbeat_interval(),
            sleep,
        }
    }

    /// Waits for the next turn. A wait that is dropped takes nothing with it.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            () = &mut self.asked => {}
            () = &mut self.sleep => {}
        }
        self.sleep.as_mut().reset((clock::instant() + self.nap).into());
    }

    /// Something is left to do: the next turn comes soon.
    pub(crate) fn soon(&mut self) {
        self.by(clock::instant() + self.soon);
    }

    /// The next turn comes then at the latest.
    pub(crate) fn by(&mut self, at: Instant) {
        if self.sleep.deadline() > at.into() {
            self.sleep.as_mut().reset(at.into());
        }
    }
}

/// Ends when the collector is to, and shows until then that it lives, whatever else it waits for.
pub(crate) async fn ended(shutdown: &Shutdown) {
    let mut asked = shutdown.requested();
    // Ending in time is to be polled again, which is a look.
    while tokio::time::timeout(shutdown.heartbeat_interval(), &mut asked).await.is_err() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOR_EVER: Duration = Duration::from_secs(3600);

    fn block_on<T>(what: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(what)
    }

    #[test]
    fn turns_come_when_something_is_left_and_with_signs_of_life() {
        let (shutdown, handle) = Shutdown::default().track_run(Duration::from_millis(30));
        block_on(async {
            let mut turns = Turns::new(&shutdown, Duration::from_millis(1));
            let mut at = clock::instant();
            let mut passed = || std::mem::replace(&mut at, clock::instant()).elapsed();
            turns.next().await;
            turns.next().await;
            assert!(passed() >= Duration::from_millis(30));
            turns.soon();
            turns.soon();
            assert!(turns.sleep.deadline() <= (clock::instant() + Duration::from_millis(1)).into());
            turns.next().await;
            let looks = handle.heartbeats();
            turns.next().await;
            assert!(passed() >= Duration::from_millis(30), "soon is once");
            assert!(handle.heartbeats() > looks);
        });
    }

    #[test]
    fn an_end_ends_every_wait() {
        let all = Shutdown::default();
        let (shutdown, handle) = all.track_run(FOR_EVER);
        block_on(async {
            let mut turns = Turns::new(&shutdown, FOR_EVER);
            turns.nap = FOR_EVER;
            turns.next().await;
            let wait = async { tokio::join!(turns.next(), ended(&shutdown)) };
            let give_up = async { handle.abandon() };
            tokio::join!(wait, give_up);
            turns.next().await;
        });
    }

    #[test]
    fn who_waits_for_the_end_shows_that_it_lives() {
        let (shutdown, handle) = Shutdown::default().track_run(Duration::from_millis(1));
        block_on(async {
            tokio::select! {
                () = ended(&shutdown) => panic!("nobody asked it to end"),
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        });
        assert!(handle.heartbeats() >= 3, "{}", handle.heartbeats());
    }
}
