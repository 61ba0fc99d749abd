//! Sockets that outlive a run of a collector.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// A resource that the runs of a collector share, such as a listening socket. Clients that connect
/// between two runs wait instead of being refused, and a run that replaces a hung one finds the
/// address free. Clones share the slot.
pub(crate) struct ListenerSlot<T>(Arc<Mutex<Option<Arc<T>>>>);

impl<T> Clone for ListenerSlot<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for ListenerSlot<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> ListenerSlot<T> {
    /// Returns the resource of an earlier run if `is_usable`; otherwise opens it.
    ///
    /// # Errors
    /// When it can't be opened; the next run tries again.
    pub(crate) fn get_or_open(
        &self,
        is_usable: impl FnOnce(&T) -> bool,
        open: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<Arc<T>> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = slot.as_ref().filter(|opened| is_usable(opened)) {
            return Ok(Arc::clone(opened));
        }
        // The unusable one is closed first: it may occupy the address.
        *slot = None;
        let opened = Arc::new(open()?);
        *slot = Some(Arc::clone(&opened));
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_opens_once_and_reopens_when_unusable() {
        let slot: ListenerSlot<u8> = ListenerSlot::default();
        assert!(slot.get_or_open(|_| true, || Err(io::Error::other("not yet"))).is_err());
        assert_eq!(*slot.clone().get_or_open(|_| true, || Ok(1)).unwrap(), 1);
        assert_eq!(*slot.get_or_open(|_| true, || Ok(2)).unwrap(), 1);
        assert_eq!(*slot.get_or_open(|_| false, || Ok(3)).unwrap(), 3);
    }
}
