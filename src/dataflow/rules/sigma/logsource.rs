//! Logsources: the kinds of events they stand for, and Sigma's names for the fields of those. An
//! unknown logsource matches every event.

use super::super::field::FieldRef;
use super::super::yaml::{Node, Parsed};
use tapio_core::event::{Name, names};

/// A known logsource.
struct Mapping {
    category: Option<&'static str>,
    service: Option<&'static str>,
    kinds: &'static [Name],
    fields: &'static [(&'static str, FieldRef)],
}

const PROCESS: &[(&str, FieldRef)] = &[
    ("Image", FieldRef::Attribute(names::PROCESS_EXECUTABLE_PATH)),
    ("CommandLine", FieldRef::Attribute(names::PROCESS_COMMAND_ARGS)),
    ("ProcessId", FieldRef::Entity(names::PROCESS_PID)),
    ("ParentProcessId", FieldRef::Attribute(names::PROCESS_PARENT_PID)),
    ("User", FieldRef::Attribute(names::PROCESS_OWNER_UID)),
];

const CONNECTION: &[(&str, FieldRef)] = &[
    ("Image", FieldRef::Attribute(names::PROCESS_EXECUTABLE_PATH)),
    ("ProcessId", FieldRef::Entity(names::PROCESS_PID)),
    ("DestinationIp", FieldRef::Attribute(names::NETWORK_PEER_ADDRESS)),
    ("DestinationPort", FieldRef::Attribute(names::NETWORK_PEER_PORT)),
    ("SourceIp", FieldRef::Attribute(names::NETWORK_LOCAL_ADDRESS)),
    ("SourcePort", FieldRef::Attribute(names::NETWORK_LOCAL_PORT)),
];

const fn category(
    category: &'static str,
    kinds: &'static [Name],
    fields: &'static [(&'static str, FieldRef)],
) -> Mapping {
    Mapping { category: Some(category), service: None, kinds, fields }
}

const fn journal(service: &'static str) -> Mapping {
    Mapping {
        category: None,
        service: Some(service),
        kinds: &[names::JOURNAL_MESSAGE],
        fields: &[],
    }
}

const TABLE: &[Mapping] = &[
    category("process_creation", &[names::KERNEL_PROCESS_EXEC], PROCESS),
    category("process_termination", &[names::KERNEL_PROCESS_EXIT], PROCESS),
    category("network_connection", &[names::KERNEL_TCP_CONNECT], CONNECTION),
    journal("syslog"),
    journal("systemd"),
    journal("journald"),
    journal("auth"),
    journal("sshd"),
    journal("sudo"),
    journal("cron"),
];

/// The logsource of a document.
pub(super) struct Logsource(Option<&'static Mapping>);

impl Logsource {
    pub(super) fn parse(document: &Node) -> Parsed<Self> {
        let Some(node) = document.entry("logsource") else { return Ok(Self(None)) };
        node.map("a logsource")?;
        let text = |key: &str| node.entry(key).map(|n| n.text(key)).transpose();
        let (category, service, product) = (text("category")?, text("service")?, text("product")?);
        // The kinds describe Linux nodes; other products' events have other sources.
        let applies = matches!(product, None | Some("linux" | "kubernetes"));
        let known = TABLE.iter().find(|known| {
            applies
                && known.category == category
                && (known.category.is_some() || known.service == service)
        });
        Ok(Self(known))
    }

    /// The kinds it stands for; empty: every kind.
    pub(super) fn kinds(&self) -> &'static [Name] {
        self.0.map_or(&[], |known| known.kinds)
    }

    /// The field for one of Sigma's field names.
    pub(super) fn field(&self, name: &str) -> Option<FieldRef> {
        let fields = self.0.map_or(&[][..], |known| known.fields);
        fields.iter().find(|(sigma, _)| *sigma == name).map(|(_, field)| *field)
    }
}
