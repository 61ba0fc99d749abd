//! Sizes, ages and accounts as text.

use std::time::Duration;

use serde_json::Value as Json;

use tapio_core::event::Reason;

/// A number of bytes: `0 B`, `12.3 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A duration in its two greatest units: `3 h 12 min`.
pub(super) fn age(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, _) => format!("{minutes} min {rest} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// A delay: `1.2 ms`.
pub(super) fn delay(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{:.0} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", Duration::from_nanos(ns).as_secs_f64()),
    }
}

/// A number in a JSON document; 0 where there is none.
pub(crate) fn number(json: &Json) -> u64 {
    json.as_u64().unwrap_or_default()
}

/// A text in a JSON document; empty where there is none.
pub(crate) fn text(json: &Json) -> &str {
    json.as_str().unwrap_or_default()
}

/// Events that an account counts as dropped, by `stage/reason`, but for those that were only read
/// again: they aren't lost.
pub(crate) fn losses(account: &Json) -> Vec<(&str, u64)> {
    let read_again = Reason::ReadAgain.as_str();
    let dropped = account["dropped"].as_object().into_iter().flatten();
    let lost = dropped
        .filter(|(name, _)| name.split_once('/').is_none_or(|(_, reason)| reason != read_again));
    lost.map(|(name, count)| (name.as_str(), number(count))).collect()
}

/// The number of these events.
pub(crate) fn lost(account: &Json) -> u64 {
    losses(account).iter().map(|(_, count)| count).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_ages_and_delays_have_units() {
        let all = [0, 1023, 1024, 1_610_612_736, u64::MAX].map(bytes);
        assert_eq!(all, ["0 B", "1023 B", "1.0 KiB", "1.5 GiB", "16777216.0 TiB"]);
        let all = [0, 59, 61, 3_600, 90_000].map(age);
        assert_eq!(all, ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h"]);
        assert_eq!([900_000, 1_250_000, 2_500_000_000].map(delay), ["900 µs", "1.2 ms", "2.5 s"]);
    }

    #[test]
    fn events_read_again_are_not_lost() {
        let account = json!({"dropped": {"bridge/spool_full": 3, "collect/read_again": 9}});
        assert_eq!(losses(&account), [("bridge/spool_full", 3)]);
        assert_eq!(lost(&account), 3);
        assert_eq!(lost(&Json::Null), 0);
    }
}
