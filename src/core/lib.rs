//! Shared foundations of all stages: events, identity, rings, accounting, shutdown, clocks.
//!
//! | module | purpose |
//! | --- | --- |
//! | `event` | events, stories, names, identifiers, drop reasons |
//! | `identity` | the entity directory: process → container → pod → workload → service |
//! | `log_line` | facts in the text of lines: levels, processes, cgroups, devices |
//! | `redact` | removes secrets from events and texts |
//! | `ring` | record rings, the wake protocol, the ledger of CONS-1 |
//! | `shutdown` | event-driven shutdown, heartbeats of collectors |
//! | `sandbox` | capabilities and landlock domain of a thread |
//! | `memory` | the level to which memory bounds all parts |
//! | `closed_list` | enums whose values have names |
//! | `counters` | counters declared once, with name, kind and help |
//! | `cpu` | CPUs, cores and NUMA nodes; the layout of threads on them |
//! | `backoff` | exponential backoff, with or without jitter |
//! | `clock` | the only module that reads a clock |
//! | `glob` | glob patterns with `*` and `?` |
//! | `grams` | a first look at a text for many others |
//! | `durations` | durations in configuration and rules |
//! | `sizes` | sizes in the configuration |
//! | `text_prefix` | the beginning of a text, by bytes |
//!
//! Dependencies point one way:
//! `backoff, clock, closed_list, durations, glob, grams, counters, sizes, text_prefix ← event`, and
//! `event ← identity, memory, redact`, and `event, identity ← log_line`, and
//! `event, log_line, memory, redact, shutdown ← ring`.

pub mod backoff;
pub mod clock;
mod closed_list;
pub mod counters;
pub mod cpu;
pub mod durations;
pub mod event;
pub mod glob;
pub mod grams;
pub mod identity;
pub mod log_line;
pub mod memory;
pub mod redact;
pub mod ring;
pub mod sandbox;
pub mod shutdown;
pub mod sizes;
pub mod text_prefix;
