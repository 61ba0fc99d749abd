//! `tapio agents` and `tapio status`: the agents as a server lists them, and the agent of this
//! machine as it reports itself.
//!
//! | file | purpose |
//! | --- | --- |
//! | `list.rs` | `tapio agents` |
//! | `status.rs` | `tapio status` |
//! | `sections.rs` | the parts of a status as text |
//! | `text.rs` | sizes, ages and accounts as text |

mod list;
mod sections;
mod status;
mod text;

pub(super) use list::{Args, heard, list, node_names, print_agent, problem, run, state};
pub(super) use status::{StatusArgs, status};
pub(super) use text::{bytes, losses, lost, number, text};
