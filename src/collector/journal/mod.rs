//! Collector `journal`: the records of systemd's journal, read from its files without journalctl
//! or libsystemd.
//!
//! | file | purpose |
//! | --- | --- |
//! | `collector.rs` | configuration and the choice of the reader |
//! | `session.rs` | one run: reads, filters, limits, emits, advances the cursor |
//! | `format.rs` | the layout of headers and objects |
//! | `payload.rs` | xz, lz4 and zstd, up to a limit |
//! | `record.rs` | the fields that are kept of an entry |
//! | `position.rs` | a position in the journal, in journalctl's notation |
//! | `file.rs` | one file, entry by entry, as it grows |
//! | `folder.rs` | all files: found, followed, closed, merged |
//! | `export.rs` | journalctl, for files of a later format |
//! | `rate.rs` | the rate limit of each unit |
//! | `to_event.rs` | records as events |
//!
//! Files are read with pread instead of being mapped, so a file that is truncated meanwhile leads
//! to an error instead of a signal. The cursor is one that `journalctl --after-cursor` accepts
//! too; an event's id derives from its record's cursor.

mod collector;
mod export;
mod file;
mod folder;
mod format;
#[cfg(any(test, fuzzing))]
mod fuzz_entry;
mod payload;
mod position;
mod rate;
mod record;
mod session;
mod to_event;

pub use collector::Config;
#[cfg(any(test, fuzzing))]
pub use fuzz_entry::count_entries;
