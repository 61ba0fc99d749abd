//! Helpers that the JSON forms of events and stories share.

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::record::Value;

/// An error in the JSON form of an event or a story. `column` counts from 1, which also stands for
/// the whole line.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{cause}")]
pub struct EventParseError {
    /// Column of the error in the line.
    pub column: usize,
    /// Description of the error.
    pub cause: String,
}

impl EventParseError {
    /// An error of the whole line.
    pub(super) fn whole_line(cause: impl Into<String>) -> Self {
        Self { column: 1, cause: cause.into() }
    }
}

impl From<serde_json::Error> for EventParseError {
    fn from(error: serde_json::Error) -> Self {
        let text = error.to_string();
        // serde_json appends its own position.
        let cause = text.rsplit_once(" at line ").map_or(text.as_str(), |(cause, _)| cause);
        Self { column: error.column().max(1), cause: cause.to_owned() }
    }
}

/// Formats a time as RFC 3339 with nanoseconds.
#[must_use]
pub fn rfc3339(time_ns: u64) -> String {
    Timestamp::from_nanosecond(i128::from(time_ns))
        .map_or_else(|_| time_ns.to_string(), |t| t.to_string())
}

/// The time that [`rfc3339`] has formatted; `None` for other text, and before 1970.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    u64::try_from(text.parse::<Timestamp>().ok()?.as_nanosecond()).ok()
}

/// Converts a value to JSON. A float that JSON can't represent (NaN, infinity) becomes null.
#[must_use]
pub fn value_json(value: Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(b) => b.into(),
        Value::Int(n) => n.into(),
        Value::Float(n) => serde_json::Number::from_f64(n).map_or(Json::Null, Json::Number),
        Value::Str(s) => s.into(),
        Value::Json(s) => serde_json::from_str(s).unwrap_or_else(|_| s.into()),
    }
}

/// Rounds to four decimals, the precision a score or a share has; it also keeps output stable.
pub(super) fn rounded(n: f64) -> Json {
    json!((n * 10_000.0).round() / 10_000.0)
}
