//! A dense set of numbers from 0 on.

use std::ops::Range;

/// A set of numbers, a bit each. It takes as much memory as its largest number asks for, so
/// callers bound what they insert.
#[derive(Clone, Debug, Default)]
pub(super) struct Bitmap {
    words: Vec<u64>,
}

impl Bitmap {
    /// Inserts a number. Returns whether it is new.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = place(number);
        if word >= self.words.len() {
            // Doubled, so that a run of numbers doesn't move the words each time.
            self.words.resize((word + 1).next_power_of_two(), 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        is_new
    }

    /// How many numbers of the range are in the set.
    pub(super) fn count_in(&self, range: Range<u64>) -> u64 {
        let (mut at, mut count) = (range.start, 0);
        while at < range.end {
            let Some(word) = self.words.get(place(at).0) else { break };
            // The part of the word that is in the range.
            let bits = (range.end - at).min(64 - at % 64);
            let mask = (u64::MAX >> (64 - bits)) << (at % 64);
            count += u64::from((word & mask).count_ones());
            at += bits;
        }
        count
    }
}

fn place(number: u64) -> (usize, u64) {
    ((number / 64) as usize, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn bitmap_agrees_with_a_set() {
        let (mut bitmap, mut set) = (Bitmap::default(), BTreeSet::new());
        let mut number = 1u64;
        for _ in 0..3_000 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let n = number >> 51;
            assert_eq!(bitmap.insert(n), set.insert(n), "{n}");
        }
        let bounds = [0, 1, 63, 64, 65, 127, 128, 500, 4_095, 8_191, 8_192, 20_000];
        for start in bounds {
            for end in bounds.into_iter().filter(|end| *end >= start) {
                let expected = set.range(start..end).count() as u64;
                assert_eq!(bitmap.count_in(start..end), expected, "{start}..{end}");
            }
        }
    }
}
