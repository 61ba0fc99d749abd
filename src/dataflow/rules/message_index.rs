//! Finds the predicates on an event's message that may hold, by texts that the message must have.
//!
//! Most predicates on messages are regular expressions, and nearly no line matches any. One search
//! for the texts of all of them (Aho-Corasick) replaces one search for each.

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::field::FieldRef;
use super::field_test::FieldTest;
use super::predicate::Clause;

/// Shorter texts are in most messages.
const MIN_BYTES: usize = 3;
/// More texts than this for one predicate say little.
const MAX_TEXTS: usize = 64;

/// Predicates by the texts of which a message must have one.
#[derive(Debug)]
pub(super) struct MessageIndex {
    search: AhoCorasick,
    /// For each text the predicates that need it.
    predicates: Vec<Vec<u16>>,
    all: Vec<u16>,
}

impl MessageIndex {
    /// The index of these predicates, each with its texts in lower case; `None` where there are
    /// none, or too many to search for.
    pub(super) fn new(needs: &[(u16, Vec<String>)]) -> Option<Self> {
        let mut texts: Vec<&str> = needs.iter().flat_map(|(_, t)| t).map(String::as_str).collect();
        texts.sort_unstable();
        texts.dedup();
        let mut predicates = vec![Vec::new(); texts.len()];
        for (number, needed) in needs {
            for text in needed {
                if let Ok(at) = texts.binary_search(&text.as_str()) {
                    predicates[at].push(*number);
                }
            }
        }
        let search = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            // A fifth of the memory of the automaton that is chosen otherwise.
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(&texts)
            .ok()
            .filter(|_| !texts.is_empty())?;
        Some(Self { search, predicates, all: needs.iter().map(|(number, _)| *number).collect() })
    }

    /// Calls `each` for every predicate that may hold for a message, for some more than once.
    pub(super) fn candidates(&self, message: &str, mut each: impl FnMut(u16)) {
        // Letters beyond ASCII may be a letter of a text in another case: K, the Kelvin sign.
        if !message.is_ascii() {
            return self.all.iter().for_each(|number| each(*number));
        }
        for found in self.search.find_overlapping_iter(message) {
            self.predicates[found.pattern().as_usize()].iter().for_each(|number| each(*number));
        }
    }
}

/// Texts, in lower case, one of which the message of every event has for which a condition holds.
/// `None`: there are no such texts.
pub(super) fn needed_texts(clause: &Clause) -> Option<Vec<String>> {
    match clause {
        Clause::All(clauses) => clauses.iter().filter_map(needed_texts).max_by_key(|t| worth(t)),
        Clause::Any(clauses) => union(clauses.iter().map(needed_texts)),
        Clause::Field(FieldRef::Message, test) => texts_of_test(test),
        Clause::Not(_) | Clause::Field(..) | Clause::Relates(..) => None,
    }
}

/// The same for a test of the message.
pub(super) fn texts_of_test(test: &FieldTest) -> Option<Vec<String>> {
    match test {
        FieldTest::Contains(text) | FieldTest::Prefix(text) | FieldTest::Suffix(text) => {
            usable(vec![text.to_ascii_lowercase()])
        }
        FieldTest::Regex(regex) | FieldTest::Pattern(regex) => {
            regex_syntax::parse(regex.as_str()).ok().and_then(|hir| texts_of(&hir))
        }
        _ => None,
    }
}

/// The longer its shortest text, the more messages a list excludes.
fn worth(texts: &[String]) -> (usize, std::cmp::Reverse<usize>) {
    (texts.iter().map(String::len).min().unwrap_or(0), std::cmp::Reverse(texts.len()))
}

fn usable(texts: Vec<String>) -> Option<Vec<String>> {
    let is_long = texts.iter().all(|text| text.len() >= MIN_BYTES);
    (is_long && (1..=MAX_TEXTS).contains(&texts.len())).then_some(texts)
}

fn union(all: impl Iterator<Item = Option<Vec<String>>>) -> Option<Vec<String>> {
    let each: Option<Vec<Vec<String>>> = all.collect();
    usable(each?.into_iter().flatten().collect())
}

