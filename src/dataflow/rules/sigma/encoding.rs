//! Sigma's modifiers that encode a value before it is compared: `wide`, `utf16le`, `utf16be`,
//! `utf16`, `base64`, `base64offset` (SigmaHQ, "Sigma Specification", value modifiers). They apply
//! from left to right.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// An encoding of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Two bytes for each UTF-16 unit, the low one first (`wide`, `utf16le`).
    Utf16Le,
    /// The high byte first.
    Utf16Be,
    /// `utf16le` after a byte order mark.
    Utf16,
    /// The whole value in base64.
    Base64,
    /// The value as part of a longer text in base64: three alignments.
    Base64Offset,
}

impl Encoding {
    /// Parses a modifier.
    pub(super) fn parse(modifier: &str) -> Option<Self> {
        Some(match modifier {
            "wide" | "utf16le" => Self::Utf16Le,
            "utf16be" => Self::Utf16Be,
            "utf16" => Self::Utf16,
            "base64" => Self::Base64,
            "base64offset" => Self::Base64Offset,
            _ => return None,
        })
    }

    fn apply(self, value: &[u8]) -> Vec<Vec<u8>> {
        let units = || String::from_utf8_lossy(value).encode_utf16().collect::<Vec<u16>>();
        match self {
            Self::Utf16Le => vec![units().iter().flat_map(|u| u.to_le_bytes()).collect()],
            Self::Utf16Be => vec![units().iter().flat_map(|u| u.to_be_bytes()).collect()],
            Self::Utf16 => {
                let mark = [0xfeff_u16];
                let all = mark.iter().copied().chain(units());
                vec![all.flat_map(u16::to_le_bytes).collect()]
            }
            Self::Base64 => vec![STANDARD.encode(value).into_bytes()],
            Self::Base64Offset => (0..3).map(|shift| aligned(value, shift)).collect(),
        }
    }
}

/// A value in base64 with `shift` other bytes in its first group of three. Digits that depend on
/// the neighbouring bytes are omitted at both ends.
fn aligned(value: &[u8], shift: usize) -> Vec<u8> {
    let mut bytes = vec![0; shift];
    bytes.extend_from_slice(value);
    let mut text = STANDARD_NO_PAD.encode(&bytes).into_bytes();
    // A last group of one or two bytes ends in a digit that also holds bits of the next byte.
    if !bytes.len().is_multiple_of(3) {
        text.pop();
    }
    // Digits that hold bits of the bytes before: two for one byte, three for two.
    text.drain(..[0, 2, 3][shift].min(text.len()));
    text
}

/// All texts that a value can have after these encodings. Bytes that aren't UTF-8 become the
/// characters of the same number (Latin-1).
pub(super) fn spellings(value: &str, encodings: &[Encoding]) -> Vec<String> {
    let mut all = vec![value.as_bytes().to_vec()];
    for encoding in encodings {
        all = all.iter().flat_map(|value| encoding.apply(value)).collect();
    }
    let text = |bytes: Vec<u8>| match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => error.as_bytes().iter().map(|b| char::from(*b)).collect(),
    };
    all.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_found_at_every_base64_offset() {
        let found = spellings("http://", &[Encoding::Base64Offset]);
        // The example of the specification.
        assert_eq!(found, ["aHR0cDovL", "h0dHA6Ly", "odHRwOi8v"]);
        for before in ["", "a", "ab", "abc"] {
            for after in ["", "x", "xy", "xyz"] {
                let whole = STANDARD.encode(format!("{before}http://{after}"));
                assert!(found.iter().any(|f| whole.contains(f)), "{whole}");
            }
        }
    }

    #[test]
    fn encodings_apply_from_left_to_right() {
        assert_eq!(spellings("foobar", &[Encoding::Base64]), ["Zm9vYmFy"]);
        // powershell -EncodedCommand
        assert_eq!(spellings("ping", &[Encoding::Utf16Le, Encoding::Base64]), ["cABpAG4AZwA="]);
        assert_eq!(spellings("a", &[Encoding::Utf16Be]), ["\0a"]);
        assert_eq!(spellings("a", &[Encoding::Utf16]), ["\u{ff}\u{fe}a\0"]);
    }
}
