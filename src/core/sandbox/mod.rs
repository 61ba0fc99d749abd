//! The rights of a thread: its capabilities and its landlock domain. Both belong to a thread, and
//! the threads that it starts inherit them; nothing reaches the other threads of a process. A
//! process that limits its first thread before it starts a second one is limited as a whole.
//!
//! | file | purpose |
//! | --- | --- |
//! | `capabilities.rs` | [`limit`], [`renounce`]: the capabilities of a thread |
//! | `landlock.rs` | [`Ruleset`]: the files that a thread may open |
//! | `threads.rs` | [`PrivilegedThreads`]: starts the threads that keep capabilities |
//! | `report.rs` | [`thread_rights`]: the rights that the threads of this process have |

mod capabilities;
mod landlock;
mod report;
mod threads;

pub use capabilities::{Renounced, limit, names, raise, renounce};
pub use landlock::{FileRights, LandlockError, Ruleset, landlock_version};
pub use report::{ThreadRights, thread_rights};
pub use rustix::thread::CapabilitySet;
pub use threads::PrivilegedThreads;
