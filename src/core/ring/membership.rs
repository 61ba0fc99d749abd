//! Memberships of events in stories.

use serde_json::{Value as Json, json};

use super::block::{BLOCK_BYTES, Block, bytes};
use crate::event::{EventId, Name, TraceId};

/// Membership of an event in a story, as found when the event passed a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The story's id, which is also its trace.
    pub story: TraceId,
    /// The rule.
    pub rule: Name,
    /// The pattern that the rule gives this event, or the rule's own.
    pub pattern: Name,
    /// The event's role.
    pub role: Name,
    /// The membership with the lowest rank gives the event its trace.
    pub rank: u8,
    /// Earlier members: the first and the latest; zero for none.
    pub related: [EventId; 2],
}

impl Membership {
    pub(super) fn write(&self) -> Block {
        let mut b = [0; BLOCK_BYTES];
        b[0..16].copy_from_slice(&self.story.0);
        b[16..18].copy_from_slice(&self.rule.0.to_le_bytes());
        b[18..20].copy_from_slice(&self.pattern.0.to_le_bytes());
        b[20..22].copy_from_slice(&self.role.0.to_le_bytes());
        b[22] = self.rank;
        b[24..40].copy_from_slice(&self.related[0].0);
        b[40..56].copy_from_slice(&self.related[1].0);
        Block(b)
    }

    pub(super) fn read(block: &Block) -> Self {
        let b = &block.0;
        let name = |at| Name(u16::from_le_bytes(bytes(b, at)));
        Self {
            story: TraceId(bytes(b, 0)),
            rule: name(16),
            pattern: name(18),
            role: name(20),
            rank: b[22],
            related: [EventId(bytes(b, 24)), EventId(bytes(b, 40))],
        }
    }
}

/// Memberships as JSON. `text` returns the text of a name.
#[must_use]
pub fn correlations_json<'t>(memberships: &[Membership], text: impl Fn(Name) -> &'t str) -> Json {
    let membership = |m: &Membership| {
        let mut related: Vec<String> =
            m.related.iter().filter(|id| id.0 != [0; 16]).map(ToString::to_string).collect();
        related.dedup();
        json!({
            "id": m.story.to_string(),
            "rule": text(m.rule),
            "pattern": text(m.pattern),
            "role": text(m.role),
            "related": related,
        })
    };
    memberships.iter().map(membership).collect()
}
