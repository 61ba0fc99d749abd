//! A hierarchical timer wheel (Varghese and Lauck, 1987): setting and firing a deadline cost the
//! same for ten timers as for a million.
//!
//! Seven levels of 64 slots; a slot of level *n* spans 64ⁿ ticks of about a millisecond. A timer
//! waits in the level where its deadline first differs from the present and moves down as time
//! comes nearer. Timers can't be removed: whoever set one looks, when it fires, whether it still
//! means anything.

const TICK_SHIFT: u32 = 20;
const LEVELS: usize = 7;

#[derive(Clone, Copy)]
struct Timer {
    deadline: u64,
    token: u64,
}

/// Deadlines by time.
pub(super) struct Wheel {
    /// The tick all timers before which have fired.
    tick: u64,
    slots: Vec<Vec<Timer>>,
    /// Which slots of a level hold timers, by bit.
    occupied: [u64; LEVELS],
    len: usize,
}

impl Default for Wheel {
    fn default() -> Self {
        Self { tick: 0, slots: vec![Vec::new(); LEVELS * 64], occupied: [0; LEVELS], len: 0 }
    }
}

/// The first tick at which a deadline has passed.
fn tick_after(deadline_ns: u64) -> u64 {
    (deadline_ns >> TICK_SHIFT) + 1
}

impl Wheel {
    /// Whether no timer is set.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets a timer. It fires within two ticks after `deadline_ns`, never before it.
    pub(super) fn set(&mut self, deadline_ns: u64, token: u64) {
        self.place(Timer { deadline: tick_after(deadline_ns).max(self.tick + 1), token });
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
        std::mem::take(&mut self.slots[level * 64 + slot])
    }

    /// Moves the present to `now_ns` and appends the tokens of the timers that fire to `fired`.
    pub(super) fn advance(&mut self, now_ns: u64, fired: &mut Vec<u64>) {
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
    pub(super) fn pop_earliest(&mut self) -> Option<u64> {
        let (level, slot, _) = self.next_slot()?;
        let at = level * 64 + slot;
        let earliest = self.slots[at].iter().enumerate().min_by_key(|(_, t)| t.deadline)?.0;
        let timer = self.slots[at].swap_remove(earliest);
        if self.slots[at].is_empty() {
            self.occupied[level] &= !(1 << slot);
        }
        self.len -= 1;
        Some(timer.token)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
