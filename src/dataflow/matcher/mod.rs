//! Matches events against rules: sequences, windows and their state by key.

pub(crate) mod aggregate;
pub(crate) mod key_table;
pub(crate) mod lane;
pub(crate) mod measure;
pub(crate) mod partial_match;
pub(crate) mod sequence;
pub(crate) mod timer_wheel;
pub(crate) mod window;
