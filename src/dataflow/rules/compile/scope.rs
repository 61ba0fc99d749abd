//! The named events of a rule.

use std::sync::Arc;

use super::super::rule::NamedEvent;
use super::super::suggest::unknown;
use super::super::yaml::{Diagnostic, Node, Parsed, Part, Table, reject};
use super::predicate;

/// Reserved names in templates.
const RESERVED: [&str; 3] = ["key", "count", "duration"];

/// The events of the rule that is being compiled.
pub(crate) struct EventScope {
    /// The events, by number.
    pub(crate) list: Vec<NamedEvent>,
    used: Vec<bool>,
    /// Findings that are legal but probably unintended.
    pub(crate) warnings: Vec<Diagnostic>,
}

impl EventScope {
    /// The names of the events.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.list.iter().map(|e| e.name.as_str()).collect()
    }

    /// The number of a named event.
    pub(crate) fn find(&mut self, node: &Node) -> Parsed<usize> {
        let name = node.text("the name of an event")?;
        match self.list.iter().position(|e| e.name == name) {
            Some(i) => {
                self.used[i] = true;
                Ok(i)
            }
            None => reject(node.position, unknown("event", name, &self.names())),
        }
    }

    /// The number of a named event, or of a predicate in its place.
    pub(crate) fn find_or_add(&mut self, node: &Node, name: &str) -> Parsed<usize> {
        if matches!(node.part, Part::Text(_)) {
            return self.find(node);
        }
        let compiled = Arc::new(predicate::parse(node)?);
        let text = node.json().to_string();
        self.list.push(NamedEvent {
            name: name.to_owned(),
            text,
            predicate: compiled,
            unread: None,
        });
        self.used.push(true);
        Ok(self.list.len() - 1)
    }

    /// Compiles `events`.
    pub(crate) fn parse(node: &Node) -> Parsed<Self> {
        let (mut list, mut warnings) = (Vec::new(), Vec::new());
        for (key, value) in node.map("events")? {
            if RESERVED.contains(&key.text.as_str()) || key.text.contains('.') {
                let message = format!(
                    "`{}`: invalid event name: contains a dot, or is reserved ({})",
                    key.text,
                    RESERVED.join(", ")
                );
                return reject(key.position, message);
            }
            let compiled = Arc::new(predicate::parse(value)?);
            let mismatches = compiled.type_mismatches().into_iter();
            warnings
                .extend(mismatches.map(|message| Diagnostic { position: value.position, message }));
            predicate::misspelt_kinds(value, &mut warnings);
            let text = value.json().to_string();
            list.push(NamedEvent {
                name: key.text.clone(),
                text,
                predicate: compiled,
                unread: None,
            });
        }
        let used = vec![false; list.len()];
        Ok(Self { list, used, warnings })
    }

    /// Rejects an event that no part of the rule uses.
    pub(crate) fn check_all_used(&self, table: Table<'_>) -> Parsed<()> {
        let Some(Part::Map(entries)) = table.get("events").map(|n| &n.part) else {
            return Ok(());
        };
        match self.used.iter().zip(entries).find(|(used, _)| !**used) {
            Some((_, (key, _))) => {
                reject(key.position, format!("event `{}` is never used", key.text))
            }
            None => Ok(()),
        }
    }
}
