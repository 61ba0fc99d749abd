//! The keys of attributes with which log records pass as they came.

use std::collections::HashMap;

/// The attributes of a record that passes.
pub(super) const MAX_ATTRIBUTES: usize = 64;

/// The keys of attributes with which records pass. Records of one origin mostly have the same keys
/// in the same order.
#[derive(Default)]
pub(super) struct Passing {
    /// By position; the texts beyond `ordered` are kept for their memory.
    order: Vec<String>,
    ordered: usize,
    known: HashMap<Box<str>, bool, ahash::RandomState>,
}

impl Passing {
    /// Forgets all keys.
    pub(super) fn clear(&mut self) {
        self.ordered = 0;
        self.known.clear();
    }

    /// Whether an attribute, by its position, lets a record pass; `look_up` decides by the key.
    #[inline]
    pub(super) fn agrees(
        &mut self,
        at: usize,
        key: &str,
        look_up: impl FnOnce(&str) -> bool,
    ) -> bool {
        if self.order[..self.ordered].get(at).is_some_and(|known| known == key) {
            return true;
        }
        let agrees = match self.known.get(key) {
            Some(agrees) => *agrees,
            None => {
                let agrees = look_up(key);
                self.known.insert(key.into(), agrees);
                agrees
            }
        };
        if agrees && at < MAX_ATTRIBUTES {
            let ordered = self.ordered.max(at + 1);
            self.order.resize(self.order.len().max(ordered), String::new());
            self.order[self.ordered..ordered].iter_mut().for_each(String::clear);
            self.ordered = ordered;
            key.clone_into(&mut self.order[at]);
        }
        agrees
    }
}
