//! Sizes in the configuration: a number of bytes, or one with a binary unit such as `64MiB`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::ser::{Error as _, Serializer};

/// The units and their powers of two, the largest first.
const UNITS: [(&str, u32); 4] = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

const EXPECTED: &str = "a number of bytes, or a size such as `64MiB`";

/// Parses a size: digits, and `B`, `KiB`, `MiB` or `GiB` (`Ki`, `Mi`, `Gi`); bytes without a unit.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start() {
        "" => 0,
        unit => {
            let is_unit = |name: &str| name == unit || name.strip_suffix('B') == Some(unit);
            UNITS.iter().find(|(name, _)| is_unit(name))?.1
        }
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Formats a size in the syntax of [`parse`], with the largest unit that divides it.
#[must_use]
pub fn text(bytes: u64) -> String {
    let divides = |(_, shift): &&(&str, u32)| bytes.trailing_zeros() >= *shift;
    match UNITS.iter().find(divides) {
        Some((unit, shift)) if bytes > 0 => format!("{}{unit}", bytes >> shift),
        _ => bytes.to_string(),
    }
}

/// Formats a size for a person, to a tenth of the largest unit that it has.
#[must_use]
pub fn rounded(bytes: u64) -> String {
    match UNITS.iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) if *shift > 0 => {
            format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64)
        }
        _ => format!("{bytes} B"),
    }
}

/// For `#[serde(with = "tapio_core::sizes")]`.
///
/// # Errors
/// When the value isn't a size, or is larger than the type allows.
pub fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<u64>>(from: D) -> Result<T, D::Error> {
    from.deserialize_any(SizeVisitor(PhantomData))
}

/// For `#[serde(with = "tapio_core::sizes")]`: a text with a unit, or a number without one.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer, T: Copy + TryInto<u64>>(
    size: &T,
    to: S,
) -> Result<S::Ok, S::Error> {
    let bytes = (*size).try_into().map_err(|_| S::Error::custom("a size of more than 64 bits"))?;
    match bytes % 1024 {
        0 if bytes > 0 => to.serialize_str(&text(bytes)),
        _ => to.serialize_u64(bytes),
    }
}

struct SizeVisitor<T>(PhantomData<T>);

impl<T: TryFrom<u64>> Visitor<'_> for SizeVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<T, E> {
        T::try_from(bytes).map_err(|_| E::custom(format_args!("{bytes}: the size is too large")))
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<T, E> {
        self.visit_str(&bytes.to_string())
    }

    fn visit_str<E: de::Error>(self, size: &str) -> Result<T, E> {
        let bytes = parse(size);
        let bytes = bytes.ok_or_else(|| E::custom(format_args!("{size:?} isn't {EXPECTED}")))?;
        self.visit_u64(bytes)
    }
}

/// The schema of a size.
pub struct SizeText;

impl JsonSchema for SizeText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "format": "byte-size",
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^[0-9]+\s*(B|[KMG]iB?)?$"},
            ],
            "examples": [67_108_864, "64MiB", "2GiB"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Sizes {
        #[serde(with = "super")]
        wide: u64,
        #[serde(with = "super")]
        narrow: u32,
    }

    #[test]
    fn sizes_have_binary_units() {
        for (text, expected) in [
            ("0", Some(0)),
            ("5B", Some(5)),
            ("64MiB", Some(64 << 20)),
            ("64 Mi", Some(64 << 20)),
            ("2Gi", Some(2 << 30)),
            ("1KiB", Some(1024)),
            ("", None),
            ("MiB", None),
            ("1.5GiB", None),
            ("1MB", None),
            ("-1", None),
            ("99999999999GiB", None),
            ("18446744073709551616", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
        let rounded = [0, 1023, 1024, 5 << 19, 3 << 30].map(rounded);
        assert_eq!(rounded, ["0 B", "1023 B", "1.0 KiB", "2.5 MiB", "3.0 GiB"]);
        for bytes in [0, 1, 1023, 1024, 1025, 3 << 20, 5 << 30, u64::MAX] {
            assert_eq!(parse(&super::text(bytes)), Some(bytes));
        }
    }

    #[test]
    fn written_values_are_read_again() {
        let sizes = Sizes { wide: 5 << 30, narrow: 1000 };
        let text = serde_json::to_string(&sizes).unwrap();
        assert_eq!(text, r#"{"wide":"5GiB","narrow":1000}"#);
        assert_eq!(serde_json::from_str::<Sizes>(&text).unwrap(), sizes);
        let large = serde_json::from_str::<Sizes>(r#"{"wide":1,"narrow":"4GiB"}"#).unwrap_err();
        assert!(large.to_string().contains("the size is too large"), "{large}");
        let bad = serde_json::from_str::<Sizes>(r#"{"wide":"many","narrow":1}"#).unwrap_err();
        assert!(bad.to_string().contains("\"many\" isn't a number of bytes"), "{bad}");
    }
}
