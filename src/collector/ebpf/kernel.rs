//! The kernel's side as user space sees it: configuring the programs, reading the ring buffer,
//! sleeping on it, and reading back what was lost.

use std::os::fd::AsFd;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use aya::maps::{MapError, RingBuf};

use super::kinds::Kind;
use super::loader::Maps;
use super::raw::{CONTROL_GENERATION, CONTROL_SLEEP, ConfigWords, KIND_CGROUP, KINDS, OUTCOMES};
use super::syscalls::ErrorKey;
use crate::runtime::alarm::Alarm;
use tapio_core::event::Reason;

/// What became of the records of one kind since the last reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    /// `None` for control records, which are no events.
    pub(super) kind: Option<Kind>,
    pub(super) reason: Reason,
    pub(super) count: u64,
}

/// The reason of each outcome behind `OUT_EMITTED`.
const REASONS: [Reason; OUTCOMES - 1] =
    [Reason::KernelRingFull, Reason::KernelThrottled, Reason::KernelMapFull];

pub(super) struct Kernel {
    maps: Maps,
    seen: [[u64; OUTCOMES]; KINDS],
    generation: u32,
}

impl Kernel {
    pub(super) fn new(maps: Maps) -> Self {
        Self { maps, seen: [[0; OUTCOMES]; KINDS], generation: 0 }
    }

    /// Writes the configuration; with no kinds in it the programs are inert.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn configure(&mut self, words: ConfigWords) -> Result<(), MapError> {
        self.maps.config.set(0, words, 0)
    }

    /// Hands at most `limit` records to `read`. Returns how many there were.
    pub(super) fn drain(&mut self, limit: usize, mut read: impl FnMut(&[u8])) -> usize {
        let events: &mut RingBuf<_> = &mut self.maps.events;
        for n in 0..limit {
            match events.next() {
                Some(record) => read(&record),
                None => return n,
            }
        }
        limit
    }

    /// Sleeps until a program has something to say or the collector is to end, at most `timeout`.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn sleep(&mut self, alarm: &Alarm, timeout: Duration) -> Result<(), MapError> {
        self.maps.control.set(CONTROL_SLEEP, 1, 0)?;
        // Pairs with the full barrier in `publish` (ebpf/maps.h): poll looks at the producer's
        // position after this, level-triggered, so it is the second look.
        fence(Ordering::SeqCst);
        // Woken, timed out, interrupted: in every case the next thing is to look.
        alarm.wait([self.maps.events.as_fd()], timeout);
        self.maps.control.set(CONTROL_SLEEP, 0, 0)
    }

    fn sums(&self, kind: usize) -> Result<[u64; OUTCOMES], MapError> {
        let per_cpu = self.maps.counters.get(&(kind as u32), 0)?;
        let mut sums = [0; OUTCOMES];
        for cpu in per_cpu.iter() {
            for (sum, n) in sums.iter_mut().zip(cpu) {
                *sum += n;
            }
        }
        Ok(sums)
    }

    /// What was lost since the last call.
    ///
    /// # Errors
    /// What the kernel says; the losses then come with the next call.
    pub(super) fn losses(&mut self, mut tell: impl FnMut(Loss)) -> Result<(), MapError> {
        for kind in 0..KINDS {
            let sums = self.sums(kind)?;
            let before = std::mem::replace(&mut self.seen[kind], sums);
            for (i, reason) in REASONS.into_iter().enumerate() {
                let count = sums[i + 1].wrapping_sub(before[i + 1]);
                if count > 0 {
                    let kind = (kind != usize::from(KIND_CGROUP))
                        .then(|| Kind::from_number(kind as u16))
                        .flatten();
                    tell(Loss { kind, reason, count });
                }
            }
        }
        Ok(())
    }

    /// Records emitted so far, as the last [`Kernel::losses`] read them, control records included.
    pub(super) fn emitted(&self) -> impl Iterator<Item = (Option<Kind>, u64)> {
        self.seen.iter().enumerate().map(|(kind, sums)| (Kind::from_number(kind as u16), sums[0]))
    }

    /// Lets the programs count failed system calls in the other generation.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn turn_error_counts(&mut self) -> Result<(), MapError> {
        self.generation = 1 - self.generation;
        self.maps.control.set(CONTROL_GENERATION, self.generation, 0)
    }

    /// Reads and empties the generation that [`Kernel::turn_error_counts`] left, which must be long
    /// enough ago that no program is in the middle of adding to it; both generations when the
    /// programs are inert (`all`).
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn take_error_counts(
        &mut self,
        all: bool,
        mut tell: impl FnMut(ErrorKey, u64),
    ) -> Result<(), MapError> {
        let keys: Vec<[u64; 2]> = self
            .maps
            .errors
            .keys()
            .filter_map(Result::ok)
            .filter(|key| all || u32::from(ErrorKey(*key).generation()) != self.generation)
            .collect();
        for key in keys {
            let count = match self.maps.errors.get(&key, 0) {
                Ok(per_cpu) => per_cpu.iter().sum(),
                // Walking a table that others write to may come by a key twice.
                Err(MapError::KeyNotFound) => continue,
                Err(e) => return Err(e),
            };
            self.maps.errors.remove(&key)?;
            tell(ErrorKey(key), count);
        }
        Ok(())
    }
}
