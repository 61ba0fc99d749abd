//! Durations as people write them: `250us`, `1s`, `10m`, `1h30m`, `30d`.

/// Units by their text, longest first, in nanoseconds.
const UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Nanoseconds of a duration.
///
/// # Errors
/// With a sentence that says what was expected.
pub fn parse_ns(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} isn't a duration such as 250us, 1s, 10m or 1h30m");
    let mut rest = text.trim();
    let mut total = 0u64;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| !c.is_alphabetic())
            .unwrap_or(rest.len());
        let unit = UNITS
            .iter()
            .find(|u| u.0 == &rest[..letters])
            .ok_or_else(bad)?
            .1;
        total = number
            .checked_mul(unit)
            .and_then(|n| total.checked_add(n))
            .ok_or_else(bad)?;
        rest = rest[letters..].trim_start();
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_ns("250us"), Ok(250_000));
        assert_eq!(parse_ns("1h30m"), Ok(5_400_000_000_000));
        assert_eq!(parse_ns("30d"), Ok(2_592_000_000_000_000));
        assert_eq!(parse_ns("0s"), Ok(0));
        for bad in ["", "5", "s", "5 parsecs", "99999999999999d", "-1s"] {
            assert!(parse_ns(bad).is_err(), "{bad}");
        }
    }
}
