//! Copies of segments: of one whose file was deleted, and of one that the disk fails to sync.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::files::{DiskFile, Files};

/// Unit of a copy.
const COPY_BYTES: usize = 1024 * 1024;

/// Copies the first bytes of a file.
///
/// # Errors
/// When one of the files has an error, or the first one is too short.
pub(super) fn copy(from: &dyn DiskFile, to: &dyn DiskFile, len_bytes: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    while offset < len_bytes {
        let len = buffer.len().min((len_bytes - offset) as usize);
        let read = from.read_at(&mut buffer[..len], offset)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_at([&buffer[..read], &[], &[]], offset)?;
        offset += read as u64;
    }
    Ok(())
}

/// Replaces a file by a synced copy of itself.
///
/// # Errors
/// When the disk refuses it; the file is unchanged then.
pub(super) fn replace(
    files: &dyn Files,
    path: &Path,
    file: &dyn DiskFile,
) -> io::Result<Arc<dyn DiskFile>> {
    let new = path.with_extension("copy");
    let _ = files.remove(&new);
    let copied = files.create(&new)?;
    copy(file, &*copied, file.len_bytes()?)
        .and_then(|()| copied.sync())
        .and_then(|()| files.rename(&new, path))
        .inspect_err(|_| drop(files.remove(&new)))?;
    if let Some(dir) = path.parent() {
        files.sync_dir(dir)?;
    }
    Ok(copied)
}
