//! Durations in configuration and rules: `250us`, `1s`, `10m`, `30d`.

use std::borrow::Cow;
use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Text is not a duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a duration such as \"250us\", \"1s\", \"10m\" or \"30d\"{cause}")]
pub struct ParseDurationError {
    text: String,
    cause: String,
}

/// Parses a duration. A day has 24 hours, a week seven days; months and years are refused because
/// they have no fixed length.
///
/// # Errors
/// When the text is not a duration, or a negative one.
pub fn parse(text: &str) -> Result<Duration, ParseDurationError> {
    let error = |cause: String| ParseDurationError { text: text.chars().take(64).collect(), cause };
    let span: Span = text.trim().parse().map_err(|_| error(String::new()))?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| error(": months and years have no fixed length".into()))?;
    Duration::try_from(duration).map_err(|_| error(": it is negative".into()))
}

/// Formats a duration in the syntax of [`parse`].
#[must_use]
pub fn text(duration: Duration) -> String {
    SignedDuration::try_from(duration)
        .map_or_else(|_| format!("{duration:?}"), |d| format!("{d:#}"))
}

/// For `#[serde(with = "crate::durations")]`.
///
/// # Errors
/// When the text is not a duration.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    parse(&text).map_err(D::Error::custom)
}

/// For `#[serde(with = "crate::durations")]`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&text(*duration))
}

/// For `#[serde(with = "crate::durations::option")]`.
pub mod option {
    use super::{Deserialize as _, Deserializer, Duration, Error as _, Serializer, parse, text};

    /// For `#[serde(with = "crate::durations::option")]`.
    ///
    /// # Errors
    /// When there is a text that isn't a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| parse(&text).map_err(D::Error::custom)).transpose()
    }

    /// For `#[serde(with = "crate::durations::option")]`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(from: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match from {
            Some(duration) => to.serialize_some(&text(*duration)),
            None => to.serialize_none(),
        }
    }
}

/// The schema of a duration. It allows more than [`parse`], never less.
pub struct DurationText;

impl JsonSchema for DurationText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "time-span",
            "pattern": r"^\s*\+?([0-9].*[A-Za-zµμ:]|[Pp].+)",
            "examples": ["1s", "250us", "10m", "1h 30m", "30d"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_notations_are_parsed() {
        for (text, expected) in [
            ("250us", Duration::from_micros(250)),
            ("250µs", Duration::from_micros(250)),
            ("1s", Duration::from_secs(1)),
            ("10m", Duration::from_secs(600)),
            ("1h 30m", Duration::from_secs(5400)),
            ("30d", Duration::from_secs(30 * 86_400)),
            ("0s", Duration::ZERO),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
            assert_eq!(parse(&super::text(expected)), Ok(expected));
        }
    }

    #[test]
    fn invalid_text_is_an_error() {
        for bad in ["", "1", "soon", "-1s", "1 month", "1s ago"] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains("is not a duration"), "{bad}: {error}");
        }
    }
}
