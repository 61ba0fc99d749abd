//! After a kill, sources deliver again what came after their saved position, under the same ids:
//! the agent knows those events by its spool, whatever their source is.

use super::spool::{account, spooling_node, wait_until_spooled};
use super::*;

#[test]
fn events_that_are_read_again_are_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&dir.path().join("store"), any_port());
    let to = config(server.grpc_addr);
    let mut first = spooling_node(to.clone(), dir.path(), 10, 256 << 20);
    first.writers = first.feed(0..20_000).join().unwrap();
    first.wait_for_acks(20_000);
    first.end();
    // The saved position was 500 events behind.
    let mut second = spooling_node(to.clone(), dir.path(), 20, 256 << 20);
    second.writers = second.feed(19_500..25_000).join().unwrap();
    wait_until_spooled(&second, 5_500);
    second.wait_for_acks(5_000);
    let read = account(&second.end(), COLLECTOR);
    assert_eq!(read.forwarded, 5_000);
    assert_eq!(read.dropped, [(Stage::Bridge, Reason::ReadAgain, 500)]);
    // In a third process the events of both are known, and an event is known once.
    let mut third = spooling_node(to, dir.path(), 30, 256 << 20);
    third.writers = third.feed(19_999..20_001).join().unwrap();
    third.writers = third.feed(19_999..20_001).join().unwrap();
    third.wait_for_acks(2);
    let read = account(&third.end(), COLLECTOR);
    assert_eq!(read.dropped, [(Stage::Bridge, Reason::ReadAgain, 2)]);
    drop(server);
    let stored = stored(&dir.path().join("store"));
    assert_eq!(stored.len(), 25_000);
    assert_eq!(stored.values().filter(|times| **times > 1).count(), 2, "sent twice by one process");
}
