//! Compiles Sigma documents, once all of them are read, to rules.

use std::sync::Arc;

use super::super::compile::sequence;
use super::super::compile::values::intern;
use super::super::rule::{NamedEvent, Rule};
use super::super::shape::Shape;
use super::super::yaml::{Diagnostic, Parsed, Position};
use super::correlation;
use super::document::{self, Detection, Documents, Head};

/// The results of a set of documents, each with its file.
pub(crate) struct Resolved {
    /// Each rule, or the reason why there is none.
    pub(crate) rules: Vec<(String, Position, Parsed<Rule>)>,
    /// Faults of filters.
    pub(crate) errors: Vec<(String, Diagnostic)>,
    /// Findings that are legal but probably unintended.
    pub(crate) warnings: Vec<(String, Diagnostic)>,
}

impl Documents {
    /// Compiles and removes the documents read so far.
    pub(crate) fn resolve(&mut self) -> Resolved {
        let mut warnings = std::mem::take(&mut self.warnings);
        let mut errors = Vec::new();
        for filter in std::mem::take(&mut self.filters) {
            let of_file = |diagnostic| (filter.file.clone(), diagnostic);
            for rule in &mut self.detections {
                if !filter.applies(&rule.head.names, &rule.logsource) {
                    continue;
                }
                match filter.narrowed(&rule.predicate, &rule.logsource) {
                    Ok(predicate) => rule.predicate = Arc::new(predicate),
                    Err(diagnostic) => errors.push(of_file(diagnostic)),
                }
            }
            let rules = &self.detections;
            let found = filter.warnings(|name| {
                let rule = rules.iter().find(|rule| rule.head.names.iter().any(|n| n == name));
                rule.map(|rule| &rule.logsource)
            });
            warnings.extend(found.into_iter().map(of_file));
        }
        let rules = self.rules();
        *self = Self::default();
        Resolved { rules, errors, warnings }
    }

    fn rules(&self) -> Vec<(String, Position, Parsed<Rule>)> {
        let mut used = correlation::Used {
            detections: vec![false; self.detections.len()],
            correlations: vec![false; self.correlations.len()],
        };
        let file = |head: &Head| {
            head.origin.rsplit_once(':').map_or(head.origin.clone(), |(file, _)| file.to_owned())
        };
        let compiled: Vec<Parsed<Rule>> = (0..self.correlations.len())
            .map(|number| correlation::rule(number, self, &mut used))
            .collect();
        let mut rules = Vec::new();
        for ((correlation, used), rule) in
            self.correlations.iter().zip(&used.correlations).zip(compiled)
        {
            // An error counts also in a correlation that only another one uses.
            if !used || rule.is_err() {
                rules.push((file(&correlation.head), correlation.head.position, rule));
            }
        }
        for (detection, used) in self.detections.iter().zip(used.detections) {
            if !used {
                let rule = single(detection);
                rules.push((file(&detection.head), detection.head.position, rule));
            }
        }
        rules
    }
}

/// A rule whose every event is a match: for a detection that no correlation uses.
fn single(detection: &Detection) -> Parsed<Rule> {
    let event = NamedEvent {
        name: "event".into(),
        text: detection.text.clone(),
        predicate: Arc::clone(&detection.predicate),
        unread: detection.logsource.unread(),
    };
    let pattern = document::pattern(&detection.head)?;
    let role = intern("symptom", detection.head.position)?;
    let shape = match &detection.aggregation {
        Some(aggregation) => aggregation.shape(role),
        None => Shape::Sequence(sequence::single(0, Vec::new(), role, pattern)),
    };
    document::rule(&detection.head, vec![event], shape, pattern)
}