/// Texts of which one is in every match of an expression.
fn texts_of(hir: &Hir) -> Option<Vec<String>> {
    let mut search = Search::default();
    search.visit(hir);
    search.end_run();
    search.best
}

/// The search for the best texts in an expression.
#[derive(Default)]
struct Search {
    /// The characters that follow each other in every match, up to here.
    run: String,
    best: Option<Vec<String>>,
}

impl Search {
    fn visit(&mut self, hir: &Hir) {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => {}
            HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
                Ok(text) => self.run += &text.to_ascii_lowercase(),
                Err(_) => self.end_run(),
            },
            HirKind::Class(class) => match only_letter(class) {
                Some(letter) => self.run.push(letter),
                None => self.end_run(),
            },
            HirKind::Capture(capture) => self.visit(&capture.sub),
            HirKind::Concat(parts) => parts.iter().for_each(|part| self.visit(part)),
            HirKind::Repetition(repetition) => {
                self.end_run();
                if repetition.min > 0 {
                    self.consider(texts_of(&repetition.sub));
                }
            }
            HirKind::Alternation(branches) => {
                self.end_run();
                self.consider(union(branches.iter().map(texts_of)));
            }
        }
    }

    fn end_run(&mut self) {
        let run = std::mem::take(&mut self.run);
        self.consider(usable(vec![run]));
    }

    fn consider(&mut self, texts: Option<Vec<String>>) {
        if let Some(texts) = texts
            && self.best.as_ref().is_none_or(|best| worth(&texts) > worth(best))
        {
            self.best = Some(texts);
        }
    }
}

/// The letter of a class that has one letter only, in upper and lower case.
fn only_letter(class: &Class) -> Option<char> {
    let Class::Unicode(class) = class else { return None };
    let ascii = class.ranges().iter().filter(|range| range.start().is_ascii());
    let mut letters = ascii.flat_map(|range| range.start()..=range.end().min('\u{7f}'));
    let first = letters.next()?.to_ascii_lowercase();
    letters.all(|letter| letter.to_ascii_lowercase() == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(pattern: &str) -> Option<Vec<String>> {
        texts_of(&regex_syntax::parse(pattern).unwrap())
    }

    #[test]
    fn texts_are_in_every_match() {
        let one = |text: &str| Some(vec![text.to_owned()]);
        for (pattern, expected) in [
            ("lookup (?<name>[a-z]+)", one("lookup ")),
            ("^(?<what>[a-z]+) is Forbidden: User", one(" is forbidden: user")),
            ("(?i)Disk Full", one("disk full")),
            ("(?:ab){2,}xyz", one("xyz")),
            ("(?:abcd)+x", one("abcd")),
            ("(?:abcd)*xy", None),
            ("x(?:timeout|refused)y", Some(vec!["timeout".into(), "refused".into()])),
            ("timeout|no", None),
            ("a(?:b)?cde", one("cde")),
            ("[0-9]+", None),
            ("", None),
        ] {
            assert_eq!(texts(pattern), expected, "{pattern}");
        }
    }

    const PATTERNS: [&str; 8] = [
        "abc",
        "(?i)ask|kit",
        "^a+bca$",
        "(?:abc|bca)x?",
        "a(?<g>[bc]+)kab",
        "(?i:kis)s",
        "b.abc",
        "(?:aab){1,2}c",
    ];

    proptest! {
        #[test]
        fn no_match_is_missed(message in "[abckxsKſ\u{212a}ASB]{0,12}") {
            let needs: Vec<_> = (0u16..)
                .zip(PATTERNS)
                .filter_map(|(number, pattern)| Some((number, texts(pattern)?)))
                .collect();
            let index = MessageIndex::new(&needs).unwrap();
            let mut found = Vec::new();
            index.candidates(&message, |number| found.push(number));
            for (number, _) in &needs {
                let pattern = PATTERNS[usize::from(*number)];
                if regex::Regex::new(pattern).unwrap().is_match(&message) {
                    prop_assert!(found.contains(number), "{pattern}: {message}");
                }
            }
        }
    }
}
