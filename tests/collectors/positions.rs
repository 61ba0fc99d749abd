//! A stop right after something was told: the next start doesn't tell it again, and tells what came between.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tapio_collectors::{CollectorConfig as _, Site, cni};

use crate::pipeline::Pipeline;

fn start(folder: &Path) -> Pipeline {
    let config = cni::Config {
        socket: folder.join("cni.sock"),
        networks: folder.join("networks"),
        links: false,
        ..cni::Config::default()
    };
    let site = Site::new("node-1", 7).with_state_dir(folder.join("state"));
    let pipeline =
        Pipeline::start_at(site, vec![("cni", config.on_full(), config.factory())], true);
    pipeline.wait_until("it looks", |p| !p.manager.status()[0].counters.is_empty());
    pipeline
}

fn given(folder: &Path, address: &str) {
    fs::write(folder.join("networks/podnet").join(address), format!("of-{address}\r\neth0"))
        .unwrap();
}

/// Ends it. The kind and address of each event.
fn end(pipeline: Pipeline) -> Vec<(String, String)> {
    pipeline.shutdown.request();
    let got = Arc::clone(&pipeline.got);
    pipeline.end();
    let got = got.lock().unwrap();
    let text = |event: &serde_json::Value| {
        let address = &event["attributes"]["network.local.address"];
        (event["kind"].as_str().unwrap().to_owned(), address.as_str().unwrap().to_owned())
    };
    got.iter().map(|(_, event)| text(event)).collect()
}

fn wait_for_addresses(pipeline: &Pipeline, count: u64) {
    pipeline.wait_until("so many addresses are seen", |p| {
        p.manager.status()[0].counters.contains(&("addresses".into(), count))
    });
}

fn told(kind: &str, address: &str) -> (String, String) {
    (kind.to_owned(), address.to_owned())
}

#[test]
fn an_address_is_told_once_however_soon_the_stop_comes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir_all(folder.join("networks/podnet")).unwrap();
    let pipeline = start(folder);
    given(folder, "10.1.0.2");
    pipeline.wait_until("it is told", |p| !p.got.lock().unwrap().is_empty());
    // At once: its position can't be saved yet.
    assert_eq!(end(pipeline), [told("cni.ip.allocated", "10.1.0.2")]);
    given(folder, "10.1.0.3");
    // Told while it still waits for its pod: because the stop comes.
    let pipeline = start(folder);
    wait_for_addresses(&pipeline, 2);
    assert_eq!(end(pipeline), [told("cni.ip.allocated", "10.1.0.3")]);
    let pipeline = start(folder);
    wait_for_addresses(&pipeline, 2);
    assert_eq!(end(pipeline), [], "nothing is told twice");
}

#[test]
fn addresses_taken_back_while_the_agent_was_away_are_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let network = folder.join("networks/podnet");
    fs::create_dir_all(&network).unwrap();
    // One that was there before the first start is no news, and yet it is known when it goes.
    given(folder, "10.1.0.1");
    let pipeline = start(folder);
    ["10.1.0.2", "10.1.0.3", "10.1.0.4"].iter().for_each(|address| given(folder, address));
    wait_for_addresses(&pipeline, 4);
    assert_eq!(end(pipeline).len(), 3);
    fs::remove_file(network.join("10.1.0.1")).unwrap();
    fs::remove_file(network.join("10.1.0.2")).unwrap();
    // Given to another container in between: taken back, and given.
    fs::write(network.join("10.1.0.3"), "another\r\neth0").unwrap();
    let pipeline = start(folder);
    wait_for_addresses(&pipeline, 2);
    let mut all = end(pipeline);
    all.sort();
    let back = |address| told("cni.ip.released", address);
    let expected = [back("10.1.0.1"), back("10.1.0.2"), back("10.1.0.3")];
    assert_eq!(all, [&[told("cni.ip.allocated", "10.1.0.3")], &expected[..]].concat());
    let pipeline = start(folder);
    wait_for_addresses(&pipeline, 2);
    assert_eq!(end(pipeline), [], "nothing is told twice");
}
