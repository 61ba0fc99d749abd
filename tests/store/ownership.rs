//! Files and folders that somebody else could have placed aren't used.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

use tapio::store::OsFiles;

use super::*;

fn open_in(dir: &Path) -> std::io::Result<SegmentLog<Numbers>> {
    let config = SegmentLogConfig { dir: dir.to_owned(), ..config() };
    SegmentLog::open(config, Arc::new(OsFiles), Numbers::default())
}

#[test]
fn links_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, victim) = (folder.path().join("log"), folder.path().join("victim"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(&victim, "precious").unwrap();
    symlink(&victim, dir.join("lock")).unwrap();
    assert!(open_in(&dir).is_err());
    std::fs::remove_file(dir.join("lock")).unwrap();
    symlink(&victim, dir.join("segment-0000000000000001.tapio")).unwrap();
    let mut log = open_in(&dir).unwrap();
    assert_eq!(log.stats().unreadable_segments, 1);
    append(&mut log, 0..3);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    let created = std::fs::metadata(dir.join("segment-0000000000000002.tapio")).unwrap();
    assert_eq!(created.permissions().mode() & 0o777, 0o600);
}

#[test]
fn another_users_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    if std::fs::metadata(dir.path()).unwrap().uid() != 0 {
        eprintln!("skipped: only root can give a folder away");
        return;
    }
    chown(dir.path(), Some(65_534), None).unwrap();
    let error = open_in(dir.path()).err().unwrap().to_string();
    assert!(error.ends_with("belongs to another user (uid 65534)"), "{error}");
}
