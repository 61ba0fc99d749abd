//! The wait of a thread that consumes rings: sleep until a producer rings the bell, without missing
//! a record that was written in between.
//!
//! A thread calls [`attach`] once, then [`wait_until`] whenever its rings are empty. The protocol
//! behind it is in `wake.rs`.

use std::time::Duration;

use super::wake::Bell;
use crate::shutdown::thread_waker;

/// Makes the current thread the one that the bell wakes. A bell has one consumer: a second call
/// has no effect.
pub fn attach(bell: &Bell) {
    let _ = bell.target().set(thread_waker());
}

/// Parks the current thread until a producer rings the bell, `has_work` holds, or `timeout` has
/// passed.
///
/// `has_work` is called once, after the bell was set: it has to check everything that a producer
/// publishes before it rings, which includes that the producer is gone. May return early.
pub fn wait_until(bell: &Bell, timeout: Duration, has_work: impl FnOnce() -> bool) {
    bell.prepare_sleep();
    if !has_work() {
        std::thread::park_timeout(timeout);
    }
    bell.cancel_sleep();
}
