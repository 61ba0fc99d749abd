//! Sigma documents, taken verbatim: detection rules and correlation rules of the Sigma
//! specification 2 (SigmaHQ, "Sigma Specification", parts rules and correlation rules).
//!
//! | file | purpose |
//! | --- | --- |
//! | `detection.rs` | selections: fields, modifiers, values |
//! | `encoding.rs` | values as somebody encoded them |
//! | `condition.rs` | conditions in words |
//! | `correlation.rs` | correlation rules over detection rules and other correlation rules |
//! | `logsource.rs` | which kinds and fields a logsource means here |
//!
//! A rule that no correlation refers to is told by itself. A field that is no entity
//! and no built-in field means `attributes.<field>`. Text compares in any case, as Sigma has it.

mod condition;
mod correlation;
mod detection;
mod encoding;
mod logsource;

use std::sync::Arc;

use super::parse::intern;
use super::predicate::Predicate;
use super::rule::{Given, NamedEvent, Rule, Shape, Telling};
use super::shape;
use super::template::Template;
use super::tree::{Node, Place, Read, complain};
use tapio_core::event::{Name, Severity};

const IDLE_NS: u64 = 30_000_000_000;
const MAX_AGE_NS: u64 = 30 * 60 * 1_000_000_000;

/// What both kinds of document have.
#[derive(Clone)]
struct Head {
    place: Place,
    title: String,
    /// What a correlation may call it.
    names: Vec<String>,
    description: String,
    severity: Severity,
    origin: String,
}

/// A detection rule, compiled.
struct Detection {
    head: Head,
    /// The detection, in JSON.
    text: String,
    predicate: Arc<Predicate>,
}

/// A correlation rule whose references are still to be found.
struct Correlation {
    head: Head,
    node: Node,
}

impl Correlation {
    /// What it says under this key of `correlation`.
    fn entry(&self, key: &str) -> Option<&Node> {
        self.node.entry("correlation")?.entry(key)
    }
}

/// The Sigma documents that have been read; correlations may refer to documents that come later.
#[derive(Default)]
pub(super) struct Documents {
    detections: Vec<Detection>,
    correlations: Vec<Correlation>,
}

/// Whether a document is Sigma's: ours begins with `rule`.
pub(super) fn is_sigma(node: &Node) -> bool {
    let has = |key| node.entry(key).is_some();
    !has("rule") && has("title") && (has("detection") || has("correlation"))
}

fn head(node: &Node, file: &str) -> Read<Head> {
    let text =
        |key: &str| -> Read<Option<&str>> { node.entry(key).map(|n| n.text(key)).transpose() };
    let Some(title) = text("title")?.filter(|t| !t.is_empty()) else {
        return complain(node.place, "a Sigma rule needs a title");
    };
    let level = node.entry("level");
    let severity = match level.map(|n| n.text("level")).transpose()? {
        None | Some("informational") => Severity::INFO,
        Some("low") => Severity(Severity::INFO.0 + 2),
        Some("medium") => Severity::WARN,
        Some("high") => Severity::ERROR,
        Some("critical") => Severity::FATAL,
        Some(other) => {
            let words = ["informational", "low", "medium", "high", "critical"];
            let place = level.map_or(node.place, |n| n.place);
            return complain(place, super::tree::unknown("level", other, &words));
        }
    };
    let own_names = [text("name")?, text("id")?, Some(title)];
    Ok(Head {
        place: node.place,
        title: title.to_owned(),
        names: own_names.into_iter().flatten().map(str::to_owned).collect(),
        description: text("description")?.unwrap_or("").to_owned(),
        severity,
        origin: format!("{file}:{}", node.place.line),
    })
}

impl Documents {
    /// Reads one document.
    pub(super) fn read(&mut self, node: &Node, file: &str) -> Read<()> {
        let head = head(node, file)?;
        if node.entry("correlation").is_some() {
            self.correlations.push(Correlation { head, node: node.clone() });
            return Ok(());
        }
        let predicate = Arc::new(detection::predicate(node)?);
        let text = node.entry("detection").map(|n| n.json().to_string()).unwrap_or_default();
        self.detections.push(Detection { head, text, predicate });
        Ok(())
    }

    /// Makes rules of what has been read. Each comes with its place, or the complaint with the
    /// file's name.
    pub(super) fn resolve(&mut self) -> Vec<(String, Place, Read<Rule>)> {
        let mut used = correlation::Used {
            detections: vec![false; self.detections.len()],
            correlations: vec![false; self.correlations.len()],
        };
        let file = |head: &Head| {
            head.origin.rsplit_once(':').map_or(head.origin.clone(), |(file, _)| file.to_owned())
        };
        let made: Vec<Read<Rule>> = (0..self.correlations.len())
            .map(|number| correlation::rule(number, self, &mut used))
            .collect();
        let mut rules = Vec::new();
        for ((correlation, used), rule) in
            self.correlations.iter().zip(&used.correlations).zip(made)
        {
            // What is told through another one alone must be right all the same.
            if !used || rule.is_err() {
                rules.push((file(&correlation.head), correlation.head.place, rule));
            }
        }
        for (detection, used) in self.detections.iter().zip(used.detections) {
            if !used {
                let rule = alone(detection);
                rules.push((file(&detection.head), detection.head.place, rule));
            }
        }
        *self = Self::default();
        rules
    }
}

/// A detection that finds its events by itself.
fn alone(detection: &Detection) -> Read<Rule> {
    let event = NamedEvent {
        name: "event".into(),
        text: detection.text.clone(),
        predicate: Arc::clone(&detection.predicate),
    };
    let pattern = pattern(&detection.head)?;
    let role = intern("symptom", detection.head.place)?;
    let shape = Shape::Sequence(shape::single(0, Vec::new(), role, pattern));
    rule(&detection.head, vec![event], shape, pattern)
}

/// A pattern's name from a title: lower case, words joined by dashes.
fn pattern(head: &Head) -> Read<Name> {
    let words: Vec<String> = head
        .title
        .split(|c: char| !c.is_alphanumeric())
        .filter(|w| !w.is_empty())
        .map(str::to_lowercase)
        .collect();
    intern(&words.join("-"), head.place)
}

fn rule(head: &Head, events: Vec<NamedEvent>, shape: Shape, pattern: Name) -> Read<Rule> {
    Ok(Rule {
        name: intern(&head.title, head.place)?,
        description: head.description.clone(),
        severity: head.severity,
        events,
        shape,
        telling: Telling {
            pattern,
            name: Some(Template::verbatim(&head.title)),
            intent: head.description.clone(),
            root_cause: Vec::new(),
            actions: Vec::new(),
            business: Given::Auto,
            customer_facing: Given::Auto,
            slo_impact: Given::Auto,
            idle_ns: IDLE_NS,
            max_age_ns: MAX_AGE_NS,
        },
        tests: Vec::new(),
        origin: head.origin.clone(),
    })
}
