//! Conditions in words: `and`, `or`, `not`, parentheses, `1 of x*`, `all of them`. A detection's is over its
//! selections, a correlation's over the rules it refers to.

use super::super::predicate::Clause;
use super::super::rule::Seen;
use super::super::tree::{Place, Read, complain, unknown};

/// How deep parentheses may nest: a hostile rule can't exhaust the stack.
const MAX_DEPTH: usize = 64;

/// What words can be put together to.
pub(super) trait Words: Clone {
    /// All of these.
    fn all(of: Vec<Self>) -> Self;
    /// At least one of these.
    fn any(of: Vec<Self>) -> Self;
    /// Not this.
    fn not(of: Self) -> Self;
}

macro_rules! words {
    ($($of:ty),*) => {
        $(impl Words for $of {
            fn all(of: Vec<Self>) -> Self {
                Self::All(of)
            }

            fn any(of: Vec<Self>) -> Self {
                Self::Any(of)
            }

            fn not(of: Self) -> Self {
                Self::Not(Box::new(of))
            }
        })*
    };
}

words!(Clause, Seen);

struct Parser<'a, W> {
    words: Vec<&'a str>,
    at: usize,
    depth: usize,
    place: Place,
    /// What is being named, in a word.
    what: &'a str,
    named: &'a [(String, W)],
}

/// Compiles a condition over `named` things, each a `what`.
pub(super) fn parse<W: Words>(
    text: &str,
    place: Place,
    what: &str,
    named: &[(String, W)],
) -> Read<W> {
    if text.contains('|') {
        return complain(
            place,
            "a condition with `|` is Sigma's old way to count; write a correlation rule",
        );
    }
    let words = words(text);
    let mut parser = Parser { words, at: 0, depth: 0, place, what, named };
    let clause = parser.any()?;
    match parser.words.get(parser.at) {
        None => Ok(clause),
        Some(word) => complain(place, format!("condition: `{word}` isn't expected there")),
    }
}

/// The names, operators and parentheses of a condition.
pub(super) fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for part in text.split_whitespace() {
        let mut rest = part;
        while let Some(at) = rest.find(['(', ')']) {
            if at > 0 {
                words.push(&rest[..at]);
            }
            words.push(&rest[at..=at]);
            rest = &rest[at + 1..];
        }
        if !rest.is_empty() {
            words.push(rest);
        }
    }
    words
}

impl<'a, W: Words> Parser<'a, W> {
    fn next(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at).copied();
        self.at += 1;
        word
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.get(self.at).is_some_and(|w| w.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    fn any(&mut self) -> Read<W> {
        let mut clauses = vec![self.all()?];
        while self.take("or") {
            clauses.push(self.all()?);
        }
        Ok(one_or(clauses, W::any))
    }

    fn all(&mut self) -> Read<W> {
        let mut clauses = vec![self.not()?];
        while self.take("and") {
            clauses.push(self.not()?);
        }
        Ok(one_or(clauses, W::all))
    }

    fn not(&mut self) -> Read<W> {
        let mut negated = false;
        while self.take("not") {
            negated = !negated;
        }
        let clause = self.primary()?;
        Ok(if negated { W::not(clause) } else { clause })
    }

    fn primary(&mut self) -> Read<W> {
        let Some(word) = self.next() else {
            return complain(self.place, "condition: it ends too early");
        };
        if word == "(" {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return complain(self.place, "condition: too many parentheses");
            }
            let clause = self.any()?;
            self.depth -= 1;
            return match self.take(")") {
                true => Ok(clause),
                false => complain(self.place, "condition: a `)` is missing"),
            };
        }
        let quantified = self.words.get(self.at).is_some_and(|w| w.eq_ignore_ascii_case("of"));
        if quantified {
            self.at += 1;
            return self.quantified(word);
        }
        match self.named.iter().find(|(name, _)| name == word) {
            Some((_, clause)) => Ok(clause.clone()),
            None => {
                let names: Vec<&str> = self.named.iter().map(|(n, _)| n.as_str()).collect();
                complain(self.place, format!("condition: {}", unknown(self.what, word, &names)))
            }
        }
    }

    fn quantified(&mut self, how_many: &str) -> Read<W> {
        let Some(pattern) = self.next() else {
            return complain(self.place, "condition: of what?");
        };
        let matches = |name: &str| match pattern.split_once('*') {
            None if pattern.eq_ignore_ascii_case("them") => !name.starts_with('_'),
            None => name == pattern,
            Some((head, tail)) => {
                name.len() >= head.len() + tail.len()
                    && name.starts_with(head)
                    && name.ends_with(tail)
            }
        };
        let chosen: Vec<W> = self
            .named
            .iter()
            .filter(|(name, _)| matches(name))
            .map(|(_, clause)| clause.clone())
            .collect();
        if chosen.is_empty() {
            let cause = format!("condition: no {} is called `{pattern}`", self.what);
            return complain(self.place, cause);
        }
        match how_many.to_ascii_lowercase().as_str() {
            "all" => Ok(W::all(chosen)),
            "1" | "any" => Ok(W::any(chosen)),
            other => {
                let cause =
                    format!("condition: `{other} of`: expected `1 of`, `any of` or `all of`");
                complain(self.place, cause)
            }
        }
    }
}

/// The only one there is, or all together.
pub(super) fn one_or<W>(mut clauses: Vec<W>, many: fn(Vec<W>) -> W) -> W {
    match (clauses.len(), clauses.pop()) {
        (1, Some(clause)) => clause,
        (_, last) => {
            clauses.extend(last);
            many(clauses)
        }
    }
}
