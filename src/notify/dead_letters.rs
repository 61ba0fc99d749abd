//! Notifications that were given up: JSON lines in a file below `data_dir/notify`, and in the one
//! that was full before it.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::checkpoint::folder;
use super::notification::Notification;
use tapio_core::event::rfc3339;

const NAME: &str = "dead-letters.jsonl";
/// The file that was full before.
const OLD_NAME: &str = "dead-letters.1.jsonl";
/// Size of a file. Once the second one is full, the first one's letters are dropped.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// The file of all receivers.
#[derive(Clone, Debug)]
pub(super) struct DeadLetters {
    folder: PathBuf,
    max_bytes: u64,
}

impl DeadLetters {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { folder: folder(data_dir), max_bytes: MAX_BYTES }
    }

    /// Adds a notification. A disk that refuses it is reported in the log, with the notification.
    pub(super) fn add(&self, receiver: &str, cause: &str, now_ns: u64, of: &Notification) {
        let letter = json!({
            "time": rfc3339(now_ns),
            "receiver": receiver,
            "cause": cause,
            "notification": of.json(),
        });
        tracing::warn!(
            receiver,
            cause,
            id = of.id,
            event = of.occasion.as_str(),
            story = of.key,
            "notify: a notification was given up; it is in {NAME}"
        );
        if let Err(error) = self.append(&letter) {
            tracing::error!(%letter, %error, "notify: a dead letter can't be kept");
        }
    }

    fn append(&self, letter: &Value) -> io::Result<()> {
        let path = self.folder.join(NAME);
        let line = format!("{letter}\n");
        let size = std::fs::metadata(&path).map_or(0, |file| file.len());
        if size > 0 && size + line.len() as u64 > self.max_bytes {
            let old = self.folder.join(OLD_NAME);
            if old.exists() {
                tracing::warn!(
                    file = %old.display(),
                    "notify: the oldest dead letters are dropped, to make room for others"
                );
            }
            std::fs::rename(&path, old)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        file.write_all(line.as_bytes())
    }
}

/// The dead letters below a data folder, oldest first, as lines of JSON.
///
/// # Errors
/// When a file can't be read.
pub fn dead_letters(data_dir: &Path) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    for name in [OLD_NAME, NAME] {
        match std::fs::read(folder(data_dir).join(name)) {
            Ok(bytes) => {
                lines.extend(String::from_utf8_lossy(&bytes).lines().map(str::to_owned));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_bounded_and_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(dead_letters(dir.path()).unwrap(), [""; 0]);
        std::fs::create_dir(folder(dir.path())).unwrap();
        let letters = DeadLetters { max_bytes: 100, ..DeadLetters::new(dir.path()) };
        (0..50).for_each(|n| letters.append(&json!({"number": n, "text": "letter"})).unwrap());
        let read = dead_letters(dir.path()).unwrap();
        assert!((3..10).contains(&read.len()), "{read:?}");
        assert!(read.last().unwrap().contains("49"), "{read:?}");
        assert!(read.is_sorted(), "{read:?}");
    }
}
