//! Starts the threads that keep capabilities.

use std::io;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::{Builder, JoinHandle};

use rustix::thread::CapabilitySet;

use super::capabilities::limit;

/// Starts a thread, and sends its handle back.
struct Request {
    name: String,
    body: Box<dyn FnOnce() + Send>,
    started: mpsc::SyncSender<io::Result<JoinHandle<()>>>,
}

/// A thread that does nothing but start threads with capabilities. A thread inherits those of the
/// one that starts it, so without this one the first thread would have to keep them, and with it
/// all that it starts.
#[derive(Debug)]
pub struct PrivilegedThreads {
    requests: Mutex<mpsc::SyncSender<Request>>,
}

impl PrivilegedThreads {
    /// Starts the thread. It permits itself these capabilities and uses none; what it starts begins
    /// with the same. It isn't confined by a landlock domain of which the calling thread becomes
    /// part later. It ends when this value is dropped.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn start(permitted: CapabilitySet) -> io::Result<Self> {
        let (requests, received) = mpsc::sync_channel::<Request>(1);
        let (limited, outcome) = mpsc::sync_channel(1);
        Builder::new().name("privileged".into()).spawn(move || {
            let _ = limited.send(limit(permitted, CapabilitySet::empty()));
            for Request { name, body, started } in received {
                // The caller waits for the handle.
                let _ = started.send(Builder::new().name(name).spawn(body));
            }
        })?;
        outcome.recv().map_err(io::Error::other)??;
        Ok(Self { requests: Mutex::new(requests) })
    }

    /// Starts a thread that may raise the permitted capabilities; at its begin none are effective.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn spawn(
        &self,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let (started, handle) = mpsc::sync_channel(1);
        let request = Request { name, body: Box::new(body), started };
        let ended = |_| io::Error::other("the thread that starts privileged threads has ended");
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.send(request).map_err(|e| ended(e.to_string()))?;
        handle.recv().map_err(|e| ended(e.to_string()))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::capabilities;

    #[test]
    fn only_its_threads_keep_capabilities() {
        let held = capabilities(None).unwrap().permitted;
        let keep = CapabilitySet::BPF | CapabilitySet::SYSLOG;
        let (sender, sets) = mpsc::sync_channel(1);
        let first = std::thread::spawn(move || {
            let privileged = PrivilegedThreads::start(keep).unwrap();
            limit(CapabilitySet::empty(), CapabilitySet::empty()).unwrap();
            let of_other = std::thread::spawn(|| capabilities(None).unwrap().permitted);
            let of_thread = sender.clone();
            let body = move || of_thread.send(capabilities(None).unwrap()).unwrap();
            privileged.spawn("test".into(), body).unwrap().join().unwrap();
            of_other.join().unwrap()
        });
        assert_eq!(first.join().unwrap(), CapabilitySet::empty());
        let sets = sets.recv().unwrap();
        assert_eq!(sets.permitted, held & keep);
        assert_eq!(sets.effective, CapabilitySet::empty());
    }
}
