//! The wake protocol of `src/ring/wake.rs` under every interleaving that loom can tell apart: one
//! consumer, two producers, a ring of its own for each, as a shard has them. And the signal of
//! `src/ring/signal.rs`, by which threads are told to end: one that raises it, one or two that wait.
//!
//! Shows: no wake-up is lost, so the consumer, and who waits, always ends. Does not show: anything about rtrb,
//! which loom can't see into; a ring is modelled by its tail, written with Release and read with
//! Acquire as rtrb does. The sabotaged copies show that the model finds what it looks for.

#![cfg(loom)]

#[path = "../../../src/ring/wake.rs"]
#[expect(dead_code, reason = "the parts that park a real thread aren't modelled")]
mod wake;

/// Without the fence between the consumer's announcement and its second look.
#[cfg(test)]
#[expect(dead_code, reason = "as in `wake`")]
mod no_doze_fence {
    include!(concat!(env!("OUT_DIR"), "/no_doze_fence.rs"));
}

/// Without the fence between the producer's record and its look at the consumer's state.
#[cfg(test)]
#[expect(dead_code, reason = "as in `wake`")]
mod no_ring_fence {
    include!(concat!(env!("OUT_DIR"), "/no_ring_fence.rs"));
}

#[cfg(test)]
#[path = "../../../src/ring/signal.rs"]
mod signal;

/// Raised after the wakers were taken out.
#[cfg(test)]
mod raised_late {
    include!(concat!(env!("OUT_DIR"), "/raised_late.rs"));
}

/// The model of a signal, for one copy of it.
macro_rules! signal_model {
    ($signal:ident, $waiters:expr) => {{
        use loom::thread;
        use std::sync::Arc;

        struct Sleeper(thread::Thread);
        impl std::task::Wake for Sleeper {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }

        loom::model(|| {
            let signal = Arc::new($signal::Signal::default());
            let wait = |signal: &$signal::Signal| {
                let sleeper = Arc::new(Sleeper(thread::current()));
                let number = signal.enter(&sleeper.into());
                while !signal.is_raised() {
                    // Parked for ever, if a wake-up was lost: loom reports a deadlock.
                    thread::park();
                }
                signal.leave(number);
            };
            let waiters: Vec<_> = (1..$waiters)
                .map(|_| {
                    let signal = Arc::clone(&signal);
                    thread::spawn(move || wait(&signal))
                })
                .collect();
            let raiser = {
                let signal = Arc::clone(&signal);
                thread::spawn(move || signal.raise())
            };
            wait(&signal);
            waiters.into_iter().chain([raiser]).for_each(|t| t.join().unwrap());
        });
    }};
}

/// The model of the wake protocol, for one copy of it.
macro_rules! model {
    ($protocol:ident, $producers:expr, $records:expr) => {{
        use loom::sync::Arc;
        use loom::sync::atomic::{AtomicUsize, Ordering};
        use loom::thread;

        struct Sleeper(thread::Thread);
        impl $protocol::Target for Sleeper {
            fn wake(&self) {
                self.0.unpark();
            }
        }

        let mut builder = loom::model::Builder::new();
        // Three involuntary switches of thread: a lost wake-up takes two.
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let bell = Arc::new($protocol::Doorbell::new(Sleeper(thread::current())));
            let tails: Vec<_> = (0..$producers).map(|_| Arc::new(AtomicUsize::new(0))).collect();
            let producers: Vec<_> = tails
                .iter()
                .map(|tail| {
                    let (bell, tail) = (Arc::clone(&bell), Arc::clone(tail));
                    thread::spawn(move || {
                        for n in 1..=$records {
                            tail.store(n, Ordering::Release);
                            bell.ring();
                        }
                    })
                })
                .collect();
            let look = || tails.iter().map(|t| t.load(Ordering::Acquire)).sum::<usize>();
            let mut seen = look();
            while seen < $producers * $records {
                bell.doze();
                let again = look();
                if again == seen {
                    // Parked for ever, if a wake-up was lost: loom reports a deadlock.
                    thread::park();
                }
                bell.rouse();
                seen = look();
            }
            producers.into_iter().for_each(|p| p.join().unwrap());
        });
    }};
}

#[cfg(test)]
mod tests {
    use super::{no_doze_fence, no_ring_fence, raised_late, signal, wake};
    use std::panic::catch_unwind;

    #[test]
    fn one_producer_wakes_the_consumer_each_time() {
        model!(wake, 1, 3);
    }

    #[test]
    fn two_producers_with_a_ring_each_lose_no_wake_up() {
        model!(wake, 2, 2);
    }

    fn says_deadlock(model: impl FnOnce() + std::panic::UnwindSafe) {
        let panic = catch_unwind(model).expect_err("the model doesn't find the lost wake-up");
        let said = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_default();
        assert!(said.contains("deadlock"), "{said}");
    }

    #[test]
    fn without_the_consumers_fence_a_wake_up_is_lost() {
        says_deadlock(|| model!(no_doze_fence, 1, 1));
    }

    #[test]
    fn without_the_producers_fence_a_wake_up_is_lost() {
        says_deadlock(|| model!(no_ring_fence, 1, 1));
    }

    #[test]
    fn who_waits_for_a_signal_is_woken() {
        signal_model!(signal, 1);
    }

    #[test]
    fn two_that_wait_for_a_signal_are_woken() {
        signal_model!(signal, 2);
    }

    #[test]
    fn a_signal_that_is_raised_late_loses_a_wake_up() {
        says_deadlock(|| signal_model!(raised_late, 1));
    }
}
