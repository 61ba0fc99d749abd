//! Kinds that start a fault of an entity and kinds that end it: the table in `docs/evidence.md`. A
//! kind without a row is an event without a state; nothing ends it.

use super::name::Name;
use super::severity::Severity;
use super::well_known_names as names;

/// A kind whose later event of the same entity ends a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultEnd {
    /// It ends the fault whatever the distinguishing field holds: a ready pod has all its
    /// containers.
    AnyInstance(Name),
    /// It ends the fault if the distinguishing field ([`Fault::distinguished_by`]) is equal. If it
    /// is the fault's own kind, it ends the fault when it is less severe than
    /// [`Fault::min_severity`].
    SameInstance(Name),
}

impl FaultEnd {
    /// The kind that ends the fault.
    #[must_use]
    pub fn kind(self) -> Name {
        match self {
            Self::AnyInstance(kind) | Self::SameInstance(kind) => kind,
        }
    }
}

/// A fault: the kind that starts it and the kinds that end it.
pub struct Fault {
    /// The kind that starts it.
    pub kind: Name,
    /// Events below this severity start no fault.
    pub min_severity: Severity,
    /// The field that distinguishes faults of one entity: a node's conditions each have a type.
    pub distinguished_by: Option<Name>,
    /// The kinds that end it.
    pub ended_by: &'static [FaultEnd],
}

const fn any(kind: Name, ended_by: &'static [FaultEnd]) -> Fault {
    Fault { kind, min_severity: Severity(0), distinguished_by: None, ended_by }
}

const fn each(
    kind: Name,
    distinguished_by: Name,
    min_severity: Severity,
    ended_by: &'static [FaultEnd],
) -> Fault {
    Fault { kind, min_severity, distinguished_by: Some(distinguished_by), ended_by }
}

const UNIT: &[FaultEnd] = &[FaultEnd::AnyInstance(names::SYSTEMD_UNIT_STARTED)];
const POD: &[FaultEnd] = &[FaultEnd::AnyInstance(names::K8S_POD_READY)];
/// A process that dies may be the main process of a unit or container. Those restart as another
/// process.
const PROCESS: &[FaultEnd] = &[
    FaultEnd::AnyInstance(names::SYSTEMD_UNIT_STARTED),
    FaultEnd::AnyInstance(names::K8S_POD_READY),
    FaultEnd::SameInstance(names::CONTAINER_STARTED),
];
const CONTAINER: &[FaultEnd] = &[
    FaultEnd::AnyInstance(names::K8S_POD_READY),
    FaultEnd::SameInstance(names::CONTAINER_STARTED),
];

/// All faults.
pub const FAULTS: &[Fault] = &[
    any(names::SYSTEMD_UNIT_FAILED, UNIT),
    any(names::SYSTEMD_UNIT_RESTARTING, UNIT),
    any(names::SYSTEMD_UNIT_STOPPED, UNIT),
    any(names::SYSTEMD_UNIT_OOM, UNIT),
    any(names::SYSTEMD_JOB_FAILED, UNIT),
    any(names::K8S_POD_CRASH_LOOP, POD),
    any(names::K8S_POD_OOM_KILLED, POD),
    any(
        names::K8S_POD_PENDING,
        &[
            FaultEnd::AnyInstance(names::K8S_POD_READY),
            FaultEnd::AnyInstance(names::K8S_POD_RUNNING),
        ],
    ),
    any(names::K8S_EVENT, POD),
    any(
        names::CNI_FAILED,
        &[FaultEnd::AnyInstance(names::K8S_POD_READY), FaultEnd::AnyInstance(names::CNI_ADD)],
    ),
    each(names::CONTAINER_EXITED, names::CONTAINER_ID, Severity(0), CONTAINER),
    each(names::CONTAINER_OOM, names::CONTAINER_ID, Severity(0), CONTAINER),
    each(names::KERNEL_PROCESS_OOM_KILL, names::CONTAINER_ID, Severity::WARN, PROCESS),
    each(names::KERNEL_PROCESS_SIGNAL, names::CONTAINER_ID, Severity::WARN, PROCESS),
    each(names::KERNEL_PROCESS_EXIT, names::CONTAINER_ID, Severity::WARN, PROCESS),
    each(names::JOURNAL_COREDUMP, names::CONTAINER_ID, Severity::WARN, PROCESS),
    each(
        names::K8S_NODE_CONDITION,
        names::K8S_NODE_CONDITION_TYPE,
        Severity::WARN,
        &[FaultEnd::SameInstance(names::K8S_NODE_CONDITION)],
    ),
    each(
        names::NETWORK_LINK_DOWN,
        names::NETWORK_INTERFACE_NAME,
        Severity(0),
        &[FaultEnd::SameInstance(names::NETWORK_LINK_UP)],
    ),
    each(
        names::NETWORK_ADDRESS_REMOVED,
        names::NETWORK_LOCAL_ADDRESS,
        Severity(0),
        &[FaultEnd::SameInstance(names::NETWORK_ADDRESS_ADDED)],
    ),
    any(names::NETWORK_ROUTE_REMOVED, &[FaultEnd::AnyInstance(names::NETWORK_ROUTE_ADDED)]),
];

