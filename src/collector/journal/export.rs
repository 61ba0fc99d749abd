//! What only journalctl can read: files of a later format, through `journalctl -o export`
//! (systemd's docs/JOURNAL_EXPORT_FORMATS.md).

use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::position::Position;
use super::record::{Field, Record};
use crate::runtime::alarm::Alarm;

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// The longest field that is held, in bytes; longer ones are passed over.
const MOST_HELD: usize = 64 << 10;

/// A running journalctl; it ends with the value.
pub(super) struct Journalctl {
    child: Child,
    stdout: ChildStdout,
    parser: Parser,
    chunk: Vec<u8>,
}

impl Journalctl {
    /// Follows a folder after a place, or from now on.
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

    /// Gives the records that come within a while, or before the collector is to end. Returns whether any bytes came; an end is an error.
    pub(super) fn read(
        &mut self,
        alarm: &Alarm,
        at_most: Duration,
        record: &mut Record,
        mut each: impl FnMut(&Record),
    ) -> std::io::Result<bool> {
        if !alarm.wait([self.stdout.as_fd()], at_most) {
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

/// The state between two reads.
#[derive(Default)]
pub(super) struct Parser {
    held: Vec<u8>,
    /// Bytes of a field that is too long, still to be passed over.
    pass: u64,
    /// Whether the rest of a line that is too long is passed over.
    pass_line: bool,
    begun: bool,
}

impl Parser {
    /// Takes bytes in; `each` gets a record when it is whole.
    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        record: &mut Record,
        each: &mut impl FnMut(&Record),
    ) {
        while !bytes.is_empty() {
            let passed = (bytes.len() as u64).min(self.pass);
            self.pass -= passed;
            bytes = &bytes[passed as usize..];
            let take = bytes.len().min(MOST_HELD);
            self.held.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            let used = self.fields(record, each);
            self.held.drain(..used.min(self.held.len()));
            if self.held.len() > 2 * MOST_HELD {
                // A line without an end: of no use to an event.
                self.held.clear();
                self.pass_line = true;
            }
        }
    }

    /// Reads what is whole of what is held; returns how many bytes that is.
    fn fields(&mut self, record: &mut Record, each: &mut impl FnMut(&Record)) -> usize {
        let mut at = 0;
        while let Some(len) = self.held[at..].iter().position(|b| *b == b'\n') {
            let line = &self.held[at..at + len];
            if std::mem::take(&mut self.pass_line) {
                at += len + 1;
            } else if line.is_empty() {
                at += 1;
                if std::mem::take(&mut self.begun) {
                    each(record);
                }
            } else if let Some(equals) = line.iter().position(|b| *b == b'=') {
                put(&mut self.begun, record, &line[..equals], &line[equals + 1..]);
                at += len + 1;
            } else {
                // A name alone: a length in eight bytes, as much data and a line feed follow.
                let from = at + len + 9;
                let Some(length) = self.held.get(at + len + 1..from) else { break };
                let length = length.try_into().map_or(0, u64::from_le_bytes);
                if length > MOST_HELD as u64 {
                    let here = (self.held.len() - from) as u64;
                    let whole = length.saturating_add(1);
                    self.pass = whole.saturating_sub(here);
                    at = from + here.min(whole) as usize;
                    continue;
                }
                let to = from + length as usize;
                let Some(value) = self.held.get(from..to) else { break };
                if self.held.len() <= to {
                    break;
                }
                put(&mut self.begun, record, line, value);
                at = to + 1;
            }
        }
        at
    }
}

/// A field of the record that is being read; its cursor comes first.
fn put(begun: &mut bool, record: &mut Record, name: &[u8], value: &[u8]) {
    if name == b"__CURSOR" {
        let position = std::str::from_utf8(value).ok().and_then(Position::parse);
        *begun = position.is_some();
        record.begin(position.unwrap_or_default());
    } else if let Some(field) = Field::named(name).filter(|_| *begun) {
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
        fn records_dont_depend_on_where_reads_end(cuts in prop::collection::vec(0..200_500usize, 0..6)) {
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
        fn any_bytes_are_bounded(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut parser = Parser::default();
            parser.push(&bytes, &mut Record::default(), &mut |_| {});
            prop_assert!(parser.held.len() <= 3 * MOST_HELD);
        }
    }
}
