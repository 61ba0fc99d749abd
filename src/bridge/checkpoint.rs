//! The checkpoint of a lane's spool: how far the server has answered, and what waits behind. It is
//! written once a second and at the stop. The next process goes on there, and knows by it what was
//! deleted or damaged meanwhile.
//!
//! The file has a line with segment and offset of the two positions, then a line with segment and
//! events for each segment that has some waiting.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::store::{Files, FramePosition};

const FILE: &str = "acked";
/// The file is replaced as a whole.
const NEW_FILE: &str = "acked.new";
/// No log has as many segments: a greater number in the file is damage.
const MAX_SEGMENT: u64 = 1 << 48;
/// No spool has as much to note; the rest of a larger file is ignored.
const MAX_BYTES: u64 = 1 << 20;

/// Contents of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// The server has answered every batch before it.
    pub(super) acked: FramePosition,
    /// Where the log ended: batches behind it aren't among those that wait.
    pub(super) end: FramePosition,
    /// The events of each segment that wait for the server.
    pub(super) waiting: BTreeMap<u64, u64>,
}

impl Checkpoint {
    /// Reads the file. Without it, everything in the spool is sent again, and the server has it
    /// once.
    pub(super) fn read(files: &dyn Files, dir: &Path) -> Self {
        let read = || {
            let file = files.open(&dir.join(FILE)).ok()?;
            let mut bytes = vec![0; file.len_bytes().ok()?.min(MAX_BYTES) as usize];
            let read = file.read_at(&mut bytes, 0).ok()?;
            Self::parse(std::str::from_utf8(&bytes[..read]).ok()?)
        };
        read().unwrap_or_default()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut positions = lines.next()?.splitn(3, ' ');
        let acked = position(positions.next()?, positions.next()?)?;
        // Earlier versions wrote the first position only.
        let end = positions.next().and_then(|end| end.split_once(' '));
        let end = end.and_then(|(segment, offset)| position(segment, offset)).unwrap_or(acked);
        let waiting = lines.map_while(|line| {
            let (segment, events) = line.split_once(' ')?;
            Some((segment.parse().ok()?, events.parse().ok()?))
        });
        Some(Self { acked, end, waiting: waiting.collect() })
    }

    fn to_text(&self) -> String {
        let Self { acked, end, waiting } = self;
        let positions =
            format!("{} {} {} {}\n", acked.segment, acked.offset, end.segment, end.offset);
        let waiting = waiting.iter().map(|(segment, events)| format!("{segment} {events}\n"));
        std::iter::once(positions).chain(waiting).collect()
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When the disk refuses it; the file is unchanged then.
    pub(super) fn write(&self, files: &dyn Files, dir: &Path) -> io::Result<()> {
        let new = dir.join(NEW_FILE);
        let _ = files.remove(&new);
        files.create(&new)?.write_at([self.to_text().as_bytes(), &[], &[]], 0)?;
        files.rename(&new, &dir.join(FILE))
    }
}

fn position(segment: &str, offset: &str) -> Option<FramePosition> {
    let segment = segment.parse().ok().filter(|segment| *segment < MAX_SEGMENT)?;
    Some(FramePosition { segment, offset: offset.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_parsed_back_and_damage_costs_what_follows() {
        let checkpoint = Checkpoint {
            acked: FramePosition { segment: 7, offset: 4_096 },
            end: FramePosition { segment: 10, offset: 99 },
            waiting: [(7, 12), (9, 1_000)].into(),
        };
        let text = checkpoint.to_text();
        assert_eq!(text, "7 4096 10 99\n7 12\n9 1000\n");
        assert_eq!(Checkpoint::parse(&text), Some(checkpoint.clone()));
        let damaged = Checkpoint::parse("7 4096 10 99\n7 12\n9 1x00\n10 4\n");
        assert_eq!(damaged, Some(Checkpoint { waiting: [(7, 12)].into(), ..checkpoint }));
        let acked = FramePosition { segment: 7, offset: 1 };
        let earlier = Checkpoint { acked, end: acked, ..Checkpoint::default() };
        assert_eq!(Checkpoint::parse("7 1\n"), Some(earlier));
        assert_eq!(Checkpoint::parse("999999999999999999 1\n"), None);
        assert_eq!(Checkpoint::parse(""), None);
    }
}
