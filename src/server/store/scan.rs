//! Reading the store backwards, without holding it up: segments are read as files, and a frame that
//! was written over meanwhile is told by its number.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use super::segment::{self, Frames};
use tapio_wire::{Batch, Item, RawEvent};

/// Bytes of segments one query reads at most.
const MOST_BYTES: u64 = 512 * 1024 * 1024;

/// Which events are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Glob of kinds; empty for any.
    pub kind: String,
    /// The 16 bytes of a trace id; empty for any.
    pub trace_id: Vec<u8>,
    /// The node; empty for any.
    pub node: String,
}

impl Filter {
    fn kind_matches(&self, kind: &str) -> bool {
        self.kind.is_empty() || tapio_core::glob::matches(&self.kind, kind)
    }

    /// Which of a batch's events are wanted: their places among its events, ascending.
    #[must_use]
    pub fn places(&self, batch: &Batch<'_>) -> Vec<usize> {
        if !self.node.is_empty() && self.node != batch.head.node {
            return Vec::new();
        }
        let kinds: Vec<bool> = batch.names().iter().map(|n| self.kind_matches(n)).collect();
        if !kinds.contains(&true) {
            return Vec::new();
        }
        let wanted = |event: RawEvent<'_>| {
            event.kind_place().is_some_and(|place| kinds.get(place) == Some(&true))
                && (self.trace_id.is_empty() || event.trace() == self.trace_id)
        };
        batch
            .items()
            .filter_map(|item| match item {
                Item::Event(event) => Some(event),
                Item::Story(_) => None,
            })
            .enumerate()
            .filter_map(|(place, event)| wanted(event).then_some(place))
            .collect()
    }
}

/// A batch with wanted events.
#[derive(Clone, Debug)]
pub struct Found {
    /// The batch.
    pub batch: Vec<u8>,
    /// The places of the wanted ones among its events, ascending.
    pub places: Vec<usize>,
}

/// The segments of a store at one instant.
#[derive(Clone, Debug)]
pub struct Scan {
    dir: PathBuf,
    /// Number and bytes, oldest first.
    segments: Vec<(u64, u64)>,
}

impl Scan {
    pub(super) fn new(dir: PathBuf, segments: Vec<(u64, u64)>) -> Self {
        Self { dir, segments }
    }

    /// The latest wanted events, at most `limit`, in batches, latest first.
    ///
    /// # Errors
    /// When a segment can't be read. One that was retired meanwhile is not missed.
    pub fn latest(&self, filter: &Filter, limit: usize) -> io::Result<Vec<Found>> {
        let (mut found, mut events, mut read) = (Vec::new(), 0, 0);
        for &(number, len) in self.segments.iter().rev() {
            if events >= limit || read >= MOST_BYTES {
                break;
            }
            let bytes = match self.read(number, len) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            read += len;
            let frames: Vec<&[u8]> = Frames::new(&bytes, number).map(|f| f.batch).collect();
            for batch in frames.into_iter().rev() {
                let Ok(parsed) = Batch::parse(batch) else {
                    continue;
                };
                let mut places = filter.places(&parsed);
                let surplus = places.len().saturating_sub(limit - events);
                places.drain(..surplus);
                if places.is_empty() {
                    continue;
                }
                events += places.len();
                let batch = batch.to_vec();
                found.push(Found { batch, places });
                if events >= limit {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Shows every batch to `each`, the oldest first, with the time at which it was stored.
    ///
    /// # Errors
    /// When a segment can't be read. One that was retired meanwhile is not missed.
    pub fn oldest_first(&self, mut each: impl FnMut(u64, &[u8])) -> io::Result<()> {
        for &(number, len) in &self.segments {
            let bytes = match self.read(number, len) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            Frames::new(&bytes, number).for_each(|frame| each(frame.receipt_ns, frame.batch));
        }
        Ok(())
    }

    fn read(&self, number: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len as usize);
        File::open(segment::path(&self.dir, number))?.take(len).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}
