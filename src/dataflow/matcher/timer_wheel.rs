//! A hierarchical timer wheel (Varghese and Lauck, 1987): setting and firing a deadline cost the
//! same for ten timers as for a million.
//!
//! Seven levels of 64 slots; a slot of level *n* spans 64ⁿ ticks of about a millisecond. A timer
//! waits in the level where its deadline first differs from the present and moves down as time
//! comes nearer. A single timer can't be removed: whoever set one looks, when it fires, whether it
//! still means anything, and sweeps out ([`Wheel::retain`]) what has come to mean nothing.
//!
//! A slot is a heap: the earliest timer of a slot that holds all of a flood's is found as quickly as
//! that of one which holds two.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

const TICK_SHIFT: u32 = 20;
const LEVELS: usize = 7;
/// The furthest a timer can be set: 137 years.
const HORIZON: u64 = 63 << (6 * (LEVELS - 1));

#[derive(Clone, Copy, PartialEq, Eq)]
struct Timer {
    deadline: u64,
    token: u64,
}

impl Ord for Timer {
    /// The earliest is the greatest, as heaps have it. Of equal deadlines the lower token goes
    /// first, so that which one does depends on nothing else.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.deadline, other.token).cmp(&(self.deadline, self.token))
    }
}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Deadlines by time.
pub(crate) struct Wheel {
    /// The tick all timers before which have fired.
    tick: u64,
    slots: Vec<BinaryHeap<Timer>>,
    /// Which slots of a level hold timers, by bit.
    occupied: [u64; LEVELS],
    len: usize,
}

impl Default for Wheel {
    fn default() -> Self {
        let slots = vec![BinaryHeap::new(); LEVELS * 64];
        Self { tick: 0, slots, occupied: [0; LEVELS], len: 0 }
    }
}

/// The first tick at which a deadline has passed.
fn tick_after(deadline_ns: u64) -> u64 {
    (deadline_ns >> TICK_SHIFT) + 1
}

impl Wheel {
    /// Whether no timer is set.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Timers that are set, those that mean nothing any more among them.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Sets a timer. It fires within two ticks after `deadline_ns`, never before it unless that is further away than the
    /// wheel reaches.
    pub(crate) fn set(&mut self, deadline_ns: u64, token: u64) {
        // Beyond the wheel's last turn a slot can't be told from the present one. Whoever set it looks again then.
        let deadline = tick_after(deadline_ns).clamp(self.tick + 1, self.tick + HORIZON);
        self.place(Timer { deadline, token });
        self.len += 1;
    }

    fn place(&mut self, timer: Timer) {
        let differing = (timer.deadline ^ self.tick) | 1;
        let level = ((63 - differing.leading_zeros()) / 6).min(LEVELS as u32 - 1) as usize;
        let slot = (timer.deadline >> (6 * level)) as usize & 63;
        self.occupied[level] |= 1 << slot;
        self.slots[level * 64 + slot].push(timer);
    }

