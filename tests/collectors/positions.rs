//! A stop right after something was told: the next start doesn't tell it again, and tells what came between.

use std::fs;
use std::path::Path;

use tapio::collector::{CollectorConfig as _, Site, cni};

use crate::pipeline::Pipeline;

fn start(folder: &Path) -> Pipeline {
    let config = cni::Config {
        socket: folder.join("cni.sock"),
        networks: folder.join("networks"),
        links: false,
        ..cni::Config::default()
    };
    let site = Site::new("node-1", 7).with_state_dir(folder.join("state"));
    let pipeline = Pipeline::start_at(site, vec![("cni", config.on_full(), config.make())], true);
    pipeline.wait_until("it looks", |p| !p.manager.statistics()[0].counters.is_empty());
    pipeline
}

fn given(folder: &Path, address: &str) {
    fs::write(folder.join("networks/podnet").join(address), format!("of-{address}\r\neth0"))
        .unwrap();
}

fn addresses(pipeline: &Pipeline) -> Vec<String> {
    pipeline.texts("/attributes/network.local.address")
}

#[test]
fn an_address_is_told_once_however_soon_the_stop_comes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir_all(folder.join("networks/podnet")).unwrap();
    let pipeline = start(folder);
    given(folder, "10.1.0.2");
    pipeline.wait_until("it is told", |p| !addresses(p).is_empty());
    // At once: its position can't be saved yet.
    pipeline.stop.set();
    pipeline.end();
    given(folder, "10.1.0.3");
    // Told while it still waits for its pod: because the stop comes.
    let pipeline = start(folder);
    pipeline.wait_until("it is seen", |p| {
        p.manager.statistics()[0].counters.contains(&("addresses".into(), 2))
    });
    pipeline.stop.set();
    let got = std::sync::Arc::clone(&pipeline.got);
    pipeline.end();
    let told: Vec<String> = got
        .lock()
        .unwrap()
        .iter()
        .map(|(_, e)| e["attributes"]["network.local.address"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(told, ["10.1.0.3"]);
    let pipeline = start(folder);
    pipeline.wait_until("both are seen", |p| {
        p.manager.statistics()[0].counters.contains(&("addresses".into(), 2))
    });
    pipeline.stop.set();
    assert_eq!(pipeline.end().total.received, 0, "nothing is told twice");
}
