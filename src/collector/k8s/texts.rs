//! Texts that many objects share (namespaces, nodes, services, workloads) are kept once.

use std::collections::HashSet;
use std::sync::Arc;

/// Texts that are kept; all are forgotten at once when there are more: who holds one holds it on.
const MOST: usize = 32_768;

#[derive(Default)]
pub(super) struct Texts(HashSet<Arc<str>>);

impl Texts {
    pub(super) fn shared(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        if self.0.len() >= MOST {
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
    fn equal_texts_are_one_and_there_is_an_end() {
        let mut texts = Texts::default();
        assert!(Arc::ptr_eq(&texts.shared("shop"), &texts.shared("shop")));
        for n in 0..MOST + 10 {
            texts.shared(&n.to_string());
        }
        assert!(texts.0.len() <= MOST);
    }
}
