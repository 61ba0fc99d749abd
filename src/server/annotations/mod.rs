//! Annotations that operators make: stories acknowledged, silenced, annotated, of a wrong cause.
//! They are in a file of their own beside the log, whose retention doesn't concern it.
//!
//! | file | purpose |
//! | --- | --- |
//! | `entry.rs` | [`Entry`]: one line of the file |
//! | `entry_key.rs` | the order of entries |
//! | `list.rs` | the list of entries, in pages |
//! | `marks.rs` | [`Marks`]: what is in force, from all entries |
//! | `file.rs` | the file: read at the start, appended to and synced |

mod entry;
mod entry_key;
mod file;
mod list;
mod marks;

pub(super) use entry::{Action, Entry};
pub(super) use file::Annotations;
pub(super) use list::{AnnotationFilter, AnnotationPage};
pub(super) use marks::Refusal;
