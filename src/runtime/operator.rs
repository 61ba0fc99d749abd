//! The secret with which a user of this node changes a running agent: a file in the state folder
//! that only the agent's user and root can read. Where the listener of the admin pages has no
//! authentication, every user of the node can reach it, and its pages; without the secret none of
//! them can change the agent or read events.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The header that has the secret.
pub const OPERATOR_HEADER: &str = "x-tapio-operator";
/// Bytes of the secret, before they are written as hexadecimal digits.
const SECRET_BYTES: usize = 32;

/// The secret.
pub struct OperatorSecret(String);

/// The file in a state folder.
fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("operator.secret")
}

impl OperatorSecret {
    /// Makes a secret, and writes it to the state folder.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(super) fn create(state_dir: &Path) -> io::Result<Self> {
        let mut bytes = [0; SECRET_BYTES];
        let mut filled = 0;
        while filled < bytes.len() {
            let flags = rustix::rand::GetRandomFlags::empty();
            filled += rustix::rand::getrandom(&mut bytes[filled..], flags)?;
        }
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let (path, new) = (path(state_dir), state_dir.join("operator.secret.new"));
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = File::options();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(new, path)?;
        Ok(Self(text))
    }

    /// Reads the secret of the agent that runs with a state folder.
    ///
    /// # Errors
    /// When the file can't be read, as by another user.
    pub fn read(state_dir: &Path) -> io::Result<String> {
        let path = path(state_dir);
        let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let mut text = String::new();
        file.map_err(named)?.take(2 * SECRET_BYTES as u64).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Whether a text is the secret. The time that it takes doesn't depend on where they differ.
    pub(super) fn is(&self, text: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differ = own.iter().zip(text).fold(0, |differ, (a, b)| differ | (a ^ b));
        own.len() == text.len() && differ == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn secret_is_new_at_each_start_and_for_its_user_only() {
        let dir = tempfile::tempdir().unwrap();
        let first = OperatorSecret::create(dir.path()).unwrap();
        let text = OperatorSecret::read(dir.path()).unwrap();
        assert!(first.is(text.as_bytes()) && text.len() == 2 * SECRET_BYTES);
        assert_eq!(std::fs::metadata(path(dir.path())).unwrap().mode() & 0o777, 0o600);
        let second = OperatorSecret::create(dir.path()).unwrap();
        assert!(!second.is(text.as_bytes()) && !second.is(b"") && !first.is(&text.as_bytes()[1..]));
        let error = OperatorSecret::read(Path::new("/nonexistent")).err().unwrap().to_string();
        assert!(error.contains("/nonexistent/operator.secret: No such file"), "{error}");
    }
}
