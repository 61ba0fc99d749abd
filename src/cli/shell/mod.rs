//! The command line for shells and manuals.
//!
//! | file | purpose |
//! | --- | --- |
//! | `completion.rs` | `tapio completion`: a script for a shell |
//! | `dynamic.rs` | where an argument is a story, a rule, a node or a kind, for these scripts |
//! | `values.rs` | `tapio complete`: the values that begin with a prefix |
//! | `man.rs` | `tapio man`: a page for each command |

mod completion;
mod dynamic;
mod man;
mod values;

pub(super) use completion::{CompletionArgs, completion};
pub(super) use man::{ManArgs, man};
pub(super) use values::{CompleteArgs, complete};
