//! The setting `memory_limit`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use tapio_core::sizes;

/// Below it the agent has no room to work.
const MIN_LIMIT_BYTES: u64 = 64 << 20;

/// The share of a cgroup's limit that the agent takes by itself. The rest is for what the kernel
/// charges to the cgroup as well: eBPF maps, socket buffers, written pages of files.
const SHARE_OF_CGROUP: (u64, u64) = (4, 5);

/// The most memory that the agent may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryLimit {
    /// Four fifths of the limit of the agent's cgroup; none where that has no limit.
    #[default]
    Auto,
    /// No limit.
    None,
    /// This many bytes.
    Bytes(u64),
}

impl MemoryLimit {
    /// The limit in bytes, where `cgroup_bytes` is the cgroup's.
    pub(super) fn bytes(self, cgroup_bytes: Option<u64>) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Bytes(bytes) => Some(bytes),
            Self::Auto => {
                let (part, whole) = SHARE_OF_CGROUP;
                cgroup_bytes.map(|bytes| (bytes / whole * part).max(MIN_LIMIT_BYTES))
            }
        }
    }

    /// Parses `auto`, `none` or a size with a unit.
    fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => return Some(Self::Auto),
            "none" => return Some(Self::None),
            _ => {}
        }
        let bytes = sizes::parse(text)?;
        (bytes >= MIN_LIMIT_BYTES).then_some(Self::Bytes(bytes))
    }
}

impl Serialize for MemoryLimit {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => to.serialize_str("auto"),
            Self::None => to.serialize_str("none"),
            Self::Bytes(bytes) => to.serialize_str(&sizes::text(*bytes)),
        }
    }
}

impl JsonSchema for MemoryLimit {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "MemoryLimit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                {"type": "integer", "minimum": MIN_LIMIT_BYTES},
                {"type": "string", "pattern": r"^(auto|none|[0-9]+\s*(B|[KMG]iB?)?)$"},
            ],
            "examples": ["auto", "none", "256MiB"],
        })
    }
}

impl<'de> Deserialize<'de> for MemoryLimit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(LimitVisitor)
    }
}

struct LimitVisitor;

const EXPECTED: &str = "`auto`, `none`, or a size of at least 64 MiB such as `256MiB`";

impl Visitor<'_> for LimitVisitor {
    type Value = MemoryLimit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<MemoryLimit, E> {
        self.visit_str(&bytes.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<MemoryLimit, E> {
        let refused = || E::custom(format_args!("memory_limit: {text:?}: must be {EXPECTED}"));
        MemoryLimit::parse(text).ok_or_else(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        for (text, expected) in [
            ("auto", Some(MemoryLimit::Auto)),
            ("none", Some(MemoryLimit::None)),
            ("67108864", Some(MemoryLimit::Bytes(64 << 20))),
            ("96MiB", Some(MemoryLimit::Bytes(96 << 20))),
            ("96 Mi", Some(MemoryLimit::Bytes(96 << 20))),
            ("2Gi", Some(MemoryLimit::Bytes(2 << 30))),
            ("131072KiB", Some(MemoryLimit::Bytes(128 << 20))),
            ("63MiB", None),
            ("1.5GiB", None),
            ("96MB", None),
            ("-1", None),
            ("99999999999GiB", None),
            ("", None),
        ] {
            assert_eq!(MemoryLimit::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn automatic_limit_leaves_a_fifth_of_the_cgroup_to_the_kernel() {
        assert_eq!(MemoryLimit::Auto.bytes(Some(200 << 20)), Some(160 << 20));
        assert_eq!(MemoryLimit::Auto.bytes(Some(32 << 20)), Some(MIN_LIMIT_BYTES));
        assert_eq!(MemoryLimit::Auto.bytes(None), None);
        assert_eq!(MemoryLimit::None.bytes(Some(1 << 30)), None);
        assert_eq!(MemoryLimit::Bytes(7).bytes(Some(1)), Some(7));
    }
}
