//! The rights that the threads of this process have, as the kernel reports them in
//! `/proc/self/task/*/status`.

use std::fs;

use rustix::thread::CapabilitySet;

/// The rights of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadRights {
    /// The thread's name.
    pub name: String,
    /// The capabilities that it may make effective.
    pub permitted: CapabilitySet,
    /// The capabilities in use.
    pub effective: CapabilitySet,
    /// Whether programs that it executes gain no rights.
    pub no_new_privs: bool,
    /// Whether a seccomp filter is in force.
    pub seccomp: bool,
}

impl ThreadRights {
    /// Parses the text of a `status` file (proc_pid_status(5)).
    fn parse(text: &str) -> Option<Self> {
        let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        let set = |key: &str| {
            let bits = u64::from_str_radix(field(key)?.trim(), 16).ok()?;
            Some(CapabilitySet::from_bits_retain(bits))
        };
        Some(Self {
            name: field("Name:")?.trim().to_owned(),
            permitted: set("CapPrm:")?,
            effective: set("CapEff:")?,
            no_new_privs: field("NoNewPrivs:")?.trim() == "1",
            seccomp: field("Seccomp:").is_some_and(|mode| mode.trim() == "2"),
        })
    }
}

/// The rights of all threads; a thread that ends meanwhile is left out.
#[must_use]
pub fn thread_rights() -> Vec<ThreadRights> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    texts.filter_map(|text| ThreadRights::parse(&text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_threads_are_found_with_their_rights() {
        let own = rustix::thread::capabilities(None).unwrap();
        let name = rustix::thread::name().unwrap().into_string().unwrap();
        let all = thread_rights();
        let found = all.iter().find(|thread| thread.name == name).unwrap();
        assert_eq!((found.permitted, found.effective), (own.permitted, own.effective));
        assert_eq!(ThreadRights::parse("Name:\tx\n"), None);
    }
}
