//! The capabilities of the calling thread (capabilities(7)).

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Which ways to gain rights are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renounced {
    /// Executed programs gain no rights from set-user-id bits or file capabilities.
    pub no_new_privs: bool,
    /// The bounding set is empty. That needs `CAP_SETPCAP`; without it the set stays as it is, and
    /// `no_new_privs` alone limits executed programs.
    pub bounding_set: bool,
}

/// Closes the ways in which the calling thread, and the threads and programs that it starts, could
/// gain rights that they don't have. To be called before [`limit`], which may drop `CAP_SETPCAP`.
#[must_use]
pub fn renounce() -> Renounced {
    let mut bounding_set = true;
    for one in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(one) {
            // The kernel is older than the capability.
            Err(rustix::io::Errno::INVAL) => {}
            dropped => bounding_set &= dropped.is_ok(),
        }
    }
    // Fails before Linux 4.3 only, which has no ambient set.
    let _ = clear_ambient_capability_set();
    Renounced { no_new_privs: set_no_new_privs(true).is_ok(), bounding_set }
}

/// Limits the calling thread to these permitted and effective capabilities, as far as it has them.
/// It can't get the others back. Returns the permitted ones.
///
/// # Errors
/// When the system refuses.
pub fn limit(permitted: CapabilitySet, effective: CapabilitySet) -> io::Result<CapabilitySet> {
    let permitted = capabilities(None)?.permitted & permitted;
    let effective = permitted & effective;
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective, permitted, inheritable })?;
    Ok(permitted)
}

/// Makes these capabilities effective, as far as the calling thread may have them, and no others.
///
/// # Errors
/// When the system refuses.
pub fn raise(effective: CapabilitySet) -> io::Result<()> {
    limit(CapabilitySet::all(), effective).map(drop)
}

/// The names of capabilities, such as `CAP_BPF`.
#[must_use]
pub fn names(set: CapabilitySet) -> Vec<String> {
    set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_drops_and_raise_gives_back_only_permitted() {
        // A thread of its own: what it drops is gone.
        let sets = std::thread::spawn(|| {
            let held = capabilities(None).unwrap().permitted;
            let keep = CapabilitySet::SYSLOG | CapabilitySet::KILL;
            let kept = limit(keep, CapabilitySet::SYSLOG).unwrap();
            assert_eq!(kept, held & keep);
            let limited = capabilities(None).unwrap();
            raise(CapabilitySet::all()).unwrap();
            (held, limited, capabilities(None).unwrap())
        });
        let (held, limited, raised) = sets.join().unwrap();
        assert_eq!(limited.effective, held & CapabilitySet::SYSLOG);
        assert_eq!(raised.effective, limited.permitted, "nothing comes back");
        assert_eq!(raised.inheritable, CapabilitySet::empty());
        // Other threads keep theirs: the reason for `PrivilegedThreads`.
        assert_eq!(capabilities(None).unwrap().permitted, held);
    }

    #[test]
    fn names_are_those_of_the_manual() {
        assert_eq!(names(CapabilitySet::BPF | CapabilitySet::PERFMON), ["CAP_PERFMON", "CAP_BPF"]);
        assert_eq!(names(CapabilitySet::empty()), [""; 0]);
    }
}
