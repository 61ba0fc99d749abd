//! A position in the journal, in journalctl's notation `s=…;i=…;b=…;m=…;t=…;x=…`
//! (sd_journal_get_cursor(3)), so that `journalctl --after-cursor` continues at this reader's
//! cursor.

use std::fmt;

/// The position of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) seqnum_id: [u8; 16],
    pub(super) seqnum: u64,
    pub(super) boot_id: [u8; 16],
    pub(super) monotonic_us: u64,
    pub(super) realtime_us: u64,
    pub(super) xor_hash: u64,
}

impl Position {
    /// Parses a cursor. Sequence number and time are required; other missing parts are zero.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut position = Self::default();
        let (mut has_sequence, mut has_time) = (false, false);
        for part in text.trim().split(';') {
            let (key, value) = part.split_once('=')?;
            let number = || u64::from_str_radix(value, 16).ok();
            match key {
                "s" => position.seqnum_id = id(value)?,
                "i" => (position.seqnum, has_sequence) = (number()?, true),
                "b" => position.boot_id = id(value)?,
                "m" => position.monotonic_us = number()?,
                "t" => (position.realtime_us, has_time) = (number()?, true),
                "x" => position.xor_hash = number()?,
                // A part of a later journalctl.
                _ => {}
            }
        }
        (has_sequence && has_time).then_some(position)
    }

    /// Checks a saved cursor.
    ///
    /// # Errors
    /// The cause, when it isn't one.
    pub(super) fn check(text: &str) -> Result<(), String> {
        Self::parse(text).map(drop).ok_or_else(|| "not a cursor of the journal".to_owned())
    }

    /// Whether an entry comes after this position: by sequence number if both belong to the same
    /// sequence, otherwise by clock.
    pub(super) fn is_before(&self, entry: &Self) -> bool {
        if self.seqnum_id == entry.seqnum_id {
            entry.seqnum > self.seqnum
        } else if self.boot_id == entry.boot_id {
            entry.monotonic_us > self.monotonic_us
        } else {
            entry.realtime_us > self.realtime_us
        }
    }
}

fn id(hex: &str) -> Option<[u8; 16]> {
    (hex.len() == 32 && hex.is_ascii())
        .then(|| u128::from_str_radix(hex, 16).ok())
        .flatten()
        .map(u128::to_be_bytes)
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = u128::from_be_bytes;
        write!(
            f,
            "s={:032x};i={:x};b={:032x};m={:x};t={:x};x={:x}",
            id(self.seqnum_id),
            self.seqnum,
            id(self.boot_id),
            self.monotonic_us,
            self.realtime_us,
            self.xor_hash
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn journalctl_cursor_is_parsed_and_printed() {
        let text = "s=739ad463348b4ceca5a9e69c95a3c93f;i=4ece7;b=6c7c6013a8a34b5ab7a6f1a2ae5ab8ec;m=4fc72436e;t=4c508a72423d9;x=d3e5610681098c10";
        let position = Position::parse(text).unwrap();
        assert_eq!((position.seqnum, position.realtime_us), (0x4ece7, 0x4c508a72423d9));
        assert_eq!(position.to_string(), text);
        for bad in ["", "s=1;i=2;t=3", "i=2", "i=zz;t=1", "nothing"] {
            assert_eq!(Position::parse(bad), None, "{bad}");
            assert!(Position::check(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn printed_position_parses_to_itself(s in any::<[u8; 16]>(), i in any::<u64>(), t in any::<u64>()) {
            let position = Position { seqnum_id: s, seqnum: i, realtime_us: t, ..Position::default() };
            prop_assert_eq!(Position::parse(&position.to_string()), Some(position));
        }

        #[test]
        fn parsing_any_text_never_panics(text in "\\PC{0,60}|([sibmtx]=[0-9a-f+]{0,40};?){0,6}") {
            let _ = Position::parse(&text);
        }
    }
}
