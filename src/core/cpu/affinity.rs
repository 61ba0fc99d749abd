//! Affinity of threads (sched_setaffinity(2)).

use std::sync::Arc;
use std::{fs, io};

use rustix::thread::{CpuSet as Mask, sched_getaffinity, sched_setaffinity};

use super::cpu_set::{CpuSet, MAX_CPUS};

/// The CPUs that a thread is moved to. The default leaves the thread where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement(Option<Arc<CpuSet>>);

impl Placement {
    /// Moves a thread to these CPUs.
    #[must_use]
    pub fn on(cpus: CpuSet) -> Self {
        Self(Some(Arc::new(cpus)))
    }

    /// The CPUs; `None`: the thread stays where it is.
    #[must_use]
    pub fn cpus(&self) -> Option<&CpuSet> {
        self.0.as_deref()
    }

    /// Moves the current thread, and with it the threads that it starts from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn apply(&self) -> io::Result<()> {
        let Some(cpus) = &self.0 else { return Ok(()) };
        let mut mask = Mask::new();
        cpus.iter().for_each(|cpu| mask.set(cpu as usize));
        Ok(sched_setaffinity(None, &mask)?)
    }

    /// Moves the current thread at its beginning. A thread that can't be moved runs all the same;
    /// the failure is logged under its name.
    pub fn begin(&self, thread: &str) {
        if let Err(error) = self.apply() {
            let cpus = self.cpus().map(CpuSet::to_string).unwrap_or_default();
            tracing::warn!(thread, cpus, %error, "thread can't be moved to its CPUs");
        }
    }
}

/// The CPUs that the current thread may use; empty where the system doesn't report them, such as
/// on a machine with more than [`MAX_CPUS`].
pub(super) fn allowed_cpus() -> CpuSet {
    let mask = sched_getaffinity(None).unwrap_or_default();
    (0..MAX_CPUS).filter(|cpu| mask.is_set(*cpu as usize)).collect()
}

/// Asks the system whether threads may be moved, by moving the current one to where it is.
///
/// # Errors
/// When it refuses.
pub(super) fn check_permission() -> io::Result<()> {
    Ok(sched_setaffinity(None, &sched_getaffinity(None)?)?)
}

/// The threads of this process with the CPUs that each may use, as the kernel reports them. A
/// thread that ends meanwhile is left out.
#[must_use]
pub fn cpus_of_threads() -> Vec<(String, CpuSet)> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let read = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
        let cpus = field("Cpus_allowed_list:")?.parse().ok()?;
        Some((field("Name:")?.trim().to_owned(), cpus))
    };
    tasks.filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_is_moved_and_others_are_not() {
        let all = allowed_cpus();
        assert!(!all.is_empty());
        let last = all.iter().last().unwrap();
        let moved = std::thread::Builder::new().name("moved".into()).spawn(move || {
            Placement::default().begin("moved");
            let before = allowed_cpus();
            Placement::on([last].into_iter().collect()).begin("moved");
            let own = cpus_of_threads().into_iter().find(|(name, _)| name == "moved");
            (before, allowed_cpus(), own.unwrap().1)
        });
        let (before, after, reported) = moved.unwrap().join().unwrap();
        let last: CpuSet = [last].into_iter().collect();
        assert_eq!((&before, &after, &reported), (&all, &last, &last));
        assert_eq!(allowed_cpus(), all);
    }

    #[test]
    fn refusal_is_an_error() {
        // The highest number that the mask has: no machine of the tests has it.
        let error = Placement::on([MAX_CPUS - 1].into_iter().collect()).apply().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        check_permission().unwrap();
    }
}
