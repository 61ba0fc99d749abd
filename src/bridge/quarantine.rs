//! Items that the server refuses, in a file where an operator finds them: one JSON line each, with
//! the server's cause. `tapio quarantine` prints it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::batch::QueuedBatch;
use tapio_core::clock;
use tapio_wire::batch_json;

/// Name of the file, in the agent's state folder.
pub const QUARANTINE_FILE: &str = "quarantine.jsonl";
/// A larger file is renamed to `….1`, which replaces the one before.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The file, which is created with the first item.
pub(super) struct Quarantine {
    path: Option<PathBuf>,
    is_failing: bool,
}

impl Quarantine {
    /// `None`: items are dropped.
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, is_failing: false }
    }

    /// Adds the items of a refused batch. Returns how many are in the file.
    pub(super) fn add(&mut self, batch: &QueuedBatch) -> u64 {
        let Some(path) = &self.path else { return 0 };
        let lines = lines(batch);
        match append(path, &lines) {
            Ok(()) => {
                self.is_failing = false;
                lines.len() as u64
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(
                        file = %path.display(), %error,
                        "bridge: can't quarantine items that the server refused; they are dropped"
                    );
                }
                0
            }
        }
    }
}

fn lines(batch: &QueuedBatch) -> Vec<Json> {
    let line = |kind: &str, item: Json| {
        json!({
            "quarantined_at": jiff::Timestamp::from_nanosecond(clock::wall_ns().into())
                .map_or_else(|_| String::new(), |time| time.to_string()),
            "cause": batch.refusal,
            "epoch": batch.epoch,
            "first_sequence": batch.first_sequence,
            kind: item,
        })
    };
    match batch_json(batch.message()) {
        Ok((items, _)) => {
            let name = |is_story| if is_story { "story" } else { "event" };
            items.into_iter().map(|(is_story, item)| line(name(is_story), item)).collect()
        }
        // Nothing of it can be shown.
        Err(error) => vec![line("undecodable", error.to_string().into())],
    }
}

fn append(path: &Path, lines: &[Json]) -> io::Result<()> {
    let mut file = open(path)?;
    if file.metadata()?.len() >= MAX_BYTES {
        std::fs::rename(path, path.with_extension("jsonl.1"))?;
        file = open(path)?;
    }
    let mut text = String::new();
    for line in lines {
        text.push_str(&line.to_string());
        text.push('\n');
    }
    file.write_all(text.as_bytes())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}
