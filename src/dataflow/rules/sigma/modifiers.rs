//! The modifiers behind a field's name: `field|contains|all`.

use super::super::field_test::Order;
use super::super::predicate::TextPart;
use super::super::suggest::unknown;
use super::super::yaml::{Parsed, Position, reject};
use super::encoding::Encoding;

const MODIFIERS: &[&str] = &[
    "contains",
    "startswith",
    "endswith",
    "all",
    "re",
    "i",
    "m",
    "s",
    "cidr",
    "gt",
    "gte",
    "lt",
    "lte",
    "neq",
    "exists",
    "cased",
    "windash",
    "fieldref",
    "wide",
    "utf16le",
    "utf16be",
    "utf16",
    "base64",
    "base64offset",
];

/// The modifiers of an entry.
#[derive(Default)]
pub(super) struct Modifiers {
    pub(super) contains: bool,
    pub(super) starts: bool,
    pub(super) ends: bool,
    pub(super) all: bool,
    pub(super) cased: bool,
    pub(super) windash: bool,
    /// The flags of a regular expression.
    pub(super) regex: Option<String>,
    pub(super) network: bool,
    pub(super) exists: bool,
    pub(super) negated: bool,
    pub(super) fieldref: bool,
    pub(super) order: Option<Order>,
    pub(super) encodings: Vec<Encoding>,
}

impl Modifiers {
    pub(super) fn parse<'a>(
        words: impl Iterator<Item = &'a str>,
        position: Position,
    ) -> Parsed<Self> {
        let mut of = Self::default();
        for word in words {
            match word {
                "contains" => of.contains = true,
                "startswith" => of.starts = true,
                "endswith" => of.ends = true,
                "all" => of.all = true,
                "cased" => of.cased = true,
                "windash" => of.windash = true,
                "re" => of.regex = Some(String::new()),
                "i" | "m" | "s" if of.regex.is_some() => {
                    of.regex.get_or_insert_default().push_str(word);
                }
                "cidr" => of.network = true,
                "exists" => of.exists = true,
                "neq" => of.negated = true,
                "fieldref" => of.fieldref = true,
                "gt" => of.order = Some(Order::Gt),
                "gte" => of.order = Some(Order::Gte),
                "lt" => of.order = Some(Order::Lt),
                "lte" => of.order = Some(Order::Lte),
                other => match Encoding::parse(other) {
                    Some(encoding) => of.encodings.push(encoding),
                    None => return reject(position, unknown("modifier", other, MODIFIERS)),
                },
            }
        }
        Ok(of)
    }

    /// Whether the value is a part of the field.
    pub(super) fn has_part(&self) -> bool {
        self.contains || self.starts || self.ends
    }

    /// The part of the field that the value is.
    pub(super) fn part(&self) -> TextPart {
        match (self.contains, self.starts, self.ends) {
            (true, ..) | (_, true, true) => TextPart::Any,
            (_, true, false) => TextPart::Start,
            (_, false, true) => TextPart::End,
            (_, false, false) => TextPart::Whole,
        }
    }
}
