//! Which kinds tell a trouble of the thing they are about that another event ends: the table in
//! `docs/evidence.md`. What stands in no row is over when it is told; nothing ends it.

use super::{Name, Severity, names};

/// What ends a trouble: an event of a kind, of the same entity, later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Whatever it names: a pod that is ready has all its containers.
    Any(Name),
    /// Where it names the same as what told the trouble ([`Trouble::of`]); of the trouble's own kind,
    /// one that is less severe than those that tell it.
    Same(Name),
}

impl End {
    /// The kind that ends it.
    #[must_use]
    pub fn kind(self) -> Name {
        match self {
            Self::Any(kind) | Self::Same(kind) => kind,
        }
    }
}

/// A kind that tells a trouble.
pub struct Trouble {
    /// The kind.
    pub kind: Name,
    /// Events below it tell no trouble.
    pub least: Severity,
    /// What tells the troubles of one entity apart: a node's conditions have a type each.
    pub of: Option<Name>,
    /// What ends it.
    pub ended_by: &'static [End],
}

const fn any(kind: Name, ended_by: &'static [End]) -> Trouble {
    Trouble { kind, least: Severity(0), of: None, ended_by }
}

const fn each(kind: Name, of: Name, least: Severity, ended_by: &'static [End]) -> Trouble {
    Trouble { kind, least, of: Some(of), ended_by }
}

const UNIT: &[End] = &[End::Any(names::SYSTEMD_UNIT_STARTED)];
const POD: &[End] = &[End::Any(names::K8S_POD_READY)];
/// A process that dies takes with it what it is the main process of; that comes back as another one.
const PROCESS: &[End] = &[
    End::Any(names::SYSTEMD_UNIT_STARTED),
    End::Any(names::K8S_POD_READY),
    End::Same(names::CONTAINER_STARTED),
];
const CONTAINER: &[End] = &[End::Any(names::K8S_POD_READY), End::Same(names::CONTAINER_STARTED)];

/// All of them.
pub const TROUBLES: &[Trouble] = &[
    any(names::SYSTEMD_UNIT_FAILED, UNIT),
    any(names::SYSTEMD_UNIT_RESTARTING, UNIT),
    any(names::SYSTEMD_UNIT_STOPPED, UNIT),
    any(names::SYSTEMD_UNIT_OOM, UNIT),
    any(names::SYSTEMD_JOB_FAILED, UNIT),
    any(names::K8S_POD_CRASH_LOOP, POD),
    any(names::K8S_POD_OOM_KILLED, POD),
    any(
        names::K8S_POD_PENDING,
        &[End::Any(names::K8S_POD_READY), End::Any(names::K8S_POD_RUNNING)],
    ),
    any(names::K8S_EVENT, POD),
    any(names::CNI_FAILED, &[End::Any(names::K8S_POD_READY), End::Any(names::CNI_ADD)]),
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
        &[End::Same(names::K8S_NODE_CONDITION)],
    ),
    each(
        names::NETWORK_LINK_DOWN,
        names::NETWORK_INTERFACE_NAME,
        Severity(0),
        &[End::Same(names::NETWORK_LINK_UP)],
    ),
    each(
        names::NETWORK_ADDRESS_REMOVED,
        names::NETWORK_LOCAL_ADDRESS,
        Severity(0),
        &[End::Same(names::NETWORK_ADDRESS_ADDED)],
    ),
    any(names::NETWORK_ROUTE_REMOVED, &[End::Any(names::NETWORK_ROUTE_ADDED)]),
];

impl Trouble {
    /// Whether an event tells it.
    #[must_use]
    pub fn is_told_by(&self, kind: Name, severity: Severity) -> bool {
        kind == self.kind && severity >= self.least
    }

    /// How an event ends it.
    #[must_use]
    pub fn end(&self, kind: Name, severity: Severity) -> Option<End> {
        let end = self.ended_by.iter().find(|end| end.kind() == kind).copied();
        end.filter(|_| !self.is_told_by(kind, severity))
    }
}

