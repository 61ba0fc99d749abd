//! Cuts what is read into lines, copying only those that two reads tore apart.

/// The longest line. A longer one is refused without being held.
pub(super) const MAX_LINE_BYTES: usize = 1 << 20;

/// A piece of input between two line feeds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut<'a> {
    /// A line, without its end.
    Line(&'a [u8]),
    /// Nothing but white space.
    Blank,
    /// More than [`MAX_LINE_BYTES`].
    TooLong,
}

/// The state between two reads.
#[derive(Default)]
pub(super) struct Lines {
    /// The beginning of a line whose end wasn't read yet.
    torn: Vec<u8>,
    /// Whether the beginning was thrown away, as the line is too long.
    too_long: bool,
    /// Lines cut so far.
    number: u64,
}

impl Lines {
    /// Cuts `bytes`; `line` gets each complete line with its number, from 1, and says whether to
    /// go on.
    pub(super) fn cut(&mut self, mut bytes: &[u8], mut line: impl FnMut(u64, Cut<'_>) -> bool) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (first, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            if self.torn.is_empty() && !self.too_long {
                self.number += 1;
                if !line(self.number, cut(first)) {
                    return;
                }
            } else {
                self.keep(first);
                if !self.end(&mut line) {
                    return;
                }
            }
        }
        self.keep(bytes);
    }

    /// The source has ended: what is left is a line, too.
    pub(super) fn finish(&mut self, mut line: impl FnMut(u64, Cut<'_>)) {
        if !self.torn.is_empty() || self.too_long {
            self.end(&mut |number, cut| {
                line(number, cut);
                true
            });
        }
    }

    fn end(&mut self, line: &mut impl FnMut(u64, Cut<'_>) -> bool) -> bool {
        self.number += 1;
        let whole = if self.too_long { Cut::TooLong } else { cut(&self.torn) };
        let go_on = line(self.number, whole);
        self.torn.clear();
        self.too_long = false;
        go_on
    }

    fn keep(&mut self, part: &[u8]) {
        if self.torn.len() + part.len() > MAX_LINE_BYTES {
            self.too_long = true;
            self.torn = Vec::new();
        }
        if !self.too_long {
            self.torn.extend_from_slice(part);
        }
    }
}

fn cut(line: &[u8]) -> Cut<'_> {
    match line.trim_ascii() {
        [] => Cut::Blank,
        _ if line.len() > MAX_LINE_BYTES => Cut::TooLong,
        // The end only: columns count from the line's begin.
        _ => Cut::Line(line.trim_ascii_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(chunks: &[&[u8]]) -> Vec<(u64, Option<Vec<u8>>)> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        let mut push = |n, cut: Cut<'_>| match cut {
            Cut::Line(bytes) => out.push((n, Some(bytes.to_vec()))),
            Cut::Blank => {}
            Cut::TooLong => out.push((n, None)),
        };
        for chunk in chunks {
            lines.cut(chunk, |n, cut| {
                push(n, cut);
                true
            });
        }
        lines.finish(push);
        out
    }

    proptest! {
        #[test]
        fn lines_dont_depend_on_where_reads_end(
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
    fn a_line_that_is_too_long_is_not_held() {
        let mut lines = Lines::default();
        let part = vec![b'x'; 300_000];
        for _ in 0..100 {
            lines.cut(&part, |_, _| panic!("no line has ended"));
            assert!(lines.torn.capacity() <= 2 * MAX_LINE_BYTES);
        }
        let mut got = Vec::new();
        lines.cut(b"x\nshort\n", |n, cut| {
            got.push((n, cut == Cut::TooLong, cut == Cut::Line(b"short")));
            true
        });
        assert_eq!(got, [(1, true, false), (2, false, true)]);
        let longest = [&vec![b'y'; MAX_LINE_BYTES][..], b"\n"].concat();
        assert!(matches!(all(&[&longest])[..], [(1, Some(_))]));
    }
}
