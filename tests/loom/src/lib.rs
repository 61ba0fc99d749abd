//! The wake protocol of `src/ring/wake.rs` under every interleaving that loom can tell apart: one
//! consumer, two producers, a ring of its own for each, as a shard has them.
//!
//! Shows: no wake-up is lost, so the consumer always ends. Does not show: anything about rtrb,
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

/// The model, for one copy of the protocol.
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
    use super::{no_doze_fence, no_ring_fence, wake};
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
}
