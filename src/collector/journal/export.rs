//! Reads files of a later format through `journalctl -o export` (systemd's
//! docs/JOURNAL_EXPORT_FORMATS.md).

use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::position::Position;
use super::record::{Field, Record};
use crate::runtime::alarm::Alarm;

/// Size of one read.
const CHUNK_BYTES: usize = 64 << 10;
/// Maximum length of a field; longer ones are skipped.
const MAX_FIELD_BYTES: usize = 64 << 10;

/// A running journalctl, killed on drop.
pub(super) struct Journalctl {
    child: Child,
    stdout: ChildStdout,
    parser: Parser,
    chunk: Vec<u8>,
}

impl Journalctl {
    /// Follows a folder after a position, or from now on.
    pub(super) fn start(folder: &Path, after: Option<&Position>) -> std::io::Result<Self> {
        let mut command = Command::new("journalctl");
        command.args(["--output=export", "--follow", "--quiet", "--no-pager", "--all", "--merge"]);
        command.arg("--directory").arg(folder);
        match after {
            Some(after) => command.arg(format!("--after-cursor={after}")).arg("--lines=all"),
            None => command.arg("--lines=0"),
        };
        let mut child =
            command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        Ok(Self { child, stdout, parser: Parser::default(), chunk: vec![0; CHUNK_BYTES] })
    }

    /// Calls `each` with the records that arrive within `timeout` or before shutdown. Returns
    /// whether any bytes arrived; journalctl's end is an error.
    pub(super) fn read(
        &mut self,
        alarm: &Alarm,
        timeout: Duration,
        record: &mut Record,
        mut each: impl FnMut(&Record),
    ) -> std::io::Result<bool> {
        if !alarm.wait([self.stdout.as_fd()], timeout) {
            return Ok(false);
        }
        let n = self.stdout.read(&mut self.chunk)?;
        if n == 0 {
            return Err(std::io::Error::other("journalctl ended"));
        }
        self.parser.push(&self.chunk[..n], record, &mut each);
        Ok(true)
    }
}

impl Drop for Journalctl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Parses the export format incrementally.
#[derive(Default)]
pub(super) struct Parser {
    /// Bytes that aren't parsed yet.
    buffer: Vec<u8>,
    /// Remaining bytes to skip of a field that is too long.
    skip_bytes: u64,
    /// Whether to skip the rest of a line that is too long.
    skip_line: bool,
    /// Whether the current record has its cursor.
    has_cursor: bool,
}

impl Parser {
    /// Parses bytes; calls `each` with each complete record.
    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        record: &mut Record,
        each: &mut impl FnMut(&Record),
    ) {
        while !bytes.is_empty() {
            let skipped = (bytes.len() as u64).min(self.skip_bytes);
            self.skip_bytes -= skipped;
            bytes = &bytes[skipped as usize..];
            let take = bytes.len().min(MAX_FIELD_BYTES);
            self.buffer.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            let used = self.parse_fields(record, each);
            self.buffer.drain(..used.min(self.buffer.len()));
            if self.buffer.len() > 2 * MAX_FIELD_BYTES {
                // A line without an end: no event needs it.
                self.buffer.clear();
                self.skip_line = true;
            }
        }
    }

    /// Parses the complete fields in the buffer; returns their length in bytes.
    fn parse_fields(&mut self, record: &mut Record, each: &mut impl FnMut(&Record)) -> usize {
        let mut at = 0;
        while let Some(len) = self.buffer[at..].iter().position(|b| *b == b'\n') {
            let line = &self.buffer[at..at + len];
            if std::mem::take(&mut self.skip_line) {
                at += len + 1;
            } else if line.is_empty() {
                at += 1;
                if std::mem::take(&mut self.has_cursor) {
                    each(record);
                }
            } else if let Some(equals) = line.iter().position(|b| *b == b'=') {
                put(&mut self.has_cursor, record, &line[..equals], &line[equals + 1..]);
                at += len + 1;
            } else {
                // A name alone, followed by a length of eight bytes, the data, and a line feed.
                let from = at + len + 9;
                let Some(length) = self.buffer.get(at + len + 1..from) else { break };
                let length = length.try_into().map_or(0, u64::from_le_bytes);
                if length > MAX_FIELD_BYTES as u64 {
                    let here = (self.buffer.len() - from) as u64;
                    let whole = length.saturating_add(1);
                    self.skip_bytes = whole.saturating_sub(here);
                    at = from + here.min(whole) as usize;
                    continue;
                }
                let to = from + length as usize;
                let Some(value) = self.buffer.get(from..to) else { break };
                if self.buffer.len() <= to {
                    break;
                }
                put(&mut self.has_cursor, record, line, value);
                at = to + 1;
            }
        }
        at
    }
}

/// Adds a field to the current record. The cursor comes first and starts another record.
fn put(has_cursor: &mut bool, record: &mut Record, name: &[u8], value: &[u8]) {
    if name == b"__CURSOR" {
        let position = std::str::from_utf8(value).ok().and_then(Position::parse);
        *has_cursor = position.is_some();
        record.begin(position.unwrap_or_default());
    } else if let Some(field) = Field::named(name).filter(|_| *has_cursor) {
        record.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CURSOR: &str = "__CURSOR=s=739ad463348b4ceca5a9e69c95a3c93f;i=7;b=6c7c6013a8a34b5ab7a6f1a2ae5ab8ec;m=4;t=5;x=6\n";

    fn sample() -> Vec<u8> {
        let mut bytes = format!("{CURSOR}_PID=7\nMESSAGE\n").into_bytes();
        bytes.extend(9u64.to_le_bytes());
        bytes.extend(b"two\nlines\nCOREDUMP\n");
        bytes.extend(200_000u64.to_le_bytes());
        bytes.extend(vec![b'\n'; 200_000]);
        bytes.extend(format!("\n\n{CURSOR}MESSAGE=second\n\n").bytes());
        bytes
    }

    fn read(chunks: &[&[u8]]) -> Vec<(u64, String, String)> {
        let (mut parser, mut record, mut out) = (Parser::default(), Record::default(), Vec::new());
        for chunk in chunks {
            parser.push(chunk, &mut record, &mut |r| {
                let text = |f| r.text(f).to_owned();
                out.push((r.position.seqnum, text(Field::Pid), text(Field::Message)));
            });
        }
        out
    }

    proptest! {
        #[test]
        fn records_are_independent_of_chunk_boundaries(cuts in prop::collection::vec(0..200_500usize, 0..6)) {
            let bytes = sample();
            let mut cuts: Vec<_> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<_> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            let expected = [
                (7, "7".to_owned(), "two\nlines".to_owned()),
                (7, String::new(), "second".to_owned()),
            ];
            prop_assert_eq!(read(&chunks), expected);
        }

        #[test]
        fn buffer_is_bounded_for_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut parser = Parser::default();
            parser.push(&bytes, &mut Record::default(), &mut |_| {});
            prop_assert!(parser.buffer.len() <= 3 * MAX_FIELD_BYTES);
        }
    }
}
