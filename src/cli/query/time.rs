//! Times as people write them.

use jiff::civil::{Date, DateTime, Time};
use jiff::{Timestamp, ToSpan as _, Zoned};

use tapio_core::durations;

/// Parses a time: a duration before now, RFC 3339, or a date, a time of day or both in the zone of
/// `now`. Returns nanoseconds since the Unix epoch, at least 1: for requests, 0 is no time.
///
/// # Errors
/// The forms that a time may have.
pub(super) fn parse(text: &str, now: &Zoned) -> Result<u64, String> {
    let text = text.trim();
    let found = named(text, now)
        .or_else(|| text.parse::<Timestamp>().ok())
        .or_else(|| local(text, now))
        .or_else(|| ago(text, now));
    let time = found.ok_or_else(|| {
        format!(
            "{text:?} isn't a time: expected a duration before now (15m), RFC 3339, \
             YYYY-MM-DD [HH:MM[:SS]], HH:MM[:SS], @SECONDS, now, today or yesterday"
        )
    })?;
    Ok(u64::try_from(time.as_nanosecond()).unwrap_or(0).max(1))
}

fn named(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Some(seconds) = text.strip_prefix('@') {
        return Timestamp::from_second(seconds.parse().ok()?).ok();
    }
    let day = match text {
        "now" => return Some(now.timestamp()),
        "today" => now.start_of_day(),
        "yesterday" => now.checked_sub(1.day()).ok()?.start_of_day(),
        _ => return None,
    };
    day.ok().map(|day| day.timestamp())
}

/// A date, a time of day, or both.
fn local(text: &str, now: &Zoned) -> Option<Timestamp> {
    // A time of day; what jiff takes beyond it isn't one for people.
    let is_time = text.len() >= 4 && text.contains(':') && !text.contains(['-', 'T', 't', ' ']);
    let time = match is_time {
        true => now.date().to_datetime(text.parse::<Time>().ok()?),
        false if text.len() == 10 => text.parse::<Date>().ok()?.to_datetime(Time::midnight()),
        false if text.len() > 10 => text.parse::<DateTime>().ok()?,
        false => return None,
    };
    time.to_zoned(now.time_zone().clone()).ok().map(|time| time.timestamp())
}

/// A duration before now: `15m`, `-15m`, `15m ago`.
fn ago(text: &str, now: &Zoned) -> Option<Timestamp> {
    let text = text.strip_suffix(" ago").or_else(|| text.strip_prefix('-')).unwrap_or(text);
    let before = durations::parse(text.trim()).ok()?;
    now.timestamp().saturating_sub(before).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_a_time() {
        let now: Zoned = "2026-11-30T12:30:00+02:00[+02:00]".parse().unwrap();
        for (text, expected) in [
            ("15m", "2026-11-30T10:15:00Z"),
            ("-15m", "2026-11-30T10:15:00Z"),
            ("15m ago", "2026-11-30T10:15:00Z"),
            ("2026-11-30T09:00:00Z", "2026-11-30T09:00:00Z"),
            ("2026-11-30 09:00:00.5+01:00", "2026-11-30T08:00:00.5Z"),
            ("2026-11-30 10:00", "2026-11-30T08:00:00Z"),
            ("2026-11-30T10:00:01", "2026-11-30T08:00:01Z"),
            ("2026-11-30", "2026-11-29T22:00:00Z"),
            ("10:00", "2026-11-30T08:00:00Z"),
            ("10:00:30", "2026-11-30T08:00:30Z"),
            ("now", "2026-11-30T10:30:00Z"),
            ("today", "2026-11-29T22:00:00Z"),
            ("yesterday", "2026-11-28T22:00:00Z"),
            ("@1700000000", "2023-11-14T22:13:20Z"),
        ] {
            let expected: Timestamp = expected.parse().unwrap();
            assert_eq!(parse(text, &now), Ok(expected.as_nanosecond() as u64), "{text}");
        }
        assert_eq!(parse("1960-01-01", &now), Ok(1), "before the epoch");
        for text in ["", "soon", "25:00", "2026-13-01", "15", "@x", "-", "ago", "12:00 tomorrow"] {
            assert!(parse(text, &now).is_err(), "{text}");
        }
    }

    #[test]
    fn local_time_that_a_clock_skips_is_taken_after_the_change() {
        let zone = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let now: Timestamp = "2026-03-29T10:00:00Z".parse().unwrap();
        let now = now.to_zoned(zone);
        let expected: Timestamp = "2026-03-29T01:30:00Z".parse().unwrap();
        assert_eq!(parse("02:30", &now), Ok(expected.as_nanosecond() as u64));
    }
}
