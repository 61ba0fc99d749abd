//! The Model Context Protocol (revision 2025-06-18): stories, events and agents for an assistant,
//! read-only and in bounded answers. docs/mcp.md describes it. It has two doors: `/mcp` on the
//! listener for HTTP, and `tapio mcp`, which has standard input and output on one side and a
//! server's gRPC on the other.
//!
//! | file | purpose |
//! | --- | --- |
//! | `protocol.rs` | JSON-RPC messages and their dispatch |
//! | `http.rs` | `/mcp` |
//! | `source.rs` | [`Source`]: where the tools get their data |
//! | `tool.rs` | the tools: names, descriptions, schemas |
//! | `parameter.rs` | the parameters of the tools, and the check of arguments |
//! | `call.rs` | runs a tool |
//! | `listing.rs` | the lists of a source, in pages |
//! | `collect.rs` | takes as many items of a list as an answer has room for |
//! | `view.rs` | stories, events and agents as answers have them |
//! | `bounds.rs` | shortens JSON to a size |
//! | `answer.rs` | the result of a tool; marks recorded text as untrusted |

mod answer;
mod bounds;
mod call;
mod collect;
mod http;
mod listing;
mod parameter;
mod protocol;
mod source;
mod tool;
mod view;

pub(super) use http::routes;
pub(crate) use protocol::{MAX_MESSAGE_BYTES, reply, too_long};
pub(crate) use source::{Source, SourceError};
