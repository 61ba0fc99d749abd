//! Logsources: the kinds of events they stand for, and Sigma's names for the fields of those. An
//! unknown logsource matches every event; one of another product none of this node's.

use super::super::derived::Derived;
use super::super::field::FieldRef;
use super::super::field_test::{FieldTest, Literal};
use super::super::kinds::Kinds;
use super::super::predicate::Clause;
use super::super::yaml::{Diagnostic, Node, Parsed, Position};
use tapio_core::event::{Name, names};

type Fields = &'static [(&'static str, FieldRef)];

/// A known logsource.
struct Mapping {
    category: Option<&'static str>,
    service: Option<&'static str>,
    kinds: &'static [Name],
    /// Sigma's names, those of Sysmon for Linux.
    fields: Fields,
    /// The programs that write the log, by their identifier in the journal; empty: all.
    identifiers: &'static [&'static str],
}

const IMAGE: (&str, FieldRef) = ("Image", FieldRef::Attribute(names::PROCESS_EXECUTABLE_PATH));
const PROCESS_ID: (&str, FieldRef) = ("ProcessId", FieldRef::Entity(names::PROCESS_PID));
const USER: (&str, FieldRef) = ("User", FieldRef::Derived(Derived::User));
const LOGON_ID: (&str, FieldRef) = ("LogonId", FieldRef::Attribute(names::PROCESS_OWNER_UID));

const PROCESS: Fields = &[
    IMAGE,
    PROCESS_ID,
    USER,
    LOGON_ID,
    ("CommandLine", FieldRef::Derived(Derived::CommandLine)),
    ("CurrentDirectory", FieldRef::Attribute(names::PROCESS_WORKING_DIRECTORY)),
    ("ParentProcessId", FieldRef::Attribute(names::PROCESS_PARENT_PID)),
    ("ParentImage", FieldRef::Attribute(names::TAPIO_PROCESS_PARENT_PATH)),
    ("ParentCommandLine", FieldRef::Derived(Derived::ParentCommandLine)),
];

const FILE: Fields =
    &[IMAGE, PROCESS_ID, USER, LOGON_ID, ("TargetFilename", FieldRef::Attribute(names::FILE_PATH))];

const CONNECTION: Fields = &[
    IMAGE,
    PROCESS_ID,
    USER,
    LOGON_ID,
    ("Protocol", FieldRef::Attribute(names::NETWORK_TRANSPORT)),
    ("Initiated", FieldRef::Derived(Derived::Initiated)),
    ("SourceIp", FieldRef::Derived(Derived::SourceIp)),
    ("SourcePort", FieldRef::Derived(Derived::SourcePort)),
    ("DestinationIp", FieldRef::Derived(Derived::DestinationIp)),
    ("DestinationPort", FieldRef::Derived(Derived::DestinationPort)),
];

const fn category(category: &'static str, kinds: &'static [Name], fields: Fields) -> Mapping {
    Mapping { category: Some(category), service: None, kinds, fields, identifiers: &[] }
}

