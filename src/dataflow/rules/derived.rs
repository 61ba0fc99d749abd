//! Fields that `field.rs` computes from those that events have: those of Sigma's taxonomy (of
//! Sysmon for Linux, for which SigmaHQ writes its rules), and the subject of a Kubernetes Event's
//! text.

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
    /// `k8s.event.image`: the image that an Event is about.
    EventImage,
    /// `k8s.event.registry`: the registry that doesn't answer or refuses all pulls, by an Event.
    EventRegistry,
    /// `k8s.event.volume`: the volume that an Event is about, or what it consists of.
    EventVolume,
    /// `k8s.event.volume_server`: the server of a volume that doesn't answer, by an Event.
    EventVolumeServer,
}

impl Derived {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::CommandLine,
        Self::ParentCommandLine,
        Self::User,
        Self::Initiated,
        Self::SourceIp,
        Self::SourcePort,
        Self::DestinationIp,
        Self::DestinationPort,
        Self::EventImage,
        Self::EventRegistry,
        Self::EventVolume,
        Self::EventVolumeServer,
    ];

    /// The fields of a Kubernetes Event's text, which rules of either language may name.
    pub(super) const OF_EVENTS: [Self; 4] =
        [Self::EventImage, Self::EventRegistry, Self::EventVolume, Self::EventVolumeServer];

    /// Its name, which is Sigma's where Sigma has it.
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
            Self::EventImage => "k8s.event.image",
            Self::EventRegistry => "k8s.event.registry",
            Self::EventVolume => "k8s.event.volume",
            Self::EventVolumeServer => "k8s.event.volume_server",
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
            Self::EventImage
            | Self::EventRegistry
            | Self::EventVolume
            | Self::EventVolumeServer => &[names::K8S_EVENT_REASON],
        }
    }
}
