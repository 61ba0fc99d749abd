//! Interned names. Kinds, sources and attribute keys are few and repeat in every event, so an
//! event carries a 16-bit number for each and the text is stored once per process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{OnceLock, RwLock};

use super::names;

/// Names a process can hold. Past it, [`Name::intern`] says so instead of growing.
const CAPACITY: usize = 32_768;

/// The longest name, in bytes.
const MAX_BYTES: usize = 256;

/// Text of each name by number. A slot is written once, before its number is handed out, so a
/// reader that holds a number never waits for a writer.
static TEXTS: [OnceLock<&'static str>; CAPACITY] = [const { OnceLock::new() }; CAPACITY];

/// Numbers by text. Only interning takes the lock; reading a name's text doesn't.
static NUMBERS: OnceLock<RwLock<HashMap<&'static str, u16, ahash::RandomState>>> = OnceLock::new();

/// An interned name: a kind, a source, or an entity or attribute key.
///
/// Numbers are stable within a process only; everything that leaves it carries the text.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
pub struct Name(pub u16);

/// Why a name was refused ([`Name::intern`]). Both keep what hostile input can make the process
/// hold within 8 MiB.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameRefused {
    /// The process holds as many names as it can.
    #[error("more than {CAPACITY} distinct names: {0:?} can't be added")]
    Exhausted(String),
    /// Longer than any name.
    #[error("a name of {bytes} bytes: the longest has {MAX_BYTES}")]
    TooLong {
        /// How long.
        bytes: usize,
    },
}

fn numbers() -> &'static RwLock<HashMap<&'static str, u16, ahash::RandomState>> {
    NUMBERS.get_or_init(|| {
        let mut map =
            HashMap::with_capacity_and_hasher(names::KNOWN.len() * 2, ahash::RandomState::new());
        for (i, text) in names::KNOWN.iter().enumerate() {
            let _ = TEXTS[i].set(text);
            map.insert(*text, i as u16);
        }
        RwLock::new(map)
    })
}

impl Name {
    /// Names a process can hold; every number is below it.
    pub const CAPACITY: usize = CAPACITY;

    /// The number of a text, given out on first sight.
    ///
    /// # Errors
    /// When the text is longer than 256 bytes, or the process already holds as many names as it
    /// can: hostile input can't make it grow.
    pub fn intern(text: &str) -> Result<Self, NameRefused> {
        if let Some(name) = Self::find(text) {
            return Ok(name);
        }
        if text.len() > MAX_BYTES {
            return Err(NameRefused::TooLong { bytes: text.len() });
        }
        let mut map = numbers().write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(&number) = map.get(text) {
            return Ok(Self(number));
        }
        let number = map.len();
        if number >= CAPACITY {
            return Err(NameRefused::Exhausted(text.chars().take(80).collect()));
        }
        let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
        let _ = TEXTS[number].set(kept);
        map.insert(kept, number as u16);
        Ok(Self(number as u16))
    }

    /// The name with this text, if any was interned.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let map = numbers().read().unwrap_or_else(std::sync::PoisonError::into_inner);
        map.get(text).copied().map(Self)
    }

    /// The name's text.
    #[must_use]
    pub fn text(self) -> &'static str {
        if let Some(text) = TEXTS.get(self.0 as usize).and_then(OnceLock::get) {
            return text;
        }
        // Only a known name can be used before anything was interned.
        names::KNOWN.get(self.0 as usize).copied().unwrap_or("")
    }

    /// How many names the process holds.
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

impl From<&ArchivedName> for Name {
    fn from(archived: &ArchivedName) -> Self {
        Self(archived.0.to_native())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_keep_their_numbers() {
        assert_eq!(Name::intern("kernel.process.exec").unwrap(), names::KERNEL_PROCESS_EXEC);
        assert_eq!(names::K8S_POD_UID.text(), "k8s.pod.uid");
    }

    #[test]
    fn no_known_name_stands_twice() {
        // A new name's number is the count of the texts: a double would shift it onto a known one.
        let distinct: std::collections::HashSet<_> = names::KNOWN.iter().collect();
        assert_eq!(distinct.len(), names::KNOWN.len());
    }

    #[test]
    fn a_name_is_bounded() {
        assert!(Name::intern(&"n".repeat(MAX_BYTES)).is_ok());
        assert_eq!(
            Name::intern(&"n".repeat(MAX_BYTES + 1)),
            Err(NameRefused::TooLong { bytes: MAX_BYTES + 1 })
        );
    }

    #[test]
    fn a_name_is_given_out_once() {
        let a = Name::intern("test.some.kind").unwrap();
        assert_eq!(Name::intern("test.some.kind").unwrap(), a);
        assert_eq!(a.text(), "test.some.kind");
        assert_eq!(Name::find("test.never.seen"), None);
    }
}
