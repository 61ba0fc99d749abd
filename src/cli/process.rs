//! Limits and rights of the process.

use rustix::fs::Mode;
use rustix::process::{Resource, getrlimit, setrlimit, umask};

/// To be called before the first file is created. Raises the limit of open files to the greatest
/// that this process may have: most systems set a lower one for programs that use select(2). Files
/// and folders are for this user only.
pub(super) fn prepare() {
    umask(Mode::RWXG | Mode::RWXO);
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "can't raise the limit of open files");
    }
}
