//! The order in which rules are evaluated.

/// The order in which a shard processes events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they arrive: live. Stories are emitted at once and finalized in event-time order.
    Arrival,
    /// In the total order: replay. A record waits until every input's watermark has passed it.
    Total,
}

/// The role of a lane, which determines its order and when it emits stories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneRole {
    /// The arrival lane: processes events as they arrive, emits open stories.
    Arrival,
    /// The event-time lane: processes kept events behind the watermark, emits ended stories.
    EventTime,
    /// The only lane in replay: processes events in total order, emits ended stories.
    Replay,
}
