//! `tapio top`: the stories, agents and losses of a server on a terminal, as they change.
//!
//! | file | purpose |
//! | --- | --- |
//! | `command.rs` | arguments; the loop that joins the parts |
//! | `message.rs` | the messages between the parts |
//! | `state.rs` | the state of the screen, changed by messages only |
//! | `keys.rs` | the effect of each key on the state |
//! | `list.rs` | rows, their order, the search, the selection |
//! | `rows.rs` | stories, agents and losses as rows |
//! | `document.rs` | a story, its explanation, its events, or an agent, as lines |
//! | `styled.rs` | text with colours as wrapped lines |
//! | `layout.rs` | the widths of columns |
//! | `view.rs` | draws the state |
//! | `input.rs` | keys, resizes and signals as messages |
//! | `screen.rs` | the terminal: entered, restored, the clipboard |
//! | `feed.rs` | queries and stream of the server, over lost connections |
//! | `source.rs` | the requests to the server |
//! | `recent.rs` | the stories that changed last |
//! | `once.rs` | `--once` |

mod command;
mod document;
mod feed;
mod input;
mod keys;
mod layout;
mod list;
mod message;
mod once;
mod recent;
mod rows;
mod screen;
mod source;
mod state;
mod styled;
mod view;

pub(super) use command::{Args, run};
