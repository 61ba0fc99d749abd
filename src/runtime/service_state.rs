//! The file in which what services usually do survives a restart. Only the assessor's thread writes
//! it, every ten minutes and at the end.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tapio_dataflow::evidence::KeptServices;

/// The name of the file, in the state folder.
const FILE: &str = "services";
/// The largest file that is read: more than the bounds of what is learned allow.
const MAX_BYTES: u64 = 512 << 20;

/// The state of an earlier run, and where this one keeps its own.
pub(super) fn kept_services(state_dir: &Path) -> KeptServices {
    let path = state_dir.join(FILE);
    let restored = match read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(
                file = %path.display(), %error,
                "can't read what services usually do; it is learned anew"
            );
            None
        }
    };
    let mut is_failing = false;
    let save = move |bytes: &[u8]| match write(&path, bytes) {
        Ok(()) => is_failing = false,
        // Once, until it succeeds again.
        Err(error) if !std::mem::replace(&mut is_failing, true) => tracing::warn!(
            file = %path.display(), %error,
            "can't keep what services usually do; a restart would learn it anew"
        ),
        Err(_) => {}
    };
    KeptServices { restored, save: Box::new(save) }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Replaces the file. What was there is there still if that fails.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new: PathBuf = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = File::options();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&new)?;
    io::Write::write_all(&mut file, bytes)?;
    std::fs::rename(&new, path)
}
