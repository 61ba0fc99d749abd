//! Shutdown and its waiters, in two threads.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use tapio_core::shutdown::Shutdown;

const ROUNDS: u32 = 4_000;
/// So long that a test with a lost wake-up never ends.
const FOREVER: Duration = Duration::from_secs(3600);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Starts `wait` on a thread of its own, round after round, and ends it a bit earlier or later each
/// time.
fn rounds(wait: fn(&Shutdown)) {
    // On a thread without libtest in its stack: tests/sanitize/thread.supp suppresses libtest.
    let rounds = move || {
        for round in 0..ROUNDS {
            let all = Shutdown::default();
            let (run, handle) = all.track_run(FOREVER);
            let waits = thread::spawn(move || wait(&run));
            for _ in 0..(round % 64) * 64 {
                std::hint::spin_loop();
            }
            if round % 2 == 0 {
                all.request();
            } else {
                handle.abandon();
            }
            waits.join().unwrap();
        }
    };
    thread::spawn(rounds).join().unwrap();
}

#[test]
fn shutdown_wakes_sleeping_thread_at_any_time() {
    rounds(|shutdown| {
        while !shutdown.is_requested() {
            shutdown.sleep(FOREVER);
        }
    });
}

#[test]
fn shutdown_wakes_task_at_any_time() {
    rounds(|shutdown| {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut requested = shutdown.requested();
        while Pin::new(&mut requested).poll(&mut Context::from_waker(&waker)).is_pending() {
            thread::park();
        }
    });
}

#[test]
fn shutdown_wakes_all_waiters_while_others_come_and_go() {
    let several = || {
        for _ in 0..ROUNDS / 8 {
            let all = Shutdown::default();
            let start = |goes: bool| {
                let shutdown = all.clone();
                thread::spawn(move || {
                    while !shutdown.is_requested() {
                        shutdown.sleep(if goes { Duration::from_micros(1) } else { FOREVER });
                    }
                })
            };
            let threads: Vec<_> = [true, false, true, false].map(start).into_iter().collect();
            thread::yield_now();
            all.request();
            threads.into_iter().for_each(|t| t.join().unwrap());
        }
    };
    thread::spawn(several).join().unwrap();
}
