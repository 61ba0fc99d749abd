//! The keys of attributes with which log records pass as they came.

use std::collections::HashMap;

use tapio_core::ring::AttributeUse;

/// The attributes of a record that passes.
pub(super) const MAX_ATTRIBUTES: usize = 64;

/// The keys of attributes and their use. Records of one origin mostly have the same keys in the
/// same order.
#[derive(Default)]
pub(super) struct Passing {
    /// By position; the texts beyond `ordered` are kept for their memory.
    order: Vec<(String, AttributeUse)>,
    ordered: usize,
    known: HashMap<Box<str>, AttributeUse, ahash::RandomState>,
}

impl Passing {
    /// Forgets all keys.
    pub(super) fn clear(&mut self) {
        self.ordered = 0;
        self.known.clear();
    }

    /// The use of an attribute, by its position; `look_up` finds it by the key.
    #[inline]
    pub(super) fn of(
        &mut self,
        at: usize,
        key: &str,
        look_up: impl FnOnce(&str) -> AttributeUse,
    ) -> AttributeUse {
        match self.order[..self.ordered].get(at) {
            Some((known, usage)) if known == key => *usage,
            _ => self.at_another_place(at, key, look_up),
        }
    }

    fn at_another_place(
        &mut self,
        at: usize,
        key: &str,
        look_up: impl FnOnce(&str) -> AttributeUse,
    ) -> AttributeUse {
        let usage = match self.known.get(key) {
            Some(usage) => *usage,
            None => {
                let usage = look_up(key);
                self.known.insert(key.into(), usage);
                usage
            }
        };
        if usage != AttributeUse::Stops && at < MAX_ATTRIBUTES {
            let ordered = self.ordered.max(at + 1);
            let unset = (String::new(), AttributeUse::Stops);
            self.order.resize(self.order.len().max(ordered), unset);
            self.order[self.ordered..ordered].iter_mut().for_each(|(key, _)| key.clear());
            self.ordered = ordered;
            let (known, known_usage) = &mut self.order[at];
            key.clone_into(known);
            *known_usage = usage;
        }
        usage
    }
}
