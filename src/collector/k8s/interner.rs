//! Shares equal texts (namespaces, nodes, services, workloads) between objects.

use std::collections::HashSet;
use std::sync::Arc;

/// Most texts in the table. When it is full, all are removed at once; holders keep their reference.
const MAX_TEXTS: usize = 32_768;

#[derive(Default)]
pub(super) struct Interner(HashSet<Arc<str>>);

impl Interner {
    pub(super) fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(existing) = self.0.get(text) {
            return Arc::clone(existing);
        }
        if self.0.len() >= MAX_TEXTS {
            self.0.clear();
        }
        let new: Arc<str> = text.into();
        self.0.insert(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_shared_and_table_is_bounded() {
        let mut interner = Interner::default();
        assert!(Arc::ptr_eq(&interner.intern("shop"), &interner.intern("shop")));
        for n in 0..MAX_TEXTS + 10 {
            interner.intern(&n.to_string());
        }
        assert!(interner.0.len() <= MAX_TEXTS);
    }
}
