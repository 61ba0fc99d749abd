//! A first look at a text for many others, here called triggers: whether it has three bytes that a
//! trigger has, and then the one that follows. Each position is tested by itself, so the processor
//! tests several at a time; the search for the triggers themselves has to wait for each byte.

/// Bits of a table, as a power of two: few texts collide.
const TABLE_BITS: u32 = 15;
/// Words of a table.
const WORDS: usize = 1 << (TABLE_BITS - 6);
/// Positions that are tested before it is looked whether one was found.
const CHUNK: usize = 16;
/// Letters from the most frequent in ordinary text on.
const FREQUENT: &[u8] = b" etaoinsrdlcumpfghbyw";

type Table = [u64; WORDS];

/// The tables of some triggers.
#[derive(Debug)]
pub struct Grams {
    /// Three bytes of each.
    threes: Box<Table>,
    /// The same with the byte that follows them, where the trigger has it.
    fours: Box<Table>,
    /// Three bytes of those that have no fourth.
    short: Box<Table>,
}

/// The place of some bytes in a table.
#[inline]
fn place(bytes: u32) -> (usize, u32) {
    // The multiplier of Knuth's multiplicative hash.
    let at = bytes.wrapping_mul(0x9e37_79b1) >> (32 - TABLE_BITS);
    (at as usize >> 6, at & 63)
}

#[inline]
fn has(table: &Table, bytes: u32) -> bool {
    let (word, bit) = place(bytes);
    table[word & (WORDS - 1)] >> bit & 1 == 1
}

fn add(table: &mut Table, bytes: u32) {
    let (word, bit) = place(bytes);
    table[word & (WORDS - 1)] |= 1 << bit;
}

/// Bytes without their case; a few other characters coincide, too.
#[inline]
fn fold(bytes: [u8; 4]) -> u32 {
    u32::from_le_bytes(bytes) | 0x2020_2020
}

/// The first three of four bytes.
#[inline]
fn first_three(four: u32) -> u32 {
    four & 0x00ff_ffff
}

/// How rare a text is, by its letters.
fn rarity(text: &[u8]) -> usize {
    let rank = |b: &u8| FREQUENT.iter().position(|f| f == b).unwrap_or(FREQUENT.len() + 4);
    text.iter().map(rank).sum()
}

impl Grams {
    /// The tables of these triggers, in lower case. One of less than three bytes may be in every
    /// text.
    #[must_use]
    pub fn new(triggers: &[String]) -> Self {
        let empty = || Box::new([0u64; WORDS]);
        let (mut threes, mut fours, mut short) = (empty(), empty(), empty());
        for trigger in triggers {
            let bytes = trigger.as_bytes();
            let Some(rarest) = bytes.windows(3).max_by_key(|three| rarity(three)) else {
                let full = || Box::new([u64::MAX; WORDS]);
                return Self { threes: full(), fours: full(), short: full() };
            };
            let three = fold([rarest[0], rarest[1], rarest[2], 0]);
            add(&mut threes, first_three(three));
            // The byte behind them, wherever they are.
            for four in bytes.windows(4).filter(|four| four.starts_with(rarest)) {
                add(&mut fours, fold([four[0], four[1], four[2], four[3]]));
            }
            if bytes.ends_with(rarest) {
                add(&mut short, first_three(three));
            }
        }
        Self { threes, fours, short }
    }

    /// Whether these bytes may belong to a trigger, of which the last byte may be missing.
    #[inline]
    fn test(&self, bytes: [u8; 4]) -> bool {
        has(&self.fours, fold(bytes)) || has(&self.short, first_three(fold(bytes)))
    }

    /// Whether a text may have a trigger, in upper or lower case. It needn't be UTF-8.
    #[must_use]
    pub fn may_be_in(&self, bytes: &[u8]) -> bool {
        let [.., a, b, c] = *bytes else { return false };
        // The last three bytes have no fourth one.
        if has(&self.short, first_three(fold([a, b, c, 0]))) {
            return true;
        }
        let three = |w: &[u8; 4]| first_three(fold(*w));
        let positions = bytes.len() - 3;
        (0..positions).step_by(CHUNK).any(|from| {
            let chunk = &bytes[from..(from + CHUNK + 3).min(bytes.len())];
            let fours = || chunk.windows(4).filter_map(|four| four.first_chunk::<4>());
            let found = fours().fold(false, |found, four| found | has(&self.threes, three(four)));
            found && fours().any(|four| has(&self.threes, three(four)) && self.test(*four))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_trigger_is_missed(
            before in ".{0,70}", after in ".{0,40}", upper in any::<bool>(),
            trigger in prop::sample::select(vec!["://", "password", "sk-", "?key=", "api_key", "eyj"]),
        ) {
            let grams = Grams::new(&["://", "password", "sk-", "?key=", "api_key", "eyj"].map(String::from));
            let trigger = if upper { trigger.to_uppercase() } else { trigger.to_owned() };
            let text = format!("{before}{trigger}{after}");
            prop_assert!(grams.may_be_in(text.as_bytes()));
        }
    }

    #[test]
    fn most_text_is_passed() {
        let grams =
            Grams::new(&["://", "password", "sk-", "?key=", "api_key", "eyj"].map(String::from));
        for text in ["", "a", "ab", "abc", "order 7 shipped to customer 12, 3 items, total 99"] {
            assert!(!grams.may_be_in(text.as_bytes()), "{text}");
        }
    }
}
