//! OpenTelemetry severity numbers (logs data model): 1–4 trace, 5–8 debug, 9–12 info, 13–16 warn,
//! 17–20 error, 21–24 fatal.

use std::fmt;

/// An OpenTelemetry severity number, 1 to 24; 0 is "unspecified".
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
pub struct Severity(pub u8);

impl Severity {
    /// Fine-grained debugging.
    pub const TRACE: Self = Self(1);
    /// Debugging.
    pub const DEBUG: Self = Self(5);
    /// A normal event.
    pub const INFO: Self = Self(9);
    /// A possible problem.
    pub const WARN: Self = Self(13);
    /// A problem.
    pub const ERROR: Self = Self(17);
    /// `critical` in a rule: an error that requires immediate attention.
    pub const CRITICAL: Self = Self(18);
    /// A failure that ends a component.
    pub const FATAL: Self = Self(21);

    /// Parses a name (`info`, `critical` …) or a number from 0 to 24.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "unspecified" => Self(0),
            "trace" => Self::TRACE,
            "debug" => Self::DEBUG,
            "info" | "informational" | "notice" | "low" => Self::INFO,
            "warn" | "warning" | "medium" => Self::WARN,
            "error" | "err" | "high" => Self::ERROR,
            "critical" | "crit" => Self::CRITICAL,
            "fatal" | "emerg" | "alert" => Self::FATAL,
            number => number.parse().ok().filter(|n| *n <= 24).map(Self)?,
        })
    }

    /// The name of the severity's range.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self.0 {
            0 => "unspecified",
            1..=4 => "trace",
            5..=8 => "debug",
            9..=12 => "info",
            13..=16 => "warn",
            17 => "error",
            18..=20 => "critical",
            _ => "fatal",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
