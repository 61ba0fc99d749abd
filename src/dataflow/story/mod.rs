//! Stories: open ones, their members, their texts, and lifecycles of entities.

pub(crate) mod lifecycle;
pub(crate) mod members;
pub(crate) mod open;
pub(crate) mod render;
