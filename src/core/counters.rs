//! Counters that one thread writes and any thread reads, each declared once with its name, its
//! kind and its help text.
//!
//! [`counters!`](crate::counters!) declares a struct with a [`Value`] for each counter:
//!
//! ```
//! tapio_core::counters! {
//!     /// Counters of the parser.
//!     pub struct ParserStats {
//!         lines: Counter = "Lines parsed.",
//!         buffered_bytes: Gauge = "Bytes of the line that isn't complete.",
//!     }
//! }
//!
//! let stats = ParserStats::default();
//! stats.lines.add(2);
//! stats.buffered_bytes.set(17);
//! let values: Vec<_> = stats.readings().map(|r| (r.name, r.value)).collect();
//! assert_eq!(values, [("lines", 2), ("buffered_bytes", 17)]);
//! ```
//!
//! The field's name is the counter's name in `/status`; kind and help are those of its metric in
//! `/metrics`. Fields are visible in the declaring crate only; others read through `readings`.
//!
//! A struct has cache lines of its own (128 bytes: processors fetch pairs of lines), so that the
//! counters of one thread aren't beside those of another one.
//!
//! All accesses are Relaxed: each value is a number of its own, and nothing is inferred from two
//! of them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Whether a value only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grows from the start of the process on.
    Counter,
    /// A current size or state.
    Gauge,
}

/// One counter as read at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The counter's name: `snake_case`, noun first.
    pub name: &'static str,
    /// Its meaning: one sentence or phrase, with a full stop.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// Its value.
    pub value: u64,
}

/// The value of one counter.
#[derive(Debug, Default)]
pub struct Value(AtomicU64);

impl Value {
    /// Replaces the value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds to the value. Several threads may add.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares a struct of counters; see the [module](crate::counters).
#[macro_export]
macro_rules! counters {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $($field:ident: $kind:ident = $help:literal),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        #[repr(align(128))]
        $vis struct $name {
            $(#[doc = $help] pub(crate) $field: $crate::counters::Value,)*
        }

        impl $name {
            /// Reads all counters, in the order of their declaration.
            $vis fn readings(&self) -> impl Iterator<Item = $crate::counters::Reading> + use<> {
                [$($crate::counters::Reading {
                    name: stringify!($field),
                    help: $help,
                    kind: $crate::counters::Kind::$kind,
                    value: self.$field.get(),
                }),*]
                .into_iter()
            }
        }
    };
}
