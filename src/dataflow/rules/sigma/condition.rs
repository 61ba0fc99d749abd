//! Conditions: `and`, `or`, `not`, parentheses, `1 of x*`, `all of them`. A detection's condition
//! is over its selections, a correlation's over the rules it refers to.

use super::super::predicate::Clause;
use super::super::shape::PartCondition;
use super::super::suggest::unknown;
use super::super::yaml::{Parsed, Position, reject};
use tapio_core::glob;

/// Deepest nesting of parentheses; protects the stack.
const MAX_DEPTH: usize = 64;

/// A type that conditions compile to.
pub(super) trait Compound: Clone {
    /// All conditions hold.
    fn all(of: Vec<Self>) -> Self;
    /// At least one condition holds.
    fn any(of: Vec<Self>) -> Self;
    /// The condition doesn't hold.
    fn not(of: Self) -> Self;
}

macro_rules! compound {
    ($($of:ty),*) => {
        $(impl Compound for $of {
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

compound!(Clause, PartCondition);

struct Parser<'a, W> {
    words: Vec<&'a str>,
    at: usize,
    depth: usize,
    position: Position,
    /// The noun for named things, for messages.
    noun: &'a str,
    named: &'a [(String, W)],
}

/// Compiles a condition over named things; `noun` is the word for one.
pub(super) fn parse<W: Compound>(
    text: &str,
    position: Position,
    noun: &str,
    named: &[(String, W)],
) -> Parsed<W> {
    if text.contains('|') {
        let message = "condition: `|` isn't possible here; write a correlation rule";
        return reject(position, message);
    }
    let words = words(text);
    let mut parser = Parser { words, at: 0, depth: 0, position, noun, named };
    let clause = parser.any()?;
    match parser.words.get(parser.at) {
        None => Ok(clause),
        Some(word) => reject(position, format!("condition: unexpected `{word}`")),
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

impl<'a, W: Compound> Parser<'a, W> {
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

    fn any(&mut self) -> Parsed<W> {
        let mut clauses = vec![self.all()?];
        while self.take("or") {
            clauses.push(self.all()?);
        }
        Ok(one_or(clauses, W::any))
    }

    fn all(&mut self) -> Parsed<W> {
        let mut clauses = vec![self.not()?];
        while self.take("and") {
            clauses.push(self.not()?);
        }
        Ok(one_or(clauses, W::all))
    }

    fn not(&mut self) -> Parsed<W> {
        let mut negated = false;
        while self.take("not") {
            negated = !negated;
        }
        let clause = self.primary()?;
        Ok(if negated { W::not(clause) } else { clause })
    }

    fn primary(&mut self) -> Parsed<W> {
        let Some(word) = self.next() else {
            return reject(self.position, "condition: unexpected end");
        };
        if word == "(" {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return reject(self.position, "condition: parentheses nested too deep");
            }
            let clause = self.any()?;
            self.depth -= 1;
            return match self.take(")") {
                true => Ok(clause),
                false => reject(self.position, "condition: missing `)`"),
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
                reject(self.position, format!("condition: {}", unknown(self.noun, word, &names)))
            }
        }
    }

    fn quantified(&mut self, how_many: &str) -> Parsed<W> {
        let Some(pattern) = self.next() else {
            return reject(self.position, "condition: a name or `them` must follow `of`");
        };
        let matches = |name: &str| match pattern.eq_ignore_ascii_case("them") {
            true => !name.starts_with('_'),
            false => glob::matches(pattern, name),
        };
        let chosen: Vec<W> = self
            .named
            .iter()
            .filter(|(name, _)| matches(name))
            .map(|(_, clause)| clause.clone())
            .collect();
        if chosen.is_empty() {
            let message = format!("condition: no {} matches `{pattern}`", self.noun);
            return reject(self.position, message);
        }
        match how_many.to_ascii_lowercase().as_str() {
            "all" => Ok(W::all(chosen)),
            "1" | "any" => Ok(W::any(chosen)),
            other => {
                let message =
                    format!("condition: `{other} of`: expected `1 of`, `any of` or `all of`");
                reject(self.position, message)
            }
        }
    }
}

/// The only clause, or all of them combined.
pub(super) fn one_or<W>(mut clauses: Vec<W>, many: fn(Vec<W>) -> W) -> W {
    match (clauses.len(), clauses.pop()) {
        (1, Some(clause)) => clause,
        (_, last) => {
            clauses.extend(last);
            many(clauses)
        }
    }
}
