//! A secret in a file of its own, read again when the file changes.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::tls::{Reloaded, TlsError, resolve, secret_text};

/// A secret in a file that only its owner and group may read. Clones share it.
#[derive(Clone)]
pub struct SecretFile(Arc<Reloaded<String>>);

impl SecretFile {
    /// Reads the secret: the file's text, without blanks around it. A path that isn't absolute is
    /// below `$CREDENTIALS_DIRECTORY`, if that is set.
    ///
    /// # Errors
    /// With the file, when it can't be read, others can read it, or it is empty.
    pub fn new(path: &Path) -> Result<Self, TlsError> {
        let path = resolve(path);
        let from = path.clone();
        let read = move || {
            let text = secret_text(&from)?.trim().to_owned();
            if text.is_empty() {
                let file = from.display().to_string();
                return Err(TlsError { file, cause: "is empty".into() });
            }
            Ok(text)
        };
        Reloaded::new(vec![path], read).map(|read| Self(Arc::new(read)))
    }

    /// The secret as the file has it now; where that can't be used, the one before.
    #[must_use]
    pub fn text(&self) -> Arc<String> {
        self.0.look()
    }
}

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretFile")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn secret_is_read_again_when_it_changes_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let write = |text: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        write("first\n");
        let secret = SecretFile::new(&path).unwrap();
        assert_eq!(*secret.text(), "first");
        write("the second");
        assert_eq!(*secret.text(), "the second");
        write("");
        assert_eq!(*secret.text(), "the second", "an empty file changes nothing");
        assert_eq!(format!("{secret:?}"), "SecretFile");
        assert!(SecretFile::new(&path).unwrap_err().to_string().ends_with("is empty"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(SecretFile::new(&path).unwrap_err().to_string().contains("others can use it"));
    }
}
