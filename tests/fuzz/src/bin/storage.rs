//! A segment of a log with any frames, index and footer: the server opens its storage in any case,
//! reads what is intact, and finds the same after another start.
//!
//! Random bytes don't pass a checksum, so an input is a list of frames: type (two bits; the highest
//! bit damages a mark), length (16 bits, little-endian) and payload. What is left is the end of the
//! file. docs/storage.md has the layout.

#![no_main]

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../../support/sim_disk.rs"]
mod sim_disk;

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sim_disk::SimDisk;
use tapio::server::{Budget, Cursor, Filter, ServerConfig, Storage};

const NONCE: u64 = 0x1234_5678_9abc_def0;
const DIR: &str = "/store";

fn checksum(parts: &[&[u8]]) -> [u8; 4] {
    parts.iter().fold(0, |sum, part| crc32c::crc32c_append(sum, part)).to_le_bytes()
}

fn head() -> Vec<u8> {
    let mut copy = [0; 48];
    copy[..4].copy_from_slice(b"TPSG");
    copy[4] = 1;
    copy[8] = 1;
    copy[16..24].copy_from_slice(&NONCE.to_le_bytes());
    let sum = checksum(&[&copy[..44]]);
    copy[44..].copy_from_slice(&sum);
    copy.repeat(2)
}

fn mark(kind: u8, payload: &[u8], offset: usize) -> Vec<u8> {
    let mut mark = NONCE.to_le_bytes().to_vec();
    mark.extend((payload.len() as u32).to_le_bytes());
    mark.extend(checksum(&[payload]));
    mark.extend(1_700_000_000_000_000_000u64.to_le_bytes());
    mark.extend([kind & 3, 0, 0, 0]);
    mark.extend(checksum(&[&mark, &(offset as u64).to_le_bytes()]));
    mark
}

/// The file, and the number of its data frames.
fn segment(mut input: &[u8]) -> (Vec<u8>, usize) {
    let (mut file, mut frames) = (head(), 0);
    while let [kind, low, high, rest @ ..] = input {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (payload, rest) = rest.split_at(len);
        let mut first = mark(*kind, payload, file.len());
        let last = first.clone();
        if kind & 0x80 != 0 {
            first[9] ^= 1;
        }
        file.extend([&first, payload, &last].concat());
        frames += usize::from(kind & 3 == 0);
        input = rest;
    }
    file.extend(input);
    (file, frames)
}

/// The batches and stories that a start finds.
fn start(disk: &SimDisk) -> (usize, usize) {
    let config = ServerConfig { data_dir: DIR.into(), ..ServerConfig::default() };
    let storage = Storage::open(&config, Arc::new(disk.clone()));
    let storage = storage.unwrap_or_else(|e| panic!("the storage doesn't open: {e}"));
    let batches = storage.select_events(Filter::default(), Cursor::NEWEST).read(&Budget::UNLIMITED);
    let stories =
        storage.select_stories(Filter::default(), Cursor::NEWEST).read(&Budget::UNLIMITED);
    (batches.items.len(), stories.items.len())
}

fuzz_target!(|input: &[u8]| {
    let (file, frames) = segment(input);
    let disk = SimDisk::default();
    disk.put(&Path::new(DIR).join("segment-0000000000000001.tapio"), &file);
    let found = start(&disk);
    assert!(found.0 <= frames, "{} batches in {frames} frames", found.0);
    disk.kill();
    assert_eq!(start(&disk), found, "the second start differs");
});
