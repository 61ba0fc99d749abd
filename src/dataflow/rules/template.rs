//! Texts with variables that a story's events fill, such as
//! `"{oom.process.executable.name} used {oom.attributes.tapio.oom.rss_bytes:bytes}"`.
//!
//! A variable is `{name.field}` (the first member that matched the event `name`),
//! `{name.match.group}` (the text that a named group of that event's regular expression captured),
//! `{key.field}` (the join key), `{count}` or `{count.name}` (number of members, all or of one
//! event), `{duration}`, and of rules that compare with what is usual `{value}`, `{usual}` and
//! `{deviation}`. A filter may follow: `:lower`, `:upper`, `:base` (behind the last
//! slash), `:bytes`, `:duration` (of nanoseconds).
//! A text with a variable that has no value is omitted as a whole.

use std::net::Ipv6Addr;

use super::field::FieldRef;
use super::suggest::unknown;
use super::yaml::{Parsed, Position, reject};
use crate::shell_text::ShellText;

/// A text with variables.
#[derive(Clone, Debug, Default)]
pub struct Template {
    pub(super) parts: Vec<Piece>,
}

#[derive(Clone, Debug)]
pub(super) enum Piece {
    Text(String),
    Variable(Variable, Filter),
}

/// The value that fills a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// A field of the first member that matched an event of the rule, by its number.
    Field(usize, FieldRef),
    /// A named group of a regular expression of an event of the rule.
    Capture(usize, String),
    /// A field of the join key.
    Key(FieldRef),
    /// Number of members, of one event or in all.
    Count(Option<usize>),
    /// Time from the first member to the last.
    Duration,
    /// Of the measured value that deviated most.
    Measured(Measured),
}

/// A number of a value that deviates from what is usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// The value.
    Value,
    /// The usual value.
    Usual,
    /// The distance between both, in standard deviations.
    Deviation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    None,
    Lower,
    Upper,
    Base,
    Bytes,
    Duration,
}

const FILTERS: &[&str] = &["lower", "upper", "base", "bytes", "duration"];

/// A duration as text for people.
#[must_use]
pub fn duration_text(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        1_000_000_000..60_000_000_000 => format!("{:.1} s", ns as f64 / 1e9),
        60_000_000_000..3_600_000_000_000 => two_units(ns / 1_000_000_000, 60, ["min", "s"]),
        3_600_000_000_000..86_400_000_000_000 => two_units(ns / 60_000_000_000, 60, ["h", "min"]),
        _ => two_units(ns / 3_600_000_000_000, 24, ["d", "h"]),
    }
}

/// `count` of the smaller of two units, `per` of which are one of the larger.
fn two_units(count: u64, per: u64, [large, small]: [&str; 2]) -> String {
    match count % per {
        0 => format!("{} {large}", count / per),
        rest => format!("{} {large} {rest} {small}", count / per),
    }
}

/// A size as text for people.
#[must_use]
pub fn bytes_text(bytes: f64) -> String {
    let mut size = bytes;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if size < 1024.0 {
            return if unit == "B" { format!("{size:.0} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1024.0;
    }
    format!("{size:.1} TiB")
}

impl Filter {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "lower" => Self::Lower,
            "upper" => Self::Upper,
            "base" => Self::Base,
            "bytes" => Self::Bytes,
            "duration" => Self::Duration,
            _ => return None,
        })
    }

    fn apply(self, text: String) -> String {
        match self {
            Self::None => text,
            Self::Lower => text.to_lowercase(),
            Self::Upper => text.to_uppercase(),
            Self::Base => text.rsplit('/').next().unwrap_or_default().to_owned(),
            Self::Bytes => text.parse().map_or(text, bytes_text),
            Self::Duration => text.parse().map_or(text, duration_text),
        }
    }
}

impl Template {
    /// A text without variables.
    #[must_use]
    pub fn verbatim(text: &str) -> Self {
        Self { parts: vec![Piece::Text(text.to_owned())] }
    }

