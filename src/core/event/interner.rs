//! The process-wide table of names: text to number and back.
//!
//! A process starts with the well-known names; others are added when an event first carries them.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{OnceLock, RwLock};

use super::name::Name;
use super::well_known_names as names;

/// Names that a process can hold. Past it, [`Name::intern`] returns an error instead of growing.
const CAPACITY: usize = 32_768;

/// Names that the senders of one source can add. All sources together leave the rules a fifth.
const MAX_OF_SOURCE: usize = 8_192;

/// A source of names that the program doesn't choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameSource {
    /// Attributes of OTLP.
    Otlp,
    /// Events as JSON lines.
    JsonLines,
    /// Batches of other agents.
    Batches,
}

/// Names that each source has added. Relaxed: changed under the lock of `NUMBERS` only.
static ADDED: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

/// Texts that weren't added for lack of room. Relaxed: nothing is inferred from it.
static NOT_ADDED: AtomicU64 = AtomicU64::new(0);

/// The longest name, in bytes.
const MAX_BYTES: usize = 256;

/// Names of one block of [`TEXTS`].
const BLOCK: usize = 256;

/// A block is allocated with its first name: an `OnceLock` isn't made of zeros, so a table of all
/// of them would take 768 KiB of the program's file.
type Block = OnceLock<Box<[OnceLock<&'static str>]>>;

/// Text of each name by number, but for the well-known ones. A slot is written once, before its
/// number is returned, so a reader that holds a number never waits for a writer.
static TEXTS: [Block; CAPACITY / BLOCK] = [const { OnceLock::new() }; CAPACITY / BLOCK];

/// Numbers by text. Only interning takes the lock; reading a name's text doesn't.
static NUMBERS: OnceLock<RwLock<HashMap<&'static str, u16, ahash::RandomState>>> = OnceLock::new();

/// An error of [`Name::intern`]. Both limits together keep the memory that hostile input can
/// occupy within 8 MiB.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The process holds the maximum number of names.
    #[error("more than {CAPACITY} distinct names: {0:?} can't be added")]
    Exhausted(String),
    /// The source has added the maximum number of names.
    #[error("more than {MAX_OF_SOURCE} distinct names from {1:?}: {0:?} can't be added")]
    SourceExhausted(String, NameSource),
    /// The text is longer than the maximum.
    #[error("a name of {bytes} bytes exceeds the maximum of {MAX_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

fn numbers() -> &'static RwLock<HashMap<&'static str, u16, ahash::RandomState>> {
    NUMBERS.get_or_init(|| {
        let mut map = HashMap::with_capacity_and_hasher(
            names::WELL_KNOWN.len() * 2,
            ahash::RandomState::new(),
        );
        for (i, text) in names::WELL_KNOWN.iter().enumerate() {
            map.insert(*text, i as u16);
        }
        RwLock::new(map)
    })
}

impl Name {
    /// The maximum number of names; every number is below it.
    pub const CAPACITY: usize = CAPACITY;

    /// Returns the name of a text, and adds it on first use.
    ///
    /// # Errors
    /// When the text is longer than 256 bytes, or the process already holds the maximum number of
    /// names: hostile input can't make the table grow.
    pub fn intern(text: &str) -> Result<Self, NameError> {
        Self::add(text, None)
    }

    /// Returns the name of a text from a source, and adds it on first use. Each source has a number
    /// of names of its own: what one's senders do takes nothing from another's, nor from rules.
    ///
    /// # Errors
    /// As [`Name::intern`], and when the source has added its maximum.
    pub fn intern_from(text: &str, source: NameSource) -> Result<Self, NameError> {
        Self::add(text, Some(source))
    }

    /// A name that stands for a text which only its user knows, such as the place in a list; `None`
    /// for a large index. [`Name::text`] is empty.
    #[must_use]
    pub fn local(index: usize) -> Option<Self> {
        u16::try_from(CAPACITY + index).ok().map(Self)
    }

    /// The index of a name that [`Name::local`] has made.
    #[must_use]
    pub fn local_index(self) -> Option<usize> {
        usize::from(self.0).checked_sub(CAPACITY)
    }

    fn add(text: &str, source: Option<NameSource>) -> Result<Self, NameError> {
        if let Some(name) = Self::find(text) {
            return Ok(name);
        }
        if text.len() > MAX_BYTES {
            return Err(NameError::TooLong { bytes: text.len() });
        }
        let mut map = numbers().write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(&number) = map.get(text) {
            return Ok(Self(number));
        }
        let number = map.len();
        if number >= CAPACITY {
            NOT_ADDED.fetch_add(1, Ordering::Relaxed);
            return Err(NameError::Exhausted(text.chars().take(80).collect()));
        }
        if let Some(source) = source {
            let added = &ADDED[source as usize];
            if added.load(Ordering::Relaxed) >= MAX_OF_SOURCE {
                NOT_ADDED.fetch_add(1, Ordering::Relaxed);
                return Err(NameError::SourceExhausted(text.chars().take(80).collect(), source));
            }
            added.fetch_add(1, Ordering::Relaxed);
        }
        let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
        let block = TEXTS[number / BLOCK].get_or_init(|| vec![OnceLock::new(); BLOCK].into());
        let _ = block[number % BLOCK].set(kept);
        map.insert(kept, number as u16);
        Ok(Self(number as u16))
    }

    /// Returns the name with this text, if it was interned.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let map = numbers().read().unwrap_or_else(std::sync::PoisonError::into_inner);
        map.get(text).copied().map(Self)
    }

    /// The name's text.
    #[must_use]
    pub fn text(self) -> &'static str {
        let number = usize::from(self.0);
        if let Some(text) = names::WELL_KNOWN.get(number) {
            return text;
        }
        let block = TEXTS.get(number / BLOCK).and_then(OnceLock::get);
        block.and_then(|block| block[number % BLOCK].get()).copied().unwrap_or("")
    }

    /// How often a name couldn't be added for lack of room, in this process: its field is kept as
    /// text that no rule reads.
    #[must_use]
    pub fn not_added() -> u64 {
        NOT_ADDED.load(Ordering::Relaxed)
    }

    /// Number of names that the process holds.
    #[must_use]
    pub fn count() -> usize {
        numbers().read().unwrap_or_else(std::sync::PoisonError::into_inner).len()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_names_keep_their_numbers() {
        assert_eq!(Name::intern("kernel.process.exec").unwrap(), names::KERNEL_PROCESS_EXEC);
        assert_eq!(names::K8S_POD_UID.text(), "k8s.pod.uid");
    }

    #[test]
    fn well_known_names_are_distinct() {
        // A new name's number is the count of the texts: a duplicate would shift it onto a
        // well-known one.
        let distinct: std::collections::HashSet<_> = names::WELL_KNOWN.iter().collect();
        assert_eq!(distinct.len(), names::WELL_KNOWN.len());
    }

    #[test]
    fn overlong_name_is_rejected() {
        assert!(Name::intern(&"n".repeat(MAX_BYTES)).is_ok());
        assert_eq!(
            Name::intern(&"n".repeat(MAX_BYTES + 1)),
            Err(NameError::TooLong { bytes: MAX_BYTES + 1 })
        );
    }

    #[test]
    fn same_text_gets_same_name() {
        let a = Name::intern("test.some.kind").unwrap();
        assert_eq!(Name::intern("test.some.kind").unwrap(), a);
        assert_eq!(a.text(), "test.some.kind");
        assert_eq!(Name::find("test.never.seen"), None);
    }
}
