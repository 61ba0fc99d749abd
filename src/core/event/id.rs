//! 128-bit identifiers: 32 hex digits in text, 16 bytes on the wire.

use std::fmt;
use std::str::FromStr;

use xxhash_rust::xxh3::xxh3_128;

/// Identifies one event for ever: the same event read twice has the same id.
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
pub struct EventId(pub [u8; 16]);

/// A W3C trace id, or the id of a story, which is of the same form.
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
pub struct TraceId(pub [u8; 16]);

/// A 128-bit hash that is the same in every process, version and machine: XXH3 with seed 0 over
/// the parts, each behind its length so that no two lists of parts collide by concatenation.
#[must_use]
pub fn stable_hash(parts: &[&[u8]]) -> [u8; 16] {
    // Called for each event of a replayable source: an id of usual length allocates nothing.
    let len = parts.iter().map(|p| p.len() + 8).sum();
    let mut short = [0; 256];
    let mut long = Vec::new();
    let bytes = match short.get_mut(..len) {
        Some(short) => short,
        None => {
            long.resize(len, 0);
            &mut long[..]
        }
    };
    let mut rest = &mut *bytes;
    for part in parts {
        let (length, behind) = rest.split_at_mut(8);
        length.copy_from_slice(&(part.len() as u64).to_le_bytes());
        let (text, behind) = behind.split_at_mut(part.len());
        text.copy_from_slice(part);
        rest = behind;
    }
    xxh3_128(bytes).to_be_bytes()
}

impl EventId {
    /// The id of an event that its source names: a JSONL line's `id`, a journal cursor, a uid with
    /// its resourceVersion.
    #[must_use]
    pub fn from_natural(source: &str, natural: &str) -> Self {
        Self(stable_hash(&[b"event", source.as_bytes(), natural.as_bytes()]))
    }

    /// The id of the `sequence`-th event that a source of this boot produced.
    #[must_use]
    pub fn from_sequence(origin: u64, source: u16, sequence: u64) -> Self {
        // The low half alone tells two events of one source apart; the high half two sources.
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(origin ^ (u64::from(source) << 48)).to_be_bytes());
        bytes[8..].copy_from_slice(&sequence.to_be_bytes());
        Self(bytes)
    }
}

impl TraceId {
    /// No trace: W3C forbids the all-zero id, so it stands for "none".
    pub const NONE: Self = Self([0; 16]);

    /// Whether this is a trace at all.
    #[must_use]
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

/// Text that isn't 32 hex digits (dashes allowed, as in a UUID).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} isn't 32 hex digits")]
pub struct NotHex(pub String);

fn parse_hex(text: &str) -> Result<[u8; 16], NotHex> {
    let bad = || NotHex(text.chars().take(64).collect());
    let (mut bytes, mut digits) = ([0u8; 16], 0);
    for digit in text.bytes().filter(|b| *b != b'-') {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            b'A'..=b'F' => digit - b'A' + 10,
            _ => return Err(bad()),
        };
        let byte = bytes.get_mut(digits / 2).ok_or_else(bad)?;
        *byte = *byte << 4 | value;
        digits += 1;
    }
    if digits == 32 { Ok(bytes) } else { Err(bad()) }
}

macro_rules! hex_text {
    ($type:ident) => {
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
            type Err = NotHex;
            fn from_str(text: &str) -> Result<Self, NotHex> {
                parse_hex(text).map(Self)
            }
        }
    };
}
hex_text!(EventId);
hex_text!(TraceId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_a_trace_id() {
        let t: TraceId = "0af76519-16cd-43dd-8448-eb211c80319c".parse().unwrap();
        assert_eq!(t.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert!("0af7".parse::<TraceId>().is_err());
    }

    #[test]
    fn the_stable_hash_never_changes() {
        // A change here would give every story of every installed node a new trace id.
        // Longer than the array that holds usual lengths, too.
        for (parts, hash) in [
            ([&b"a"[..], b"b"], "4e8071d3974d16754bcb794c7d699bd6"),
            ([&[7; 300][..], b"b"], "69b6bbe1ec6bd2f86ea19d4973ef7797"),
        ] {
            assert_eq!(TraceId(stable_hash(&parts)).to_string(), hash);
        }
        assert_ne!(stable_hash(&[b"ab", b""]), stable_hash(&[b"a", b"b"]));
    }
}
