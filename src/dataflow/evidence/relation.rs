//! Relations between entities, and how critical an entity is.

use super::entity::Entity;

tapio_core::closed_list! {
    /// Relation between two entities.
    pub Relation {
        /// A process runs in a container, a container in a pod, an endpoint at an address.
        RunsIn = "runs-in",
        /// A pod is owned by a workload.
        OwnedBy = "owned-by",
        /// A service selects a pod; outside of Kubernetes it is a unit, a container or a process.
        Selects = "selects",
        /// A pod mounts a volume.
        Mounts = "mounts",
        /// An entity connects to an endpoint.
        TalksTo = "talks-to",
        /// A pod, unit or process is scheduled on a node.
        ScheduledOn = "scheduled-on",
        /// An entity listens at an endpoint or has an address.
        Provides = "provides",
    }
}

impl Relation {
    /// Seconds for which an edge holds after it was last seen. Structural edges hold until an end
    /// ends; a connection is known only while the entities communicate.
    pub(super) fn max_age_s(self) -> u32 {
        match self {
            Self::TalksTo => 300,
            Self::Provides => 3_600,
            _ => u32::MAX,
        }
    }

    /// Whether the first entity of the edge depends on the second. An endpoint depends on its
    /// provider, so the direction of `Provides` is reversed.
    pub(super) fn first_depends_on_second(self) -> bool {
        self != Self::Provides
    }
}

/// An edge, from its first entity to its second.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// The first entity.
    pub from: Entity,
    /// Their relation.
    pub relation: Relation,
    /// The second entity.
    pub to: Entity,
}

/// Criticality of a pod or service, as its owner labelled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Criticality {
    /// A failure affects no user.
    Low,
    /// The default of owners who label.
    Medium,
    /// Users notice a failure.
    High,
    /// A failure stops the business.
    Critical,
}

impl Criticality {
    /// Parses a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "low" => Self::Low,
            "medium" => Self::Medium,
            "high" => Self::High,
            "critical" => Self::Critical,
            _ => return None,
        })
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}
