//! The maps of the programs: writes their configuration, reads the ring buffer, waits on it, and
//! reads the counters of losses and of failed system calls.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use aya::maps::MapError;

use super::kinds::Kind;
use super::loader::Maps;
use super::raw::{CONTROL_GENERATION, CONTROL_SLEEP, ConfigWords, KIND_CGROUP, KINDS, OUTCOMES};
use super::syscalls::ErrorKey;
use crate::runtime::alarm::Alarm;
use tapio_core::event::Reason;

/// Records of one kind lost for one reason since the last reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    /// `None` for control records, which aren't events.
    pub(super) kind: Option<Kind>,
    pub(super) reason: Reason,
    pub(super) count: u64,
}

/// The reasons of the outcomes that follow `OUT_EMITTED`, in order.
const REASONS: [Reason; OUTCOMES - 1] =
    [Reason::KernelRingFull, Reason::KernelThrottled, Reason::KernelMapFull];

/// The open maps, and the counters as read last.
pub(super) struct Kernel {
    maps: Maps,
    counters: [[u64; OUTCOMES]; KINDS],
    /// The generation of error counts in which the programs count now.
    generation: u32,
}

impl Kernel {
    pub(super) fn new(maps: Maps) -> Self {
        Self { maps, counters: [[0; OUTCOMES]; KINDS], generation: 0 }
    }

    /// Writes the configuration. Without kinds in it the programs return at once.
    ///
    /// # Errors
    /// If the map can't be written.
    pub(super) fn configure(&mut self, words: ConfigWords) -> Result<(), MapError> {
        self.maps.config.set(0, words, 0)
    }

    /// Passes at most `limit` records to `read`. Returns their number.
    ///
    /// # Errors
    /// If the ring buffer can't be read.
    pub(super) fn drain(&mut self, limit: usize, read: impl FnMut(&[u8])) -> io::Result<usize> {
        self.maps.events.drain(limit, read)
    }

    /// Waits until a program writes a record or a shutdown is requested, at most `timeout`.
    ///
    /// # Errors
    /// If the map of control words can't be written.
    pub(super) fn sleep(&mut self, alarm: &Alarm, timeout: Duration) -> Result<(), MapError> {
        self.maps.control.set(CONTROL_SLEEP, 1, 0)?;
        // Pairs with the full barrier in `publish` (ebpf/maps.h): poll is level-triggered and reads
        // the producer's position after this fence, so a record written in between wakes it.
        fence(Ordering::SeqCst);
        // Woken, timed out or interrupted: the caller reads the ring buffer next in every case.
        alarm.wait([self.maps.events.as_fd()], timeout);
        self.maps.control.set(CONTROL_SLEEP, 0, 0)
    }

    /// The counters of one kind, summed over the CPUs.
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

    /// Passes the losses since the last call to `report`.
    ///
    /// # Errors
    /// If a counter can't be read; the next call then reports its losses.
    pub(super) fn losses(&mut self, mut report: impl FnMut(Loss)) -> Result<(), MapError> {
        for kind in 0..KINDS {
            let sums = self.sums(kind)?;
            let before = std::mem::replace(&mut self.counters[kind], sums);
            for (i, reason) in REASONS.into_iter().enumerate() {
                let count = sums[i + 1].wrapping_sub(before[i + 1]);
                if count > 0 {
                    let kind = (kind != usize::from(KIND_CGROUP))
                        .then(|| Kind::from_number(kind as u16))
                        .flatten();
                    report(Loss { kind, reason, count });
                }
            }
        }
        Ok(())
    }

    /// Records emitted so far by kind, control records included, as of the last
    /// [`Kernel::losses`].
    pub(super) fn emitted(&self) -> impl Iterator<Item = (Option<Kind>, u64)> {
        let emitted =
            |(kind, sums): (usize, &[u64; OUTCOMES])| (Kind::from_number(kind as u16), sums[0]);
        self.counters.iter().enumerate().map(emitted)
    }

    /// Makes the programs count failed system calls in the other generation.
    ///
    /// # Errors
    /// If the map of control words can't be written.
    pub(super) fn switch_error_generation(&mut self) -> Result<(), MapError> {
        self.generation = 1 - self.generation;
        self.maps.control.set(CONTROL_GENERATION, self.generation, 0)
    }

    /// Reads and empties the generation that ended with [`Kernel::switch_error_generation`]. The
    /// switch must be long enough ago that no program still adds to that generation. `all`: both
    /// generations, for when the programs are disabled.
    ///
    /// # Errors
    /// If an entry can't be read or removed.
    pub(super) fn take_error_counts(
        &mut self,
        all: bool,
        mut report: impl FnMut(ErrorKey, u64),
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
                // Iterating over a map that programs write to may return a key twice.
                Err(MapError::KeyNotFound) => continue,
                Err(e) => return Err(e),
            };
            self.maps.errors.remove(&key)?;
            report(ErrorKey(key), count);
        }
        Ok(())
    }
}