    /// The lowest level that holds timers, its next slot, and the tick at which that slot begins.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            let shift = 6 * level as u32;
            let here = (self.tick >> shift) as u32 & 63;
            let ahead = self.occupied[level].rotate_right(here).trailing_zeros();
            let slot = ((here + ahead) & 63) as usize;
            let begins = ((self.tick >> shift) + u64::from(ahead)) << shift;
            return Some((level, slot, begins));
        }
        None
    }

    fn take(&mut self, level: usize, slot: usize) -> Vec<Timer> {
        self.occupied[level] &= !(1 << slot);
        std::mem::take(&mut self.slots[level * 64 + slot]).into_vec()
    }

    /// Moves the present to `now_ns` and appends the tokens of the timers that fire to `fired`.
    pub(crate) fn advance(&mut self, now_ns: u64, fired: &mut Vec<u64>) {
        let target = now_ns >> TICK_SHIFT;
        while let Some((level, slot, begins)) = self.next_slot() {
            if begins > target {
                break;
            }
            self.tick = self.tick.max(begins);
            for timer in self.take(level, slot) {
                if timer.deadline <= self.tick {
                    self.len -= 1;
                    fired.push(timer.token);
                } else {
                    self.place(timer);
                }
            }
        }
        self.tick = self.tick.max(target);
    }

    /// Takes a timer out that is among the earliest (within its slot): the one to give up for room.
    pub(crate) fn pop_earliest(&mut self) -> Option<u64> {
        let (level, slot, _) = self.next_slot()?;
        let at = level * 64 + slot;
        let timer = self.slots[at].pop()?;
        if self.slots[at].is_empty() {
            self.occupied[level] &= !(1 << slot);
        }
        self.len -= 1;
        Some(timer.token)
    }

    /// Drops the timers that mean nothing any more.
    pub(crate) fn retain(&mut self, mut means: impl FnMut(u64) -> bool) {
        self.len = 0;
        for (at, timers) in self.slots.iter_mut().enumerate() {
            timers.retain(|timer| means(timer.token));
            self.len += timers.len();
            if timers.is_empty() {
                self.occupied[at / 64] &= !(1 << (at % 64));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Found by the fuzz target `rules`: an event of a time centuries ahead held the shard for ever.
    #[test]
    fn what_lies_beyond_the_wheel_comes_to_an_end() {
        let mut wheel = Wheel::default();
        let mut fired = Vec::new();
        wheel.advance(1_700_000_000_000_000_000, &mut fired);
        wheel.set(17_200_000_007_000_000_000, 1);
        wheel.set(u64::MAX, 2);
        wheel.advance(17_200_000_008_000_000_000, &mut fired);
        assert!(fired.contains(&1), "{fired:?}");
        wheel.set(u64::MAX - (1 << 22), 3);
        wheel.advance(u64::MAX, &mut fired);
        fired.sort_unstable();
        assert_eq!(fired, [1, 2, 3]);
    }

    proptest! {
        #[test]
        fn fires_as_a_sorted_list_would(
            start in 0u64..1 << 50,
            ops in prop::collection::vec((0u64..1 << 44, 0u64..1 << 42), 1..60),
        ) {
            let mut wheel = Wheel::default();
            let mut oracle: Vec<(u64, u64)> = Vec::new();
            let (mut now, mut fired) = (start, Vec::new());
            wheel.advance(now, &mut fired);
            for (token, (delay, step)) in ops.into_iter().enumerate() {
                wheel.set(now + delay, token as u64);
                oracle.push((now + delay, token as u64));
                now += step;
                fired.clear();
                wheel.advance(now, &mut fired);
                for token in &fired {
                    let at = oracle.iter().position(|(_, t)| t == token).unwrap();
                    prop_assert!(oracle.swap_remove(at).0 <= now, "fired early");
                }
                let late = oracle.iter().find(|(d, _)| d + (2 << TICK_SHIFT) <= now);
                prop_assert!(late.is_none(), "{late:?} never fired by {now}");
                prop_assert_eq!(wheel.len, oracle.len());
            }
        }

        #[test]
        fn what_is_swept_out_doesnt_fire(deadlines in prop::collection::vec(0u64..1 << 40, 1..50)) {
            let mut wheel = Wheel::default();
            for (i, d) in deadlines.iter().enumerate() {
                wheel.set(*d, i as u64);
            }
            wheel.retain(|token| token % 3 == 0);
            prop_assert_eq!(wheel.len(), deadlines.len().div_ceil(3));
            let mut fired = Vec::new();
            wheel.advance(1 << 41, &mut fired);
            fired.sort_unstable();
            prop_assert_eq!(fired, (0..deadlines.len() as u64).step_by(3).collect::<Vec<_>>());
            prop_assert!(wheel.is_empty() && wheel.occupied == [0; LEVELS]);
        }

        #[test]
        fn the_earliest_goes_first(deadlines in prop::collection::vec(0u64..1 << 40, 1..50)) {
            let mut wheel = Wheel::default();
            for (i, d) in deadlines.iter().enumerate() {
                wheel.set(*d, i as u64);
            }
            let first = wheel.pop_earliest().unwrap() as usize;
            let min = deadlines.iter().min().unwrap();
            // Deadlines of one slot of a coarse level aren't told apart by level, only by value.
            prop_assert!(tick_after(deadlines[first]) == tick_after(*min));
        }
    }
}
