//! A first look at a text: whether it has four (or, of short triggers, three) bytes that a trigger
//! has. Each position is tested by itself, so the processor tests several at a time; the search for
//! the triggers themselves has to wait for each byte.

/// Bits of the table, as a power of two: so few collide that one ordinary line in ten is searched.
const TABLE_BITS: u32 = 17;
/// Words of the table.
const WORDS: usize = 1 << (TABLE_BITS - 6);
/// Positions that are tested before it is looked whether one was found.
const CHUNK: usize = 32;
/// Letters from the most frequent in ordinary text on.
const FREQUENT: &[u8] = b" etaoinsrdlcumpfghbyw";

/// The table.
pub(super) struct Grams(Box<[u64; WORDS]>);

/// The place of four bytes in the table; for three, the last one is a space.
fn place(four: u32) -> usize {
    // The multiplier of Knuth's multiplicative hash.
    (four.wrapping_mul(0x9e37_79b1) >> (32 - TABLE_BITS)) as usize
}

/// Bytes without their case; a few other characters coincide, too.
fn fold(bytes: [u8; 4]) -> u32 {
    u32::from_le_bytes(bytes) | 0x2020_2020
}

/// The three bytes before the last one, which is dropped.
fn first_three(four: u32) -> u32 {
    four << 8 | 0x20
}

/// How rare a text is, by its letters.
fn rarity(text: &[u8]) -> usize {
    let rank = |b: &u8| FREQUENT.iter().position(|f| f == b).unwrap_or(FREQUENT.len() + 4);
    text.iter().map(rank).sum()
}

impl Grams {
    /// The table of these triggers, in lower case, of at least three bytes each.
    pub(super) fn new(triggers: &[String]) -> Self {
        let mut table = Box::new([0u64; WORDS]);
        for trigger in triggers {
            let four = match trigger.as_bytes() {
                &[a, b, c] => first_three(fold([a, b, c, 0])),
                long => {
                    // The rarest four bytes of each are enough.
                    let Some(rarest) = long.windows(4).max_by_key(|four| rarity(four)) else {
                        // Shorter than three bytes: every text may have it.
                        return Self(Box::new([u64::MAX; WORDS]));
                    };
                    fold([rarest[0], rarest[1], rarest[2], rarest[3]])
                }
            };
            let at = place(four);
            table[at >> 6 & (WORDS - 1)] |= 1 << (at & 63);
        }
        Self(table)
    }

    /// 1 in the lowest bit where these bytes may belong to a trigger.
    fn test(&self, bytes: [u8; 4]) -> u64 {
        let four = fold(bytes);
        let bit = |at: usize| self.0[at >> 6 & (WORDS - 1)] >> (at & 63);
        bit(place(four)) | bit(place(first_three(four)))
    }

    /// Whether a text may have a trigger.
    pub(super) fn may_be_in(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        if let [.., a, b, c] = *bytes {
            // The last three bytes have no fourth one.
            if self.test([a, b, c, 0]) & 1 == 1 {
                return true;
            }
        }
        let positions = bytes.len().saturating_sub(3);
        (0..positions).step_by(CHUNK).any(|from| {
            let chunk = &bytes[from..(from + CHUNK + 3).min(bytes.len())];
            let found =
                chunk.windows(4).fold(0, |found, w| found | self.test([w[0], w[1], w[2], w[3]]));
            found & 1 == 1
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
            prop_assert!(grams.may_be_in(&text));
        }
    }

    #[test]
    fn most_text_is_passed() {
        let grams =
            Grams::new(&["://", "password", "sk-", "?key=", "api_key", "eyj"].map(String::from));
        for text in ["", "a", "ab", "abc", "order 7 shipped to customer 12, 3 items, total 99"] {
            assert!(!grams.may_be_in(text), "{text}");
        }
    }
}
