//! A shutdown right after an event: the next start doesn't emit it again, and emits what changed in
//! between.

use std::fs;
use std::path::Path;

use tapio_collectors::cni;

use crate::support::json::text;
use crate::support::pipeline::{Pipeline, site};

fn start(folder: &Path) -> Pipeline {
    let config = cni::Config {
        socket: folder.join("cni.sock"),
        networks: folder.join("networks"),
        links: false,
        ..cni::Config::default()
    };
    let pipeline = Pipeline::start_at(site(Some(&folder.join("state"))), "cni", &config);
    pipeline.wait_until("the collector scans", |p| !p.status().counters.is_empty());
    pipeline
}

fn allocate(folder: &Path, address: &str) {
    fs::write(folder.join("networks/podnet").join(address), format!("of-{address}\r\neth0"))
        .unwrap();
}

/// Ends the pipeline; returns the kind and address of each event.
fn end(pipeline: Pipeline) -> Vec<(String, String)> {
    let kind_and_address =
        |event: &serde_json::Value| (text(event, "kind"), text(event, "network.local.address"));
    pipeline.end().events.iter().map(kind_and_address).collect()
}

fn wait_for_addresses(pipeline: &Pipeline, count: u64) {
    pipeline.wait_until("the addresses are scanned", |p| p.counter("addresses") == count);
}

fn event(kind: &str, address: &str) -> (String, String) {
    (kind.to_owned(), address.to_owned())
}

#[test]
fn allocation_is_emitted_once_across_early_shutdown() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir_all(folder.join("networks/podnet")).unwrap();
    let pipeline = start(folder);
    allocate(folder, "10.1.0.2");
    pipeline.wait_until("the event is emitted", |p| p.count() > 0);
    // At once: the cursor can't be saved yet.
    assert_eq!(end(pipeline), [event("cni.ip.allocated", "10.1.0.2")]);
    allocate(folder, "10.1.0.3");
    // Emitted at shutdown, although it still waits for its pod.
    let pipeline = start(folder);
    wait_for_addresses(&pipeline, 2);
    assert_eq!(end(pipeline), [event("cni.ip.allocated", "10.1.0.3")]);
    let pipeline = start(folder);
    wait_for_addresses(&pipeline, 2);
    assert_eq!(end(pipeline), [], "nothing is emitted twice");
}

#[test]
fn addresses_released_during_absence_are_emitted_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let network = folder.join("networks/podnet");
    fs::create_dir_all(&network).unwrap();
    // An allocation before the first start isn't emitted, but its release is.
    allocate(folder, "10.1.0.1");
    let pipeline = start(folder);
    ["10.1.0.2", "10.1.0.3", "10.1.0.4"].iter().for_each(|address| allocate(folder, address));
    wait_for_addresses(&pipeline, 4);
    assert_eq!(end(pipeline).len(), 3);
    fs::remove_file(network.join("10.1.0.1")).unwrap();
    fs::remove_file(network.join("10.1.0.2")).unwrap();
    // Allocated to another container in between: released and allocated.
    fs::write(network.join("10.1.0.3"), "another\r\neth0").unwrap();
    let pipeline = start(folder);
    wait_for_addresses(&pipeline, 2);
    let mut all = end(pipeline);
    all.sort();
    let released = |address| event("cni.ip.released", address);
    let expected = [released("10.1.0.1"), released("10.1.0.2"), released("10.1.0.3")];
    assert_eq!(all, [&[event("cni.ip.allocated", "10.1.0.3")], &expected[..]].concat());
    let pipeline = start(folder);
    wait_for_addresses(&pipeline, 2);
    assert_eq!(end(pipeline), [], "nothing is emitted twice");
}

#[test]
fn damaged_cursor_does_not_stop_the_collector() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir_all(folder.join("networks/podnet")).unwrap();
    fs::create_dir_all(folder.join("state/cursors")).unwrap();
    for damage in [&b"\xff\xfe\xfd"[..], b"not a time"] {
        fs::write(folder.join("state/cursors/cni"), damage).unwrap();
        let pipeline = start(folder);
        let note = &pipeline.notes()["cursor"];
        assert!(note.contains("cursors/cni is damaged: "), "{note}");
        let address = format!("10.1.0.{}", damage.len());
        allocate(folder, &address);
        pipeline.wait_until("the allocation is emitted", |p| p.count() == 1);
        assert_eq!(end(pipeline), [event("cni.ip.allocated", &address)]);
        let aside = folder.join("state/cursors/cni.damaged");
        assert_eq!(fs::read(aside).unwrap(), damage);
    }
}
