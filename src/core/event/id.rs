//! 128-bit identifiers: 32 hex digits in text, 16 bytes on the wire.

use std::fmt;
use std::str::FromStr;

use xxhash_rust::xxh3::xxh3_128;

/// Defines an identifier with its text form.
macro_rules! id_type {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(
            Clone,
            Copy,
            PartialEq,
            Eq,
            Hash,
            PartialOrd,
            Ord,
            Default,
            rkyv::Archive,
            rkyv::Serialize,
            rkyv::Deserialize,
        )]
        #[rkyv(derive(PartialEq, Eq, Clone, Copy))]
        pub struct $type(pub [u8; 16]);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }
        impl FromStr for $type {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }
    };
}

id_type! {
    /// Permanent id of an event: the same event read twice has the same id.
    EventId
}

id_type! {
    /// A W3C trace id, or the id of a story, which has the same form.
    TraceId
}

/// A 128-bit hash that is the same in every process and version and on every host: XXH3 with seed 0
/// over the parts, each prefixed with its length so that two lists of parts with the same
/// concatenation differ.
#[must_use]
pub fn stable_hash(parts: &[&[u8]]) -> [u8; 16] {
    // Called for each event of a replayable source: parts of usual length don't allocate. The hash
    // of one slice is faster than one of several.
    match parts.iter().map(|part| part.len() + 8).sum::<usize>() {
        len @ ..=256 => hash_in(&mut [0; 256][..len], parts),
        len @ ..=1024 => hash_in(&mut [0; 1024][..len], parts),
        len => hash_in(&mut vec![0; len], parts),
    }
}

/// The hash of the parts, written into `bytes`, which have their length.
fn hash_in(bytes: &mut [u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut rest = &mut *bytes;
    for part in parts {
        let (length, after) = rest.split_at_mut(8);
        length.copy_from_slice(&(part.len() as u64).to_le_bytes());
        let (content, after) = after.split_at_mut(part.len());
        content.copy_from_slice(part);
        rest = after;
    }
    xxh3_128(bytes).to_be_bytes()
}

impl EventId {
    /// The id of an event that has an id at its source: a JSONL line's `id`, a journal cursor, a
    /// uid with its resourceVersion.
    #[must_use]
    pub fn from_natural(source: &str, natural: &str) -> Self {
        Self(stable_hash(&[b"event", source.as_bytes(), natural.as_bytes()]))
    }

    /// The id of the `sequence`-th event of a source during this boot.
    #[must_use]
    pub fn from_sequence(origin: u64, source: u16, sequence: u64) -> Self {
        // The low half distinguishes two events of one source, the high half two sources.
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(origin ^ (u64::from(source) << 48)).to_be_bytes());
        bytes[8..].copy_from_slice(&sequence.to_be_bytes());
        Self(bytes)
    }

    /// The span of an event within its trace: its id, mixed so that the halves of a sequence number
    /// don't show, and never zero.
    #[must_use]
    pub fn span(self) -> [u8; 8] {
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&self.0[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        // The finaliser of splitmix64.
        let mut x = word(0) ^ word(8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)).max(1).to_be_bytes()
    }
}

impl TraceId {
    /// No trace: W3C forbids the all-zero id, so it represents "none".
    pub const NONE: Self = Self([0; 16]);

    /// Whether this isn't [`TraceId::NONE`].
    #[must_use]
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }

    /// The last eight bytes, which are random also where the first ones are a time.
    #[must_use]
    pub fn low_bits(self) -> u64 {
        let mut bits = [0; 8];
        bits.copy_from_slice(&self.0[8..]);
        u64::from_be_bytes(bits)
    }
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

/// The text isn't 32 hex digits (dashes are allowed, as in a UUID).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} isn't 32 hex digits")]
pub struct ParseIdError(pub String);

fn parse_hex(text: &str) -> Result<[u8; 16], ParseIdError> {
    let error = || ParseIdError(text.chars().take(64).collect());
    let (mut bytes, mut digits) = ([0u8; 16], 0);
    for digit in text.bytes().filter(|b| *b != b'-') {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            b'A'..=b'F' => digit - b'A' + 10,
            _ => return Err(error()),
        };
        let byte = bytes.get_mut(digits / 2).ok_or_else(error)?;
        *byte = *byte << 4 | value;
        digits += 1;
    }
    if digits == 32 { Ok(bytes) } else { Err(error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_parses_as_trace_id() {
        let t: TraceId = "0af76519-16cd-43dd-8448-eb211c80319c".parse().unwrap();
        assert_eq!(t.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert!("0af7".parse::<TraceId>().is_err());
    }

    #[test]
    fn stable_hash_is_stable() {
        // A change here would give every story of every installed node a new trace id. The second
        // case and the third are longer than the smaller and the larger array on the stack.
        for (parts, hash) in [
            ([&b"a"[..], b"b"], "4e8071d3974d16754bcb794c7d699bd6"),
            ([&[7; 300][..], b"b"], "69b6bbe1ec6bd2f86ea19d4973ef7797"),
            ([&[7; 1100][..], b"b"], "a7919a8330e8bd21465783a7de4cade9"),
        ] {
            assert_eq!(TraceId(stable_hash(&parts)).to_string(), hash);
        }
        assert_ne!(stable_hash(&[b"ab", b""]), stable_hash(&[b"a", b"b"]));
    }
}