impl Fault {
    /// Whether an event starts it.
    #[must_use]
    pub fn is_started_by(&self, kind: Name, severity: Severity) -> bool {
        kind == self.kind && severity >= self.min_severity
    }

    /// How an event ends it; `None` if it doesn't.
    #[must_use]
    pub fn end(&self, kind: Name, severity: Severity) -> Option<FaultEnd> {
        let end = self.ended_by.iter().find(|end| end.kind() == kind).copied();
        end.filter(|_| !self.is_started_by(kind, severity))
    }
}

/// Whether events of a kind start or end faults.
#[must_use]
pub fn is_fault_transition(kind: Name) -> bool {
    FAULTS.iter().any(|f| f.kind == kind || f.ended_by.iter().any(|end| end.kind() == kind))
}

/// The severity below which events of a kind neither start nor end a fault.
#[must_use]
pub fn min_severity(kind: Name) -> Severity {
    let ends = FAULTS.iter().any(|f| f.ended_by.iter().any(|end| end.kind() == kind));
    let starts = FAULTS.iter().find(|f| f.kind == kind).map(|f| f.min_severity);
    if ends { Severity(0) } else { starts.unwrap_or(Severity(u8::MAX)) }
}

/// The attribute or entity key that distinguishes the faults which events of a kind start or end.
#[must_use]
pub fn distinguishing_field(kind: Name) -> Option<Name> {
    let concerned =
        |f: &&Fault| f.kind == kind || f.ended_by.contains(&FaultEnd::SameInstance(kind));
    FAULTS.iter().filter(concerned).find_map(|f| f.distinguished_by)
}

#[cfg(test)]
mod tests {
    use super::super::attribute_schema;
    use super::*;

    const DOC: &str = include_str!("../../../docs/evidence.md");

    #[test]
    fn each_kind_has_one_row_and_its_distinguishing_field() {
        for fault in FAULTS {
            let kind = fault.kind.text();
            assert_eq!(FAULTS.iter().filter(|f| f.kind == fault.kind).count(), 1, "{kind}");
            let same = fault.ended_by.iter().filter(|e| matches!(e, FaultEnd::SameInstance(_)));
            let mut distinguished = vec![fault.kind];
            distinguished.extend(same.map(|e| e.kind()));
            for kind in distinguished {
                let kind_text = kind.text();
                let own = attribute_schema::attributes(kind_text);
                assert!(own.is_some(), "unknown kind {kind_text}");
                // An event has one distinguishing field, whichever faults it starts or ends.
                assert_eq!(distinguishing_field(kind), fault.distinguished_by, "{kind_text}");
                let field = fault.distinguished_by.filter(|f| !names::ENTITY_KEYS.contains(f));
                let Some(field) = field else { continue };
                assert!(
                    own.is_some_and(|a| a.contains(&field.text())),
                    "{kind_text} lacks {field}"
                );
            }
        }
    }

    #[test]
    fn node_condition_ends_its_own_kind() {
        let condition = FAULTS.iter().find(|f| f.kind == names::K8S_NODE_CONDITION);
        let end = |severity| condition.and_then(|f| f.end(names::K8S_NODE_CONDITION, severity));
        assert_eq!(end(Severity::INFO), Some(FaultEnd::SameInstance(names::K8S_NODE_CONDITION)));
        assert_eq!(end(Severity::WARN), None);
        assert_eq!(min_severity(names::K8S_NODE_CONDITION), Severity(0));
        assert_eq!(min_severity(names::KERNEL_PROCESS_EXIT), Severity::WARN);
        assert!(is_fault_transition(names::K8S_POD_READY));
        assert!(!is_fault_transition(names::JOURNAL_MESSAGE));
    }

    /// Compares the rows of the document's table: kind, distinguishing field, ending kind.
    #[test]
    fn documented_table_equals_faults() {
        let code_spans = |text: &str| -> Vec<String> {
            text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        };
        let heading = "| fault | distinguished by | ended by |";
        let rows = DOC.lines().skip_while(|l| *l != heading).skip(2);
        let mut documented = Vec::new();
        for row in rows.take_while(|l| l.starts_with('|')) {
            let cells: Vec<Vec<String>> = row.split('|').skip(1).take(3).map(code_spans).collect();
            for kind in &cells[0] {
                for end in &cells[2] {
                    documented.push((kind.clone(), cells[1].clone(), end.clone()));
                }
            }
        }
        let mut table = Vec::new();
        for fault in FAULTS {
            let field: Vec<String> =
                fault.distinguished_by.iter().map(|f| f.text().to_owned()).collect();
            for end in fault.ended_by {
                let end = end.kind().text().to_owned();
                table.push((fault.kind.text().to_owned(), field.clone(), end));
            }
        }
        documented.sort();
        table.sort();
        assert_eq!(documented, table);
    }
}
