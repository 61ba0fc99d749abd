//! Splits reads into lines. Copies only lines that span several reads.

use serde::{Deserialize, Serialize};

/// The longest line. A longer one is refused without being buffered.
pub(super) const MAX_LINE_BYTES: usize = 16 << 20;

/// The input between two line feeds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// The line, without white space at its end.
    Complete(&'a [u8]),
    /// Only white space.
    Blank,
    /// Longer than [`MAX_LINE_BYTES`].
    TooLong,
}

/// The end of a line in the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LinePosition {
    /// The line's number, from 1; 0 before the first line.
    pub(super) line: u64,
    /// Bytes up to the end of its line feed.
    pub(super) offset: u64,
}

/// The state between two reads.
#[derive(Default)]
pub(super) struct LineSplitter {
    /// The start of a line whose end hasn't been read yet.
    partial: Vec<u8>,
    /// Whether the start was dropped because the line is too long.
    too_long: bool,
    /// Bytes of that line, including dropped ones.
    partial_bytes: u64,
    /// The end of the last line.
    position: LinePosition,
}

impl LineSplitter {
    /// Continues after a line.
    pub(super) fn after(position: LinePosition) -> Self {
        Self { position, ..Self::default() }
    }

    /// The end of the last line that was taken.
    pub(super) fn position(&self) -> LinePosition {
        self.position
    }

    /// Splits `bytes`. Passes each complete line with its number, from 1, to `line`, which returns
    /// whether it takes it. Returns false at a line that wasn't taken; it remains the next one.
    pub(super) fn split(
        &mut self,
        mut bytes: &[u8],
        mut line: impl FnMut(u64, Line<'_>) -> bool,
    ) -> bool {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (first, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            let taken = if self.partial_bytes == 0 {
                self.end(end as u64 + 1, classify(first), &mut line)
            } else {
                self.buffer(first);
                self.end_partial(1, &mut line)
            };
            if !taken {
                return false;
            }
        }
        self.buffer(bytes);
        true
    }

    /// Ends the input: the remainder is a line, too. Returns false if it wasn't taken.
    pub(super) fn finish(&mut self, mut line: impl FnMut(u64, Line<'_>) -> bool) -> bool {
        self.partial_bytes == 0 || self.end_partial(0, &mut line)
    }

    fn end_partial(
        &mut self,
        feed_bytes: u64,
        line: &mut impl FnMut(u64, Line<'_>) -> bool,
    ) -> bool {
        let partial = std::mem::take(&mut self.partial);
        let whole = if self.too_long { Line::TooLong } else { classify(&partial) };
        let taken = self.end(self.partial_bytes + feed_bytes, whole, line);
        self.partial = partial;
        self.partial.clear();
        (self.partial_bytes, self.too_long) = (0, false);
        taken
    }

    fn end(
        &mut self,
        bytes: u64,
        whole: Line<'_>,
        line: &mut impl FnMut(u64, Line<'_>) -> bool,
    ) -> bool {
        let LinePosition { line: last, offset } = self.position;
        let taken = line(last + 1, whole);
        if taken {
            self.position = LinePosition { line: last + 1, offset: offset + bytes };
        }
        taken
    }

    fn buffer(&mut self, part: &[u8]) {
        self.partial_bytes += part.len() as u64;
        if self.partial.len() + part.len() > MAX_LINE_BYTES {
            self.too_long = true;
            self.partial = Vec::new();
        }
        if !self.too_long {
            self.partial.extend_from_slice(part);
        }
    }
}

fn classify(line: &[u8]) -> Line<'_> {
    match line.trim_ascii() {
        [] => Line::Blank,
        _ if line.len() > MAX_LINE_BYTES => Line::TooLong,
        // Only the end is trimmed: columns count from the start of the line.
        _ => Line::Complete(line.trim_ascii_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(chunks: &[&[u8]]) -> Vec<(u64, Option<Vec<u8>>)> {
        let mut lines = LineSplitter::default();
        let mut out = Vec::new();
        let mut push = |n, line: Line<'_>| match line {
            Line::Complete(bytes) => out.push((n, Some(bytes.to_vec()))),
            Line::Blank => {}
            Line::TooLong => out.push((n, None)),
        };
        for chunk in chunks {
            lines.split(chunk, |n, line| {
                push(n, line);
                true
            });
        }
        lines.finish(|n, line| {
            push(n, line);
            true
        });
        let bytes: usize = chunks.iter().map(|c| c.len()).sum();
        assert_eq!(lines.position().offset, bytes as u64);
        out
    }

    proptest! {
        #[test]
        fn lines_are_independent_of_read_boundaries(
            text in "[a-c \\r\\n]{0,80}", cuts in prop::collection::vec(0..80usize, 0..8)
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.push(0);
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let chunks: Vec<_> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            let expected: Vec<_> = text
                .split('\n')
                .zip(1..)
                .filter(|(line, _)| !line.trim().is_empty())
                .map(|(line, n)| (n, Some(line.trim_end().as_bytes().to_vec())))
                .collect();
            prop_assert_eq!(all(&chunks), expected);
        }
    }

    #[test]
    fn line_that_is_not_taken_remains_the_next_one() {
        let mut lines = LineSplitter::default();
        assert!(lines.split(b"a\nbb", |_, _| true));
        assert!(!lines.split(b"b\nc\n", |n, _| n != 2));
        let position = lines.position();
        assert_eq!(position, LinePosition { line: 1, offset: 2 });
        let mut lines = LineSplitter::after(position);
        let mut got = Vec::new();
        assert!(lines.split(b"bbb\nc\n", |n, _| {
            got.push(n);
            true
        }));
        assert_eq!((got, lines.position().offset), (vec![2, 3], 8));
    }

    #[test]
    fn too_long_line_is_not_buffered() {
        let mut lines = LineSplitter::default();
        let part = vec![b'x'; 3_000_000];
        for _ in 0..100 {
            assert!(lines.split(&part, |_, _| panic!("no line has ended")));
            assert!(lines.partial.capacity() <= 2 * MAX_LINE_BYTES);
        }
        let mut got = Vec::new();
        lines.split(b"x\nshort\n", |n, line| {
            got.push((n, line == Line::TooLong, line == Line::Complete(b"short")));
            true
        });
        assert_eq!(got, [(1, true, false), (2, false, true)]);
        let longest = [&vec![b'y'; MAX_LINE_BYTES][..], b"\n"].concat();
        assert!(matches!(all(&[&longest])[..], [(1, Some(_))]));
    }
}
