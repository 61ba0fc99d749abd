//! The wake protocol (`tapio_core::ring::Doorbell`) and the shutdown signal
//! (`tapio_core::shutdown::Signal`) under every interleaving that loom distinguishes.
//!
//! Shows: no wake-up is lost, so the consumer and every waiting thread always end. Doesn't cover
//! rtrb, which loom can't instrument: a ring is modelled by its tail, written with Release and read
//! with Acquire as rtrb does.
//!
//! `scripts/loom.sh` builds the crate with `--cfg loom` and runs this file. It then removes one
//! fence, or reorders the signal, in a copy of the crate, and expects loom to report a deadlock.

#![cfg(loom)]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use tapio_core::ring::{Doorbell, Target};
use tapio_core::shutdown::Signal;

struct Consumer(thread::Thread);

impl Target for Consumer {
    fn wake(&self) {
        self.0.unpark();
    }
}

/// One consumer; `producers` producers, each with its own ring and `records` records.
fn wake_protocol(producers: usize, records: usize) {
    let mut builder = loom::model::Builder::new();
    // A lost wake-up needs two involuntary thread switches.
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let bell = Arc::new(Doorbell::new(Consumer(thread::current())));
        let tails: Vec<_> = (0..producers).map(|_| Arc::new(AtomicUsize::new(0))).collect();
        let threads: Vec<_> = tails
            .iter()
            .map(|tail| {
                let (bell, tail) = (Arc::clone(&bell), Arc::clone(tail));
                thread::spawn(move || {
                    for n in 1..=records {
                        tail.store(n, Ordering::Release);
                        bell.ring();
                    }
                })
            })
            .collect();
        let published = || tails.iter().map(|t| t.load(Ordering::Acquire)).sum::<usize>();
        let mut read = published();
        while read < producers * records {
            bell.prepare_sleep();
            if published() == read {
                // Parked forever if a wake-up is lost: loom reports a deadlock.
                thread::park();
            }
            bell.cancel_sleep();
            read = published();
        }
        threads.into_iter().for_each(|t| t.join().unwrap());
    });
}

struct Waiter(thread::Thread);

impl std::task::Wake for Waiter {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}

fn wait_for(signal: &Signal) {
    let number = signal.enter(&std::sync::Arc::new(Waiter(thread::current())).into());
    while !signal.is_raised() {
        // Parked forever if a wake-up is lost: loom reports a deadlock.
        thread::park();
    }
    signal.leave(number);
}

/// One thread raises the signal, `waiters` threads wait for it.
fn shutdown_signal(waiters: usize) {
    loom::model(move || {
        let signal = Arc::new(Signal::default());
        let threads: Vec<_> = (1..waiters)
            .map(|_| {
                let signal = Arc::clone(&signal);
                thread::spawn(move || wait_for(&signal))
            })
            .collect();
        let raiser = {
            let signal = Arc::clone(&signal);
            thread::spawn(move || signal.raise())
        };
        wait_for(&signal);
        threads.into_iter().chain([raiser]).for_each(|t| t.join().unwrap());
    });
}

#[test]
fn doorbell_loses_no_wake_up_of_one_producer() {
    wake_protocol(1, 3);
}

#[test]
fn doorbell_loses_no_wake_up_of_two_producers() {
    wake_protocol(2, 2);
}

#[test]
fn signal_wakes_one_waiter() {
    shutdown_signal(1);
}

#[test]
fn signal_wakes_two_waiters() {
    shutdown_signal(2);
}
