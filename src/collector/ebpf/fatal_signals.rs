//! Signals by which processes end others: the exit of a process names the sender.

use std::collections::VecDeque;

/// Fatal signals that are remembered until their processes exit.
const MAX_FATAL_SIGNALS: usize = 256;

/// A signal that a process sent and that ends another one.
#[derive(Debug)]
pub(super) struct FatalSignal {
    pub(super) pid: u32,
    pub(super) number: u32,
    pub(super) sender: u32,
    pub(super) sender_name: Box<[u8]>,
}

/// The latest signals that processes sent and that end others. A process exits at once or, while it
/// waits for a device, later than the others.
#[derive(Debug, Default)]
pub(super) struct FatalSignals(VecDeque<FatalSignal>);

impl FatalSignals {
    /// Remembers a signal.
    pub(super) fn add(&mut self, signal: FatalSignal) {
        // The first one ends the process.
        if self.0.iter().any(|s| (s.pid, s.number) == (signal.pid, signal.number)) {
            return;
        }
        if self.0.len() >= MAX_FATAL_SIGNALS {
            self.0.pop_front();
        }
        self.0.push_back(signal);
    }

    /// Takes the signal by which a process ended; forgets all others to it.
    pub(super) fn take(&mut self, pid: u32, number: u32) -> Option<FatalSignal> {
        let at = self.0.iter().position(|s| (s.pid, s.number) == (pid, number));
        let found = at.and_then(|at| self.0.remove(at));
        self.0.retain(|signal| signal.pid != pid);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(pid: u32, number: u32, sender: u32) -> FatalSignal {
        FatalSignal { pid, number, sender, sender_name: b"sh".as_slice().into() }
    }

    #[test]
    fn exit_takes_the_first_signal_of_its_number() {
        let mut signals = FatalSignals::default();
        for (pid, number, sender) in [(7, 15, 1), (7, 9, 2), (7, 9, 3), (8, 9, 4)] {
            signals.add(signal(pid, number, sender));
        }
        assert_eq!(signals.take(7, 9).map(|s| s.sender), Some(2));
        assert!(signals.take(7, 15).is_none(), "the process has ended");
        assert!(signals.take(8, 15).is_none(), "it ended by another signal");
        assert!(signals.take(8, 9).is_none());
    }

    #[test]
    fn processes_that_never_exit_are_bounded() {
        let mut signals = FatalSignals::default();
        for pid in 0..3 * MAX_FATAL_SIGNALS as u32 {
            signals.add(signal(pid, 9, 1));
        }
        assert_eq!(signals.0.len(), MAX_FATAL_SIGNALS);
        assert!(signals.take(3 * MAX_FATAL_SIGNALS as u32 - 1, 9).is_some());
    }
}
