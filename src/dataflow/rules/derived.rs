//! Fields that Sigma's taxonomy has and tapio's events don't. `field.rs` computes them from those
//! that events have. They are those of Sysmon for Linux, for which SigmaHQ writes its rules.

use tapio_core::event::{Name, names};

/// A computed field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Derived {
    /// `CommandLine`: the arguments, joined by single blanks.
    CommandLine,
    /// `ParentCommandLine`
    ParentCommandLine,
    /// `User`: the name, or the number of a user without one.
    User,
    /// `Initiated`: whether the process opened the connection, `true` or `false`.
    Initiated,
    /// `SourceIp`: the address of the end that opened the connection.
    SourceIp,
    /// `SourcePort`
    SourcePort,
    /// `DestinationIp`: the address of the other end.
    DestinationIp,
    /// `DestinationPort`
    DestinationPort,
}

impl Derived {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::CommandLine,
        Self::ParentCommandLine,
        Self::User,
        Self::Initiated,
        Self::SourceIp,
        Self::SourcePort,
        Self::DestinationIp,
        Self::DestinationPort,
    ];

    /// Sigma's name for it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::CommandLine => "CommandLine",
            Self::ParentCommandLine => "ParentCommandLine",
            Self::User => "User",
            Self::Initiated => "Initiated",
            Self::SourceIp => "SourceIp",
            Self::SourcePort => "SourcePort",
            Self::DestinationIp => "DestinationIp",
            Self::DestinationPort => "DestinationPort",
        }
    }

    /// The attributes it is computed from; an event without any of them doesn't have it.
    #[must_use]
    pub fn bases(self) -> &'static [Name] {
        match self {
            Self::CommandLine => &[names::PROCESS_COMMAND_LINE, names::PROCESS_COMMAND_ARGS],
            Self::ParentCommandLine => &[names::TAPIO_PROCESS_PARENT_ARGS],
            Self::User => &[names::PROCESS_OWNER, names::PROCESS_OWNER_UID],
            Self::Initiated => &[names::TAPIO_TCP_INCOMING],
            Self::SourceIp | Self::DestinationIp => {
                &[names::NETWORK_LOCAL_ADDRESS, names::NETWORK_PEER_ADDRESS]
            }
            Self::SourcePort | Self::DestinationPort => {
                &[names::NETWORK_LOCAL_PORT, names::NETWORK_PEER_PORT]
            }
        }
    }
}
