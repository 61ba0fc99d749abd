//! The section `threads` of the configuration.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::cpu_set::{CpuSet, MAX_CPUS};

/// Whether busy threads are pinned to a CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pin {
    /// If there are several CPUs and the system permits it.
    #[default]
    Auto,
    /// In any case: an agent that may not pin its threads doesn't start.
    Always,
    /// The system places all threads.
    Never,
}

/// The NUMA node that all threads run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NumaNode {
    /// While threads are pinned: the node with the most CPUs, if they suffice for the busy threads.
    #[default]
    Auto,
    /// All nodes.
    Any,
    /// The node with this number.
    Number(u32),
}

/// The section `threads`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ThreadsConfig {
    /// Whether busy threads are pinned to a CPU.
    pub pin: Pin,
    /// The CPUs that the agent uses; empty: all that it may use.
    pub cpus: CpuSet,
    /// The NUMA node that it uses.
    pub numa_node: NumaNode,
}

impl Serialize for NumaNode {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => to.serialize_str("auto"),
            Self::Any => to.serialize_str("any"),
            Self::Number(number) => to.serialize_u32(*number),
        }
    }
}

impl JsonSchema for NumaNode {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "NumaNode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^(auto|any|\+?[0-9]+)$"},
            ],
            "examples": ["auto", "any", 0],
        })
    }
}

impl Serialize for CpuSet {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl JsonSchema for CpuSet {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "CpuSet".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": MAX_CPUS - 1},
                {"type": "string", "pattern": r"^[0-9,\s-]*$"},
            ],
            "examples": ["", "2-7,12", 3],
        })
    }
}

const EXPECTED: &str = "`auto`, `any`, or the number of a node";

impl<'de> Deserialize<'de> for NumaNode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl Visitor<'_> for NodeVisitor {
    type Value = NumaNode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<NumaNode, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<NumaNode, E> {
        match text {
            "auto" => Ok(NumaNode::Auto),
            "any" => Ok(NumaNode::Any),
            number => number.parse().map(NumaNode::Number).map_err(|_| {
                E::custom(format_args!("threads.numa_node: {text:?}: must be {EXPECTED}"))
            }),
        }
    }
}

impl<'de> Deserialize<'de> for CpuSet {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(CpuSetVisitor)
    }
}

struct CpuSetVisitor;

impl Visitor<'_> for CpuSetVisitor {
    type Value = CpuSet;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of CPUs such as \"2-7,12\"")
    }

    // One CPU, which YAML takes for a number.
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<CpuSet, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<CpuSet, E> {
        text.parse().map_err(|error| E::custom(format_args!("threads.cpus: {error}")))
    }
}
