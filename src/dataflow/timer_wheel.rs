//! A hierarchical timer wheel (Varghese and Lauck, 1987): setting and firing a deadline cost the
//! same for ten timers as for a million.
//!
//! Seven levels of 64 slots; a slot of level *n* spans 64ⁿ ticks of about a millisecond. A timer
//! waits in the level where its deadline first differs from the present and moves down as time
//! advances. A single timer can't be removed: its owner checks whether it is still valid when it
//! fires, and sweeps stale ones with [`TimerWheel::retain`].
//!
//! A slot is a heap: finding the earliest timer of a slot that holds a whole flood costs hardly
//! more than in a slot that holds two.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A tick is 2²⁰ ns, about a millisecond.
const TICK_SHIFT: u32 = 20;
const LEVELS: usize = 7;
/// The furthest a timer can be set, in ticks: 137 years.
const HORIZON: u64 = 63 << (6 * (LEVELS - 1));

#[derive(Clone, Copy, PartialEq, Eq)]
struct Timer {
    deadline: u64,
    token: u64,
}

impl Ord for Timer {
    /// The earliest timer is the greatest, since `BinaryHeap` is a max-heap. Of equal deadlines the
    /// lower token goes first, so that the order is deterministic.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.deadline, other.token).cmp(&(self.deadline, self.token))
    }
}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Timers by deadline. A token identifies a timer to its owner.
pub(crate) struct TimerWheel {
    /// All timers before this tick have fired.
    tick: u64,
    slots: Vec<BinaryHeap<Timer>>,
    /// For each level, a bit for each slot that holds timers.
    occupied: [u64; LEVELS],
    len: usize,
}

impl Default for TimerWheel {
    fn default() -> Self {
        let slots = vec![BinaryHeap::new(); LEVELS * 64];
        Self { tick: 0, slots, occupied: [0; LEVELS], len: 0 }
    }
}

/// The first tick at which a deadline has passed.
fn tick_after(deadline_ns: u64) -> u64 {
    (deadline_ns >> TICK_SHIFT) + 1
}

impl TimerWheel {
    /// Whether no timer is set.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of timers set, stale ones included.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Sets a timer. It fires within two ticks after `deadline_ns` and never before it, unless the
    /// deadline is beyond the wheel's horizon.
    pub(crate) fn set(&mut self, deadline_ns: u64, token: u64) {
        // Beyond the horizon a slot can't be distinguished from the present one: the timer fires
        // early and its owner sets it again.
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

    /// The lowest level that holds timers, its next slot, and the tick at which that slot starts.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            let shift = 6 * level as u32;
            let here = (self.tick >> shift) as u32 & 63;
            let ahead = self.occupied[level].rotate_right(here).trailing_zeros();
            let slot = ((here + ahead) & 63) as usize;
            let starts = ((self.tick >> shift) + u64::from(ahead)) << shift;
            return Some((level, slot, starts));
        }
        None
    }

    fn take(&mut self, level: usize, slot: usize) -> Vec<Timer> {
        self.occupied[level] &= !(1 << slot);
        std::mem::take(&mut self.slots[level * 64 + slot]).into_vec()
    }

    /// Advances to `now_ns` and appends the tokens of the timers that fire to `fired`.
    pub(crate) fn advance(&mut self, now_ns: u64, fired: &mut Vec<u64>) {
        let target = now_ns >> TICK_SHIFT;
        while let Some((level, slot, starts)) = self.next_slot() {
            if starts > target {
                break;
            }
            self.tick = self.tick.max(starts);
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

    /// Removes the earliest timer, to within its slot, and returns its token: the candidate for
    /// eviction.
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

    /// Removes the timers whose token isn't valid any more.
    pub(crate) fn retain(&mut self, mut is_valid: impl FnMut(u64) -> bool) {
        self.len = 0;
        for (at, timers) in self.slots.iter_mut().enumerate() {
            timers.retain(|timer| is_valid(timer.token));
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

    /// Found by the fuzz target `rules`: an event with a time centuries ahead blocked the shard
    /// forever.
    #[test]
    fn timer_beyond_horizon_fires() {
        let mut wheel = TimerWheel::default();
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
        fn timers_fire_like_those_of_a_sorted_list(
            start in 0u64..1 << 50,
            ops in prop::collection::vec((0u64..1 << 44, 0u64..1 << 42), 1..60),
        ) {
            let mut wheel = TimerWheel::default();
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
        fn swept_timers_do_not_fire(deadlines in prop::collection::vec(0u64..1 << 40, 1..50)) {
            let mut wheel = TimerWheel::default();
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
        fn earliest_timer_is_popped_first(
            deadlines in prop::collection::vec(0u64..1 << 40, 1..50),
        ) {
            let mut wheel = TimerWheel::default();
            for (i, d) in deadlines.iter().enumerate() {
                wheel.set(*d, i as u64);
            }
            let first = wheel.pop_earliest().unwrap() as usize;
            let min = deadlines.iter().min().unwrap();
            // Deadlines within one slot of a coarse level differ by value only.
            prop_assert!(tick_after(deadlines[first]) == tick_after(*min));
        }
    }
}
