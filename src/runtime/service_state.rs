//! The files in which services survive a restart: what they usually do, and the disturbances that
//! are open. Only the assessor's thread writes them: the one every ten minutes, the other before
//! the story of a disturbance leaves, both at the end.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tapio_dataflow::evidence::{Kept, KeptServices};

/// The names of the files, in the state folder.
const USUAL: &str = "services";
const DISTURBANCES: &str = "disturbances";
/// The largest file that is read: more than the bounds of what is learned allow.
const MAX_BYTES: u64 = 512 << 20;

/// The state of an earlier run, and where this one keeps its own.
pub(super) fn kept_services(state_dir: &Path) -> KeptServices {
    KeptServices {
        usual: kept(state_dir.join(USUAL)),
        disturbances: kept(state_dir.join(DISTURBANCES)),
    }
}

fn kept(path: PathBuf) -> Kept {
    let restored = match read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(
                file = %path.display(), %error,
                "can't read what an earlier run kept of services; they are learned anew"
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
            "can't keep the state of services; a restart would learn them anew"
        ),
        Err(_) => {}
    };
    Kept { restored, save: Box::new(save) }
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