/// Whether events of a kind tell troubles or end some.
#[must_use]
pub fn concerns(kind: Name) -> bool {
    TROUBLES.iter().any(|t| t.kind == kind || t.ended_by.iter().any(|end| end.kind() == kind))
}

/// Events of a kind below this severity neither tell nor end a trouble.
#[must_use]
pub fn least(kind: Name) -> Severity {
    let ends = TROUBLES.iter().any(|t| t.ended_by.iter().any(|end| end.kind() == kind));
    let told = TROUBLES.iter().find(|t| t.kind == kind).map(|t| t.least);
    if ends { Severity(0) } else { told.unwrap_or(Severity(u8::MAX)) }
}

/// The attribute or entity key by which a kind's events are told apart.
#[must_use]
pub fn told_apart_by(kind: Name) -> Option<Name> {
    let concerned = |t: &&Trouble| t.kind == kind || t.ended_by.contains(&End::Same(kind));
    TROUBLES.iter().filter(concerned).find_map(|t| t.of)
}

#[cfg(test)]
mod tests {
    use super::super::vocabulary;
    use super::*;

    const DOC: &str = include_str!("../../../docs/evidence.md");

    #[test]
    fn each_kind_has_one_row_and_can_say_what_tells_it_apart() {
        for trouble in TROUBLES {
            let kind = trouble.kind.text();
            assert_eq!(TROUBLES.iter().filter(|t| t.kind == trouble.kind).count(), 1, "{kind}");
            let same = trouble.ended_by.iter().filter(|e| matches!(e, End::Same(_)));
            let mut told_apart = vec![trouble.kind];
            told_apart.extend(same.map(|e| e.kind()));
            for kind in told_apart {
                let kind_text = kind.text();
                let own = vocabulary::attributes(kind_text);
                assert!(own.is_some(), "{kind_text} isn't known");
                // An event names one thing, whichever troubles it tells or ends.
                assert_eq!(told_apart_by(kind), trouble.of, "{kind_text}");
                let Some(of) = trouble.of.filter(|of| !names::ENTITIES.contains(of)) else {
                    continue;
                };
                assert!(
                    own.is_some_and(|a| a.contains(&of.text())),
                    "{kind_text} has no {}",
                    of.text()
                );
            }
        }
    }

    #[test]
    fn a_condition_is_ended_by_its_own_kind() {
        let condition = TROUBLES.iter().find(|t| t.kind == names::K8S_NODE_CONDITION);
        let end = |severity| condition.and_then(|t| t.end(names::K8S_NODE_CONDITION, severity));
        assert_eq!(end(Severity::INFO), Some(End::Same(names::K8S_NODE_CONDITION)));
        assert_eq!(end(Severity::WARN), None);
        assert_eq!(least(names::K8S_NODE_CONDITION), Severity(0));
        assert_eq!(least(names::KERNEL_PROCESS_EXIT), Severity::WARN);
        assert!(concerns(names::K8S_POD_READY) && !concerns(names::JOURNAL_MESSAGE));
    }

    /// The rows of the document's table: kinds, and what ends them.
    #[test]
    fn the_document_has_the_table() {
        let ticked = |text: &str| -> Vec<String> {
            text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        };
        let heading = "| what is told |";
        let rows = DOC.lines().skip_while(|l| !l.starts_with(heading)).skip(2);
        let mut told = Vec::new();
        for row in rows.take_while(|l| l.starts_with('|')) {
            let cells: Vec<Vec<String>> = row.split('|').skip(1).take(3).map(ticked).collect();
            for kind in &cells[0] {
                for end in &cells[2] {
                    told.push((kind.clone(), cells[1].clone(), end.clone()));
                }
            }
        }
        let mut table = Vec::new();
        for trouble in TROUBLES {
            let of: Vec<String> = trouble.of.iter().map(|of| of.text().to_owned()).collect();
            for end in trouble.ended_by {
                table.push((
                    trouble.kind.text().to_owned(),
                    of.clone(),
                    end.kind().text().to_owned(),
                ));
            }
        }
        told.sort();
        table.sort();
        assert_eq!(told, table);
    }
}
