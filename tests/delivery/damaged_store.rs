//! Damage in the server's store is found without a query, costs what is damaged, and an answer says
//! that it isn't complete.

use std::os::unix::fs::FileExt as _;

use super::*;

const EVENTS: u64 = 20_000;

fn config_of(dir: &Path) -> ServerConfig {
    ServerConfig { segment_bytes: 128 * 1024, ..server_config(dir, any_port()) }
}

/// Stores events, and returns the segments, oldest first.
fn store(server: &ServerHandle, dir: &Path) -> Vec<PathBuf> {
    let config = BridgeConfig { batch_bytes: 8 * 1024, ..config(server.grpc_addr) };
    let mut node = node(config);
    node.writers = node.feed(0..EVENTS).join().unwrap();
    assert_cons1(&node.end(), EVENTS, EVENTS);
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "tapio");
    let mut segments: Vec<_> = entries.filter(is_segment).collect();
    segments.sort_unstable();
    assert!(segments.len() > 8, "{}", segments.len());
    segments
}

/// The number of all events in all pages, and the time since which the last one is complete.
fn query(web: SocketAddr) -> (usize, Option<String>) {
    let (mut events, mut of_page) = (0, String::new());
    loop {
        let path = format!("/api/v1/events?limit=1000{of_page}");
        let (page, next, complete_since) = page_of(web, &path);
        events += page.len();
        match next {
            Some(next) => of_page = format!("&page_token={next}"),
            None => return (events, complete_since),
        }
    }
}

/// Since when an answer with everything is complete.
const EVERYTHING: Option<String> = None;

fn overwrite(segment: &Path) {
    let file = std::fs::OpenOptions::new().write(true).open(segment).unwrap();
    file.write_all_at(b"damage", file.metadata().unwrap().len() / 3).unwrap();
}

#[test]
fn damage_to_a_running_server_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(config_of(dir.path())).unwrap();
    let segments = store(&server, dir.path());
    assert_eq!(query(server.http_addr), (EVENTS as usize, EVERYTHING));
    overwrite(&segments[1]);
    let (found, complete_since) = query(server.http_addr);
    assert!(found < EVENTS as usize && found > EVENTS as usize - 500, "{found}");
    assert_ne!(complete_since, EVERYTHING);
    assert!(server.status().store.corrupt_frames > 0);
    let (_, _, of_nobody) = page_of(server.http_addr, "/api/v1/events?node=nobody");
    assert_eq!(of_nobody, complete_since, "nobody knows what was in it");
    // A file that can't be read costs its events, not the query.
    std::fs::remove_file(&segments[3]).unwrap();
    std::fs::create_dir(&segments[3]).unwrap();
    let (rest, complete_later) = query(server.http_addr);
    assert!(rest < found && complete_later > complete_since, "{rest}, {complete_later:?}");
    assert_eq!(server.status().store.segments_unreadable, 1);
    let counted = "tapio_server_segments_unreadable_total 1\n";
    assert!(http(server.http_addr, "/metrics").1.contains(counted));
}

#[test]
fn damage_to_a_stopped_server_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(config_of(dir.path())).unwrap();
    let segments = store(&server, dir.path());
    drop(server);
    let restarted = || Server::start(config_of(dir.path())).unwrap();
    let server = restarted();
    assert_eq!(query(server.http_addr), (EVENTS as usize, EVERYTHING));
    drop(server);
    std::fs::remove_file(&segments[2]).unwrap();
    let server = restarted();
    let (without_one, complete_since) = query(server.http_addr);
    assert!(without_one < EVENTS as usize && complete_since > EVERYTHING);
    assert_eq!(server.status().store.segments_deleted, 1);
    drop(server);
    let file = std::fs::OpenOptions::new().write(true).open(&segments[4]).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let server = restarted();
    let (rest, complete_later) = query(server.http_addr);
    assert!(rest < without_one && complete_later > complete_since, "{rest}, {complete_later:?}");
    let store = server.status().store;
    assert!(store.lost_bytes > 0 && store.corrupt_frames > 0, "{store:?}");
    drop(server);
    overwrite(&segments[1]);
    let server = restarted();
    eventually("the damage is found without a query", || {
        server.status().store.corrupt_frames > store.corrupt_frames
    });
}
