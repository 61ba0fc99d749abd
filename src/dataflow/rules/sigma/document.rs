//! Sigma documents: what detection rules and correlation rules have in common.

use std::sync::Arc;

use super::super::compile::values::intern;
use super::super::predicate::Predicate;
use super::super::rule::{AutoOr, NamedEvent, Rule, StorySpec};
use super::super::shape::Shape;
use super::super::suggest::unknown;
use super::super::template::Template;
use super::super::yaml::{Diagnostic, Node, Parsed, Position, reject};
use super::aggregation::Aggregation;
use super::detection;
use super::filter::Filter;
use super::logsource::Logsource;
use tapio_core::event::{Name, Severity};

/// A story counts what a rule detects on a host: a command that is repeated every few minutes is
/// one story, not one each time.
const IDLE_NS: u64 = 5 * 60 * 1_000_000_000;
const MAX_AGE_NS: u64 = 60 * 60 * 1_000_000_000;

/// The keys that both types of document have.
#[derive(Clone)]
pub(super) struct Head {
    pub(super) position: Position,
    title: String,
    /// The names by which a correlation can refer to it.
    pub(super) names: Vec<String>,
    description: String,
    severity: Severity,
    pub(super) origin: String,
}

/// A compiled detection rule.
pub(super) struct Detection {
    pub(super) head: Head,
    /// The detection as JSON.
    pub(super) text: String,
    pub(super) predicate: Arc<Predicate>,
    pub(super) logsource: Logsource,
    pub(super) aggregation: Option<Aggregation>,
}

/// A correlation rule with unresolved references.
pub(super) struct Correlation {
    pub(super) head: Head,
    pub(super) node: Node,
}

impl Correlation {
    /// The value of a key of `correlation`.
    pub(super) fn entry(&self, key: &str) -> Option<&Node> {
        self.node.entry("correlation")?.entry(key)
    }
}

/// The Sigma documents read so far. Correlations can refer to later documents.
#[derive(Default)]
pub(crate) struct Documents {
    pub(super) detections: Vec<Detection>,
    pub(super) correlations: Vec<Correlation>,
    pub(super) filters: Vec<Filter>,
    /// Findings that are legal but probably unintended, with their files.
    pub(super) warnings: Vec<(String, Diagnostic)>,
}

/// Whether a document is a Sigma document. One with `rule` is a tapio rule.
pub(crate) fn is_sigma(node: &Node) -> bool {
    let has = |key| node.entry(key).is_some();
    let has_body = has("detection") || has("correlation") || has("filter");
    !has("rule") && has("title") && has_body
}

fn head(node: &Node, file: &str) -> Parsed<Head> {
    let text =
        |key: &str| -> Parsed<Option<&str>> { node.entry(key).map(|n| n.text(key)).transpose() };
    let Some(title) = text("title")?.filter(|t| !t.is_empty()) else {
        return reject(node.position, "a Sigma rule needs a title");
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
            let position = level.map_or(node.position, |n| n.position);
            return reject(position, unknown("level", other, &words));
        }
    };
    let own_names = [text("name")?, text("id")?, Some(title)];
    Ok(Head {
        position: node.position,
        title: title.to_owned(),
        names: own_names.into_iter().flatten().map(str::to_owned).collect(),
        description: text("description")?.unwrap_or("").to_owned(),
        severity,
        origin: format!("{file}:{}", node.position.line),
    })
}

impl Documents {
    /// Adds a document.
    pub(crate) fn read(&mut self, node: &Node, file: &str) -> Parsed<()> {
        if let Some(filter) = node.entry("filter") {
            self.filters.push(Filter::read(node, filter, file)?);
            return Ok(());
        }
        let head = head(node, file)?;
        if node.entry("correlation").is_some() {
            self.correlations.push(Correlation { head, node: node.clone() });
            return Ok(());
        }
        let logsource = Logsource::parse(node)?;
        let detection::Compiled { predicate, aggregation } = detection::compile(node, &logsource)?;
        let predicate = Arc::new(predicate);
        let detection = node.entry("detection");
        let timeframe = detection.and_then(|d| d.entry("timeframe"));
        if let (Some(timeframe), None) = (timeframe, &aggregation) {
            let message = "`timeframe` has no effect without an aggregation in the condition; for \
                           a window, write a correlation rule with `timespan`";
            let message = message.to_owned();
            let warning = Diagnostic { position: timeframe.position, message };
            self.warnings.push((file.to_owned(), warning));
        }
        let text = detection.map(|n| n.json().to_string()).unwrap_or_default();
        self.detections.push(Detection { head, text, predicate, logsource, aggregation });
        Ok(())
    }
}

/// The pattern for a title: lower case, words joined by dashes.
pub(super) fn pattern(head: &Head) -> Parsed<Name> {
    let words: Vec<String> = head
        .title
        .split(|c: char| !c.is_alphanumeric())
        .filter(|w| !w.is_empty())
        .map(str::to_lowercase)
        .collect();
    intern(&words.join("-"), head.position)
}

/// A rule for a document.
pub(super) fn rule(
    head: &Head,
    events: Vec<NamedEvent>,
    shape: Shape,
    pattern: Name,
) -> Parsed<Rule> {
    Ok(Rule {
        name: intern(&head.title, head.position)?,
        description: head.description.clone(),
        severity: head.severity,
        events,
        shape,
        story: StorySpec {
            pattern,
            name: Some(Template::verbatim(&head.title)),
            intent: head.description.clone(),
            root_cause: Vec::new(),
            actions: Vec::new(),
            business: AutoOr::Auto,
            customer_facing: AutoOr::Auto,
            slo_impact: AutoOr::Auto,
            idle_ns: IDLE_NS,
            max_age_ns: MAX_AGE_NS,
        },
        tests: Vec::new(),
        origin: head.origin.clone(),
    })
}
