//! Durations as people write them: `250us`, `1s`, `10m`, `30d`. For configuration and rules.

use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo};
use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Text that is no duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} isn't a duration such as \"250us\", \"1s\", \"10m\" or \"30d\"{because}")]
pub struct NoDuration {
    text: String,
    because: String,
}

/// Reads a duration. A day has 24 hours, a week seven days; months and years have no fixed length.
///
/// # Errors
/// When the text isn't one, or is negative.
pub fn parse(text: &str) -> Result<Duration, NoDuration> {
    let bad = |because: String| NoDuration { text: text.chars().take(64).collect(), because };
    let span: Span = text.trim().parse().map_err(|_| bad(String::new()))?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| bad(": months and years have no fixed length".into()))?;
    Duration::try_from(duration).map_err(|_| bad(": it is negative".into()))
}

/// Writes a duration so that [`parse`] reads it.
#[must_use]
pub fn text(duration: Duration) -> String {
    SignedDuration::try_from(duration)
        .map_or_else(|_| format!("{duration:?}"), |d| format!("{d:#}"))
}

/// For `#[serde(with = "crate::durations")]`.
///
/// # Errors
/// When the text isn't a duration.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    parse(&text).map_err(D::Error::custom)
}

/// For `#[serde(with = "crate::durations")]`.
///
/// # Errors
/// Only the serializer's own.
pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&text(*duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read() {
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
    fn what_is_no_duration_says_so() {
        for bad in ["", "1", "soon", "-1s", "1 month", "1s ago"] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains("isn't a duration"), "{bad}: {error}");
        }
    }
}