    /// Parses a text. `events` are the names of the rule's events.
    pub(super) fn parse(text: &str, position: Position, events: &[&str]) -> Parsed<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let Some(close) = rest[open..].find('}') else {
                return reject(position, format!("`{{` without `}}` in {text:?}"));
            };
            if open > 0 {
                parts.push(Piece::Text(rest[..open].to_owned()));
            }
            let inner = &rest[open + 1..open + close];
            let (path, filter) = match inner.rsplit_once(':') {
                None => (inner, Filter::None),
                Some((path, name)) => match Filter::parse(name) {
                    Some(filter) => (path, filter),
                    None => return reject(position, unknown("filter", name, FILTERS)),
                },
            };
            parts.push(Piece::Variable(variable(path, position, events)?, filter));
            rest = &rest[open + close + 1..];
        }
        if !rest.is_empty() {
            parts.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// The variables, in order.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.parts.iter().filter_map(|p| match p {
            Piece::Variable(variable, _) => Some(variable),
            Piece::Text(_) => None,
        })
    }

    /// Fills the variables; `None` if one has no value.
    pub fn fill(&self, value: impl Fn(&Variable) -> Option<String>) -> Option<String> {
        let mut out = String::new();
        for (at, part) in self.parts.iter().enumerate() {
            match part {
                Piece::Text(text) => out.push_str(text),
                Piece::Variable(variable, filter) => {
                    let text = filter.apply(value(variable).filter(|v| !v.is_empty())?);
                    match self.has_port_at(at + 1) && text.parse::<Ipv6Addr>().is_ok() {
                        true => out.push_str(&format!("[{text}]")),
                        false => out.push_str(&text),
                    }
                }
            }
        }
        Some(out)
    }

    /// Fills the variables of a text that people paste into a shell: values are quoted where a
    /// shell would take them for more than a word ([`ShellText`]). `None` if one has no value.
    pub fn fill_for_shell(&self, value: impl Fn(&Variable) -> Option<String>) -> Option<String> {
        let mut out = ShellText::default();
        for (at, part) in self.parts.iter().enumerate() {
            match part {
                Piece::Text(text) => out.push_own(text),
                Piece::Variable(variable, filter) => {
                    let text = filter.apply(value(variable).filter(|v| !v.is_empty())?);
                    if matches!(filter, Filter::Bytes | Filter::Duration) {
                        out.push_own(&text);
                    } else if self.has_port_at(at + 1) && text.parse::<Ipv6Addr>().is_ok() {
                        out.push_own(&format!("[{text}]"));
                    } else {
                        out.push_value(&text);
                    }
                }
            }
        }
        Some(out.into_text())
    }

    /// Whether a port follows here: a colon, and then a variable or a digit.
    fn has_port_at(&self, at: usize) -> bool {
        let Some(Piece::Text(text)) = self.parts.get(at) else { return false };
        match text.as_bytes() {
            b":" => matches!(self.parts.get(at + 1), Some(Piece::Variable(..))),
            [b':', next, ..] => next.is_ascii_digit(),
            _ => false,
        }
    }
}

fn variable(path: &str, position: Position, events: &[&str]) -> Parsed<Variable> {
    let field = |text: &str| {
        FieldRef::parse(text).or_else(|message| reject(position, format!("{{{path}}}: {message}")))
    };
    let event = |name: &str| match events.iter().position(|e| *e == name) {
        Some(i) => Ok(i),
        None => reject(position, format!("{{{path}}}: {}", unknown("event", name, events))),
    };
    match path.split_once('.') {
        None if path == "count" => Ok(Variable::Count(None)),
        None if path == "duration" => Ok(Variable::Duration),
        None if path == "value" => Ok(Variable::Measured(Measured::Value)),
        None if path == "usual" => Ok(Variable::Measured(Measured::Usual)),
        None if path == "deviation" => Ok(Variable::Measured(Measured::Deviation)),
        None => reject(
            position,
            format!(
                "{{{path}}}: expected {{event.field}}, {{key.field}}, {{count}} or {{duration}}"
            ),
        ),
        Some(("key", rest)) => Ok(Variable::Key(field(rest)?)),
        Some(("count", name)) => Ok(Variable::Count(Some(event(name)?))),
        Some((name, rest)) => {
            let event = event(name)?;
            match rest.strip_prefix("match.") {
                Some(group) => Ok(Variable::Capture(event, group.to_owned())),
                None => Ok(Variable::Field(event, field(rest)?)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Parsed<Template> {
        Template::parse(text, Position::default(), &["oom"])
    }

    #[test]
    fn address_before_a_port_has_brackets_if_it_needs_them() {
        let fill = |text: &str, value: &str| {
            let template = parse(text).unwrap();
            template.fill(|_| Some(value.to_owned())).unwrap()
        };
        let endpoint = "to {oom.attributes.a}:{oom.attributes.a} of {oom.attributes.a}: {count}";
        assert_eq!(fill(endpoint, "::1"), "to [::1]:::1 of ::1: ::1");
        assert_eq!(fill(endpoint, "10.0.0.1"), "to 10.0.0.1:10.0.0.1 of 10.0.0.1: 10.0.0.1");
        assert_eq!(fill("{oom.attributes.a}:53", "fd00::7"), "[fd00::7]:53");
    }

    #[test]
    fn text_with_an_empty_hole_is_omitted() {
        let template =
            parse("{oom.attributes.tapio.oom.rss_bytes:bytes} of {oom.message:upper}").unwrap();
        let fill = |message: Option<&str>| {
            template.fill(|variable| match variable {
                Variable::Field(0, FieldRef::Message) => message.map(str::to_owned),
                _ => Some("2097152".into()),
            })
        };
        assert_eq!(fill(Some("x")).unwrap(), "2.0 MiB of X");
        assert_eq!(fill(None), None);
    }

    #[test]
    fn mistake_is_reported_with_a_suggestion() {
        for (text, message) in [
            ("{oom.message", "without"),
            ("{oon.message}", "did you mean `oom`"),
            ("{oom.message:lowr}", "did you mean `lower`"),
            ("{oom.k8s.pod.uiid}", "k8s.pod.uid"),
            ("{total}", "expected"),
        ] {
            assert!(parse(text).unwrap_err().message.contains(message), "{text}");
        }
    }
}