const fn journal(service: &'static str, identifiers: &'static [&'static str]) -> Mapping {
    Mapping {
        category: None,
        service: Some(service),
        kinds: &[names::JOURNAL_MESSAGE],
        fields: &[],
        identifiers,
    }
}

/// Names of the node in the events of a known logsource.
const HOST: [&str; 3] = ["Computer", "host", "hostname"];

const CONNECTIONS: &[Name] = &[names::KERNEL_TCP_CONNECT, names::KERNEL_TCP_ACCEPT];

const TABLE: &[Mapping] = &[
    category("process_creation", &[names::KERNEL_PROCESS_EXEC], PROCESS),
    category("process_termination", &[names::KERNEL_PROCESS_EXIT], PROCESS),
    category("network_connection", CONNECTIONS, CONNECTION),
    category("file_event", &[names::KERNEL_FILE_CREATE], FILE),
    journal("syslog", &[]),
    journal("systemd", &[]),
    journal("journald", &[]),
    journal("auth", &[]),
    journal("sshd", &["sshd", "sshd-session", "sshd-auth"]),
    journal("sudo", &["sudo", "sudo-rs"]),
    journal("cron", &["cron", "crond", "cronie", "anacron", "crontab", "fcron"]),
    journal("clamav", &["clamd", "clamscan", "clamonacc", "freshclam"]),
    journal("vsftpd", &["vsftpd"]),
    journal("guacamole", &["guacd", "guacamole"]),
];

/// Products whose operating system events have to name (`os.type`, OpenTelemetry's values).
const SYSTEMS: &[(&str, &[&str])] = &[("windows", &["windows"]), ("macos", &["darwin", "macos"])];

/// The logsource of a document, its values in lower case.
pub(super) struct Logsource {
    category: Option<String>,
    service: Option<String>,
    product: Option<String>,
    known: Option<&'static Mapping>,
}

impl Logsource {
    pub(super) fn parse(document: &Node) -> Parsed<Self> {
        let mut found = Self { category: None, service: None, product: None, known: None };
        let Some(node) = document.entry("logsource") else { return Ok(found) };
        node.map("a logsource")?;
        let text = |key: &str| -> Parsed<Option<String>> {
            node.entry(key).map(|n| Ok(n.text(key)?.to_lowercase())).transpose()
        };
        (found.category, found.service) = (text("category")?, text("service")?);
        found.product = text("product")?;
        let (category, service) = (found.category.as_deref(), found.service.as_deref());
        if !found.is_foreign() {
            found.known = TABLE.iter().find(|known| {
                known.category == category && (known.category.is_some() || known.service == service)
            });
        }
        Ok(found)
    }

    /// Whether it is of a product other than this node's.
    fn is_foreign(&self) -> bool {
        !matches!(self.product.as_deref(), None | Some("linux" | "kubernetes"))
    }

    /// Whether a filter with this logsource applies to a rule with that one.
    pub(super) fn covers(&self, rule: &Self) -> bool {
        let covers = |own: &Option<String>, of: &Option<String>| own.is_none() || own == of;
        covers(&self.category, &rule.category)
            && covers(&self.service, &rule.service)
            && covers(&self.product, &rule.product)
    }

    /// The kinds it stands for.
    pub(super) fn kinds(&self) -> Kinds {
        match self.known {
            Some(known) => Kinds::Some { exact: known.kinds.to_vec(), globs: Vec::new() },
            None if self.is_foreign() => Kinds::Foreign,
            None => Kinds::All,
        }
    }

    /// The condition that it stands for, besides the kinds.
    pub(super) fn clause(&self) -> Option<Clause> {
        let one_of = |name, texts: &[&str]| {
            let test = |text: &&str| {
                Clause::Field(
                    FieldRef::Attribute(name),
                    FieldTest::EqualsFolded((*text).to_owned()),
                )
            };
            Clause::Any(texts.iter().map(test).collect())
        };
        let identifiers = self.known.map_or(&[][..], |known| known.identifiers);
        if !identifiers.is_empty() {
            return Some(one_of(names::TAPIO_JOURNAL_IDENTIFIER, identifiers));
        }
        let product = self.product.as_deref()?;
        let (_, types) = SYSTEMS.iter().find(|(system, _)| *system == product)?;
        Some(one_of(names::OS_TYPE, types))
    }

    /// The field for one of Sigma's field names.
    pub(super) fn field(&self, name: &str, position: Position) -> Parsed<FieldRef> {
        let fields = self.known.map_or(&[][..], |known| known.fields);
        if let Some((_, field)) = fields.iter().find(|(sigma, _)| sigma.eq_ignore_ascii_case(name))
        {
            return Ok(*field);
        }
        if self.known.is_some() && HOST.iter().any(|host| host.eq_ignore_ascii_case(name)) {
            return Ok(FieldRef::Entity(names::HOST_NAME));
        }
        field(name, position)
    }

    /// The values of a field that have a field of their own: a user's number isn't its name.
    pub(super) fn field_of_value(&self, field: FieldRef, literal: &Literal) -> FieldRef {
        match (field, literal) {
            (FieldRef::Derived(Derived::User), Literal::Int(_)) => {
                FieldRef::Attribute(names::PROCESS_OWNER_UID)
            }
            _ => field,
        }
    }

    /// Its values, if no collector reads it.
    pub(super) fn unread(&self) -> Option<String> {
        let is_named = self.category.is_some() || self.service.is_some() || self.is_foreign();
        (self.known.is_none() && is_named).then(|| self.text())
    }

    /// Its values, for messages: `product linux, service auditd`.
    pub(super) fn text(&self) -> String {
        let keys =
            [("product", &self.product), ("category", &self.category), ("service", &self.service)];
        let each = keys.iter().filter_map(|(key, v)| Some(format!("{key} {}", v.as_ref()?)));
        each.collect::<Vec<_>>().join(", ")
    }
}

/// The field for a name that isn't in the table of a logsource.
pub(super) fn field(name: &str, position: Position) -> Parsed<FieldRef> {
    if let Ok(field) = FieldRef::parse(name) {
        return Ok(field);
    }
    let attribute = Name::intern(name);
    Ok(FieldRef::Attribute(attribute.map_err(|e| Diagnostic { position, message: e.to_string() })?))
}
