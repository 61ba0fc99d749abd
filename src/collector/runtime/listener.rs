//! What outlives a run of a collector.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Something that goes on while a collector is started again, such as a socket that listens: who connects meanwhile waits and
/// isn't sent away, and a run that takes the place of one that hangs finds the address free. Clones share it.
pub(crate) struct Kept<T>(Arc<Mutex<Option<Arc<T>>>>);

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Kept<T> {
    /// What an earlier run opened, if it is still of use; else it is opened.
    ///
    /// # Errors
    /// When it can't be opened; the next run tries again.
    pub(crate) fn or_open(
        &self,
        is_of_use: impl FnOnce(&T) -> bool,
        open: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<Arc<T>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = kept.as_ref().filter(|there| is_of_use(there)) {
            return Ok(Arc::clone(there));
        }
        // What is of no use any more goes first: it may be in the way.
        *kept = None;
        let new = Arc::new(open()?);
        *kept = Some(Arc::clone(&new));
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_opened_once_and_anew_when_it_is_of_no_use() {
        let kept: Kept<u8> = Kept::default();
        assert!(kept.or_open(|_| true, || Err(io::Error::other("not yet"))).is_err());
        assert_eq!(*kept.clone().or_open(|_| true, || Ok(1)).unwrap(), 1);
        assert_eq!(*kept.or_open(|_| true, || Ok(2)).unwrap(), 1);
        assert_eq!(*kept.or_open(|_| false, || Ok(3)).unwrap(), 3);
    }
}
