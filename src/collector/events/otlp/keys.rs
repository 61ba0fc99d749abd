//! The meaning of the keys of attributes: looked up once for each key, not once for each record.

use std::collections::HashMap;

use tapio_core::event::{Name, NameError, NameSource, names};

/// Keys that are kept. Senders use a few hundred; beyond this number all are forgotten.
const MAX_KEYS: usize = 4096;

/// The meaning of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// An entity key.
    Entity(Name),
    /// Any other name.
    Attribute(Name),
    /// Longer than a name can be.
    TooLong,
    /// The table of names has no room for it.
    Unnamed,
}

impl Key {
    /// The name of an attribute.
    pub(super) fn name(self) -> Option<Name> {
        match self {
            Self::Attribute(name) => Some(name),
            Self::Entity(_) | Self::TooLong | Self::Unnamed => None,
        }
    }
}

/// The keys that were looked up.
#[derive(Default)]
pub(super) struct Keys(HashMap<Box<str>, Key, ahash::RandomState>);

impl Keys {
    /// The meaning of a key.
    pub(super) fn of(&mut self, text: &str) -> Key {
        if let Some(key) = self.0.get(text) {
            return *key;
        }
        let key = look_up(text);
        // There may be room for it later.
        if !matches!(key, Key::TooLong | Key::Unnamed) {
            if self.0.len() >= MAX_KEYS {
                self.0.clear();
            }
            self.0.insert(text.into(), key);
        }
        key
    }
}

fn look_up(text: &str) -> Key {
    let canonical = names::canonical(text);
    if let Some(entity) = names::ENTITY_KEYS.iter().find(|entity| entity.text() == canonical) {
        return Key::Entity(*entity);
    }
    match Name::intern_from(text, NameSource::Otlp) {
        Ok(name) => Key::Attribute(name),
        Err(NameError::TooLong { .. }) => Key::TooLong,
        Err(_) => Key::Unnamed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_entities_attributes_or_too_long() {
        let mut keys = Keys::default();
        for _ in 0..2 {
            assert_eq!(keys.of("k8s.pod.uid"), Key::Entity(names::K8S_POD_UID));
            assert_eq!(keys.of("node"), Key::Entity(names::HOST_NAME));
            assert_eq!(keys.of("exception.type"), Key::Attribute(names::EXCEPTION_TYPE));
            assert_eq!(keys.of(&"k".repeat(300)), Key::TooLong);
        }
        assert_eq!(keys.0.len(), 3);
        for n in 0..MAX_KEYS {
            keys.of(&format!("test.key.{n}"));
        }
        assert!(keys.0.len() <= MAX_KEYS);
        assert_eq!(keys.of("k8s.pod.uid"), Key::Entity(names::K8S_POD_UID));
    }
}
