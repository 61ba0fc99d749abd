//! The file of agents, which a start reads. It is a copy of the table in memory: one that can't be
//! read costs what is listed of agents that don't come back.

use std::io;
use std::path::Path;

use prost::Message as _;

use super::table::AgentTable;
use crate::store::Files;
use tapio_wire::proto;

const NAME: &str = "agents.pb";
/// The file that is written before it replaces the other one.
const NEW_NAME: &str = "agents.pb.new";
/// Largest file that is read: twice the bytes of all statuses.
const MAX_BYTES: u64 = 128 * 1024 * 1024;

/// Reads the agents noted in a folder; none if there is no file, or it can't be read. `now_ns`: the
/// wall clock.
pub(crate) fn read(dir: &Path, files: &dyn Files, now_ns: u64) -> AgentTable {
    match read_agents(&dir.join(NAME), files) {
        Ok(list) => AgentTable::restored(&list.agents, now_ns),
        Err(error) if error.kind() == io::ErrorKind::NotFound => AgentTable::default(),
        Err(error) => {
            let file = dir.join(NAME);
            tracing::warn!(
                file = %file.display(), %error,
                "server: the file of agents can't be read; agents are listed when they connect"
            );
            AgentTable::default()
        }
    }
}

fn read_agents(path: &Path, files: &dyn Files) -> io::Result<proto::ListAgentsResponse> {
    let file = files.open(path)?;
    let len_bytes = file.len_bytes()?;
    if len_bytes > MAX_BYTES {
        return Err(io::Error::other(format!("{len_bytes} bytes, at most {MAX_BYTES}")));
    }
    let mut bytes = vec![0; len_bytes as usize];
    let read = file.read_at(&mut bytes, 0)?;
    proto::ListAgentsResponse::decode(&bytes[..read]).map_err(io::Error::other)
}

/// Replaces the file.
///
/// # Errors
/// When the disk refuses it; the file before stays.
pub(crate) fn write(dir: &Path, files: &dyn Files, agents: Vec<proto::Agent>) -> io::Result<()> {
    let (path, new) = (dir.join(NAME), dir.join(NEW_NAME));
    match files.remove(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let list = proto::ListAgentsResponse { agents, next_page_token: String::new() };
    let file = files.create(&new)?;
    file.write_at([&list.encode_to_vec(), &[], &[]], 0)?;
    file.sync()?;
    files.rename(&new, &path)?;
    files.sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::OsFiles;
    use tapio_wire::proto::AgentStatus;

    #[test]
    fn agents_survive_a_restart_and_damage_costs_the_list_only() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path(), &OsFiles, 1).page(None, 10, 1).agents.is_empty());
        let mut table = AgentTable::default();
        let status = AgentStatus { node: "n".into(), version: "1".into(), ..Default::default() };
        table.report(&status, 5);
        for _ in 0..2 {
            let agents = table.take_changed(6).unwrap();
            write(dir.path(), &OsFiles, agents).unwrap();
            assert!(table.take_changed(6).is_none());
            table.set_changed();
        }
        let restored = read(dir.path(), &OsFiles, 7).get("n", 8).unwrap();
        assert!(!restored.connected);
        assert_eq!((restored.last_status_unix_nano, restored.status.unwrap()), (5, status));
        std::fs::write(dir.path().join(NAME), b"\xff\xff damaged").unwrap();
        assert!(read(dir.path(), &OsFiles, 1).page(None, 10, 1).agents.is_empty());
    }
}
