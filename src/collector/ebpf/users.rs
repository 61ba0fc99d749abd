//! Names of users, from a file in the format of `passwd(5)`. The file is read again when it
//! changes. Users that other services know (LDAP, systemd-homed) have no name here.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// Interval at which the file is checked for changes.
const CHECK_INTERVAL_NS: u64 = 1_000_000_000;
/// The same after a uid without a name: its user may have been added just now.
const MISS_INTERVAL_NS: u64 = 100_000_000;
/// Largest part of the file that is read.
const MAX_BYTES: u64 = 4 << 20;
/// Capacity of the table of names.
const MAX_USERS: usize = 65_536;

/// Inode, size and time of change, seconds and nanoseconds.
type Version = (u64, u64, i64, i64);

/// Names by uid.
pub(super) struct Users {
    path: PathBuf,
    names: HashMap<u32, Box<str>, ahash::RandomState>,
    version: Option<Version>,
    /// Time of the last check.
    checked_ns: Option<u64>,
}

/// Users in the format of `passwd(5)`: `name:password:uid:…`. The first of several names of a uid
/// applies, as in `getpwuid(3)`.
fn parse(text: &str) -> HashMap<u32, Box<str>, ahash::RandomState> {
    let mut names = HashMap::default();
    for line in text.lines().take(MAX_USERS) {
        let mut fields = line.split(':');
        if let (Some(name), _, Some(Ok(uid))) =
            (fields.next(), fields.next(), fields.next().map(str::parse))
            && !name.is_empty()
        {
            names.entry(uid).or_insert_with(|| name.into());
        }
    }
    names
}

impl Users {
    /// Names in this file.
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), names: HashMap::default(), version: None, checked_ns: None }
    }

    /// The name of a user. `now_ns`: a monotonic clock.
    pub(super) fn name(&mut self, uid: u32, now_ns: u64) -> Option<&str> {
        let interval =
            if self.names.contains_key(&uid) { CHECK_INTERVAL_NS } else { MISS_INTERVAL_NS };
        if self.checked_ns.is_none_or(|last| now_ns.saturating_sub(last) >= interval) {
            self.checked_ns = Some(now_ns);
            self.refresh();
        }
        self.names.get(&uid).map(|name| &**name)
    }

    /// Reads the file if it has changed. A file that is missing for a moment, as while it is
    /// replaced, costs no name.
    fn refresh(&mut self) {
        let Ok(found) = fs::metadata(&self.path) else { return };
        let version = (found.ino(), found.size(), found.ctime(), found.ctime_nsec());
        if self.version == Some(version) {
            return;
        }
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|f| f.take(MAX_BYTES).read_to_end(&mut bytes));
        if read.is_ok() {
            self.names = parse(&String::from_utf8_lossy(&bytes));
            self.version = Some(version);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_changes_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        fs::write(&path, "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\n\nbroken\n:x:5:\n")
            .unwrap();
        let mut users = Users::new(&path);
        assert_eq!(users.name(0, 0), Some("root"));
        assert_eq!(users.name(5, 1), None);
        assert_eq!(users.name(1000, 2), None);
        fs::write(&path, "root:x:0:0::/:\njoe:x:1000:1000::/home/joe:/bin/sh\n").unwrap();
        assert_eq!(users.name(1000, MISS_INTERVAL_NS - 1), None, "it was checked just now");
        assert_eq!(users.name(1000, MISS_INTERVAL_NS + 2), Some("joe"));
        fs::remove_file(&path).unwrap();
        assert_eq!(users.name(1000, 10 * CHECK_INTERVAL_NS), Some("joe"));
    }
}
