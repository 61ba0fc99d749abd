//! The state of a receiver on disk: its position in the log, what it was notified about, and what
//! waits. One file for each receiver below `data_dir/notify`.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ledger::Ledger;
use crate::store::FramePosition;
use tapio_core::event::{TraceId, stable_hash};

/// The folder below `data_dir`.
const FOLDER: &str = "notify";

/// The state of a receiver.
#[derive(Debug, Deserialize)]
pub(super) struct Checkpoint {
    segment: u64,
    offset: u64,
    pub(super) ledger: Ledger,
}

impl Checkpoint {
    /// The position behind the stories that the ledger has taken.
    pub(super) fn position(&self) -> FramePosition {
        FramePosition { segment: self.segment, offset: self.offset }
    }
}

#[derive(Serialize)]
struct SavedRef<'a> {
    receiver: &'a str,
    segment: u64,
    offset: u64,
    ledger: &'a Ledger,
}

/// The folder of the receivers' files.
pub(super) fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join(FOLDER)
}

/// The file of one receiver.
pub(super) struct StateFile {
    path: PathBuf,
    name: String,
}

impl StateFile {
    /// Names of receivers have characters that files can't have.
    pub(super) fn new(data_dir: &Path, name: &str) -> Self {
        let hash = TraceId(stable_hash(&[b"notify", name.as_bytes()])).to_string();
        let path = folder(data_dir).join(format!("receiver-{}.json", &hash[..16]));
        Self { path, name: name.to_owned() }
    }

    /// Reads the file; `None` without one. One that can't be read is kept under another name, and
    /// the receiver begins anew.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub(super) fn read(&self) -> io::Result<Option<Checkpoint>> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
            Err(error) => return Err(error),
        };
        match serde_json::from_str(&text) {
            Ok(saved) => Ok(Some(saved)),
            Err(error) => {
                let kept = self.path.with_extension("damaged");
                std::fs::rename(&self.path, &kept)?;
                tracing::error!(
                    file = %kept.display(), receiver = self.name, %error,
                    "notify: the state of a receiver is damaged; it begins with new stories, and \
                     may miss those since the last one"
                );
                Ok(None)
            }
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When the disk refuses it; what was there is there still.
    pub(super) fn write(&self, at: FramePosition, ledger: &Ledger) -> io::Result<()> {
        let FramePosition { segment, offset } = at;
        let saved = SavedRef { receiver: &self.name, segment, offset, ledger };
        let new = self.path.with_extension("new");
        let mut file = std::fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec(&saved)?)?;
        file.sync_data()?;
        std::fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_survives_and_a_damaged_file_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder(dir.path())).unwrap();
        let file = StateFile::new(dir.path(), "a/b");
        assert!(file.read().unwrap().is_none());
        let at = FramePosition { segment: 3, offset: 4_096 };
        file.write(at, &Ledger::new(7)).unwrap();
        assert_eq!(file.read().unwrap().unwrap().position(), at);
        assert!(StateFile::new(dir.path(), "other").read().unwrap().is_none());
        for damaged in [&b"{\"segment\":"[..], b"", b"\xff\xfe", b"[]"] {
            std::fs::write(&file.path, damaged).unwrap();
            assert!(file.read().unwrap().is_none(), "{damaged:?}");
            assert_eq!(std::fs::read(file.path.with_extension("damaged")).unwrap(), damaged);
        }
    }
}
