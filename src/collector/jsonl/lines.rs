//! Splits reads into lines. Copies only lines that span several reads.

/// The longest line. A longer one is refused without being buffered.
pub(super) const MAX_LINE_BYTES: usize = 1 << 20;

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

/// The state between two reads.
#[derive(Default)]
pub(super) struct LineSplitter {
    /// The start of a line whose end hasn't been read yet.
    partial: Vec<u8>,
    /// Whether the start was dropped because the line is too long.
    too_long: bool,
    /// Number of the last line.
    number: u64,
}

impl LineSplitter {
    /// Splits `bytes`. Passes each complete line with its number, from 1, to `line`, which returns
    /// whether to continue.
    pub(super) fn split(&mut self, mut bytes: &[u8], mut line: impl FnMut(u64, Line<'_>) -> bool) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (first, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            if self.partial.is_empty() && !self.too_long {
                self.number += 1;
                if !line(self.number, classify(first)) {
                    return;
                }
            } else {
                self.buffer(first);
                if !self.end(&mut line) {
                    return;
                }
            }
        }
        self.buffer(bytes);
    }

    /// Ends the input: the remainder is a line, too.
    pub(super) fn finish(&mut self, mut line: impl FnMut(u64, Line<'_>)) {
        if !self.partial.is_empty() || self.too_long {
            self.end(&mut |number, last| {
                line(number, last);
                true
            });
        }
    }

    fn end(&mut self, line: &mut impl FnMut(u64, Line<'_>) -> bool) -> bool {
        self.number += 1;
        let whole = if self.too_long { Line::TooLong } else { classify(&self.partial) };
        let proceed = line(self.number, whole);
        self.partial.clear();
        self.too_long = false;
        proceed
    }

    fn buffer(&mut self, part: &[u8]) {
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
        lines.finish(push);
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
    fn too_long_line_is_not_buffered() {
        let mut lines = LineSplitter::default();
        let part = vec![b'x'; 300_000];
        for _ in 0..100 {
            lines.split(&part, |_, _| panic!("no line has ended"));
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
