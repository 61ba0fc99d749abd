//! Removal of a test's cgroup.

use std::path::Path;
use std::time::Duration;

use tapio_core::clock;

/// Removes a cgroup. A process that was just reaped may still be in it: the removal is retried for
/// 2 s.
pub(crate) fn remove_cgroup(folder: &Path) {
    let begin = clock::instant();
    while std::fs::remove_dir(folder).is_err() && begin.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(5));
    }
}
