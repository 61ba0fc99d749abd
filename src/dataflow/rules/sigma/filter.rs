//! Filter documents: conditions that detection rules have to meet as well (SigmaHQ, "Sigma
//! Filters"). A filter leaves out what is usual on the user's nodes without a change of the rules.

use super::super::predicate::{Clause, Predicate};
use super::super::yaml::{Diagnostic, Node, Parsed, Part, Position, reject};
use super::detection;
use super::logsource::Logsource;

/// The keys of `filter` that aren't selections.
const KEYS: &[&str] = &["rules", "condition"];

/// A filter.
pub(super) struct Filter {
    pub(super) file: String,
    title: String,
    /// The names or ids of the rules it applies to; `None`: all with its logsource.
    rules: Option<Vec<(String, Position)>>,
    logsource: Logsource,
    node: Node,
}

impl Filter {
    /// Reads a document with `filter`.
    pub(super) fn read(document: &Node, node: &Node, file: &str) -> Parsed<Self> {
        let title = match document.entry("title").map(|n| n.text("title")).transpose()? {
            Some(title) if !title.is_empty() => title.to_owned(),
            _ => return reject(document.position, "a Sigma filter needs a title"),
        };
        if document.entry("logsource").is_none() {
            return reject(document.position, "a Sigma filter needs a logsource");
        }
        let logsource = Logsource::parse(document)?;
        // The fields depend on each rule, but mistakes are found without one.
        detection::clause(node, KEYS, &logsource)?;
        let rules = match node.entry("rules") {
            None => return reject(node.position, "a filter needs `rules`: a list, or `any`"),
            Some(Node { part: Part::Text(text), .. }) if text.eq_ignore_ascii_case("any") => None,
            Some(list) => {
                let name =
                    |n: &Node| Ok((n.text("the name or id of a rule")?.to_owned(), n.position));
                Some(list.items().iter().map(name).collect::<Parsed<_>>()?)
            }
        };
        Ok(Self { file: file.to_owned(), title, rules, logsource, node: node.clone() })
    }

    /// Whether it applies to a rule with these names.
    pub(super) fn applies(&self, names: &[String], logsource: &Logsource) -> bool {
        let is_named = |rules: &Vec<(String, Position)>| {
            rules.iter().any(|(rule, _)| names.iter().any(|name| name == rule))
        };
        self.rules.as_ref().is_none_or(is_named) && self.logsource.covers(logsource)
    }

    /// The predicate of a rule with this logsource, and the filter's condition.
    pub(super) fn narrowed(
        &self,
        predicate: &Predicate,
        logsource: &Logsource,
    ) -> Parsed<Predicate> {
        let own = detection::clause(&self.node, KEYS, logsource)?;
        let Predicate { kinds, clause } = predicate.clone();
        Ok(Predicate::new(kinds, Clause::All(vec![clause, own])))
    }

    /// Warnings of rules that it names and doesn't apply to. `find` returns a rule's logsource.
    pub(super) fn warnings<'a>(
        &self,
        find: impl Fn(&str) -> Option<&'a Logsource>,
    ) -> Vec<Diagnostic> {
        let named = self.rules.iter().flatten();
        let warning = |(rule, position): &(String, Position)| {
            let message = match find(rule) {
                None => format!("filter `{}`: no rule `{rule}` is loaded", self.title),
                Some(logsource) if !self.logsource.covers(logsource) => format!(
                    "filter `{}` doesn't apply to `{rule}`: its logsource is {}",
                    self.title,
                    logsource.text()
                ),
                Some(_) => return None,
            };
            Some(Diagnostic { position: *position, message })
        };
        named.filter_map(warning).collect()
    }
}
