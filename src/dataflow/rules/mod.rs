//! Rules: read from YAML, checked, compiled to tables by kind.
//!
//! | file | purpose |
//! | --- | --- |
//! | `tree.rs` | YAML with places, for messages with line and column |
//! | `field.rs` | fields of events, join keys |
//! | `predicate.rs`, `test.rs` | what an event must look like; a test of one field |
//! | `known.rs` | fields that events of known kinds never have |
//! | `template.rs` | texts that a story's events fill |
//! | `rule.rs` | a compiled rule |
//! | `expect.rs` | a rule's own tests |
//! | `parse.rs`, `shape.rs` | from a document to a rule |
//! | `plan.rs` | what events of a kind have to be shown to; predicates by the values they need |
//! | `schema.rs`, `words.rs` | rule documents for editors, rules in words |
//! | `sigma/` | Sigma's documents |
//! | `live.rs` | [`LiveRules`]: the rules in force, exchanged by a reload |
//! | `set.rs` | [`RuleSet`]: rules by kind, and the routing of events to shards |

mod expect;
pub(crate) mod field;
mod known;
mod live;
mod parse;
mod plan;
mod predicate;
mod rule;
mod schema;
mod set;
mod shape;
mod sigma;
mod template;
mod test;
mod tree;
mod words;

use std::path::{Path, PathBuf};

pub use field::{FieldRef, View};
pub use live::LiveRules;
pub use plan::{KindPlan, Op, RuleUse, Truth, What};
pub use predicate::Predicate;
pub use rule::{
    Aggregate, Comparison, Condition, Counted, Given, Measure, NamedEvent, Negation, Repeat, Rule,
    RuleTest, Seen, Select, Sequence, Shape, Step, Telling, TestEvents,
};
pub use schema::schema;
pub use set::{Home, RuleSet, home};
pub use template::{Hole, Template, bytes_text, duration_text};
pub use tree::{Complaint, Place, unknown};
pub use words::explain;

include!(concat!(env!("OUT_DIR"), "/builtin_rules.rs"));

/// A rule document that can't be used. The other documents can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{}:{}: {}", .complaint.place.line, .complaint.place.column, .complaint.cause)]
pub struct RuleError {
    /// The file.
    pub file: String,
    /// What is wrong, and where.
    pub complaint: Complaint,
}

/// What was read from files: the rules that are fine, and what is wrong with the others.
#[derive(Default)]
pub struct Loaded {
    /// The rules.
    pub rules: Vec<Rule>,
    /// The complaints.
    pub errors: Vec<RuleError>,
    /// What is legal and hardly meant; such rules are among the rules.
    pub warnings: Vec<RuleError>,
    sigma: sigma::Documents,
}

impl Loaded {
    /// Reads the documents of a text and makes rules of them.
    pub fn text(&mut self, file: &str, text: &str) {
        self.read(file, text);
        self.resolve();
    }

    /// Makes rules of the Sigma documents read so far, which may refer to each other.
    fn resolve(&mut self) {
        for (file, place, rule) in self.sigma.resolve() {
            let error = |complaint| RuleError { file: file.clone(), complaint };
            match rule {
                Ok(rule) => self.add(rule, place, error),
                Err(complaint) => self.errors.push(error(complaint)),
            }
        }
    }

    fn read(&mut self, file: &str, text: &str) {
        let error = |complaint| RuleError { file: file.to_owned(), complaint };
        let documents = match tree::documents(text) {
            Ok(documents) => documents,
            Err(complaint) => return self.errors.push(error(complaint)),
        };
        for document in documents.iter().filter(|d| !matches!(d.part, tree::Part::Null)) {
            if sigma::is_sigma(document) {
                if let Err(complaint) = self.sigma.read(document, file) {
                    self.errors.push(error(complaint));
                }
                continue;
            }
            match parse::rule(document, file) {
                Ok((rule, warnings)) => {
                    self.warnings.extend(warnings.into_iter().map(error));
                    self.add(rule, document.place, error);
                }
                Err(complaint) => self.errors.push(error(complaint)),
            }
        }
    }

    fn add(&mut self, rule: Rule, place: Place, error: impl Fn(Complaint) -> RuleError) {
        match self.rules.iter().find(|r| r.name == rule.name) {
            None => self.rules.push(rule),
            Some(first) => self.errors.push(error(Complaint {
                place,
                cause: format!("rule `{}` is already in {}", rule.name, first.origin),
            })),
        }
    }

    fn file(&mut self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.read(&path.display().to_string(), &text),
            Err(e) => self.errors.push(RuleError {
                file: path.display().to_string(),
                complaint: Complaint {
                    place: Place::default(),
                    cause: format!("can't be read: {e}"),
                },
            }),
        }
    }
}

/// The rules that come with tapio.
#[must_use]
pub fn builtin() -> Loaded {
    let mut loaded = Loaded::default();
    for (file, text) in BUILTIN {
        loaded.text(file, text);
    }
    loaded
}

/// Rules from files and folders (each `.yaml` and `.yml` in them, by name).
#[must_use]
pub fn load(paths: &[PathBuf]) -> Loaded {
    let mut loaded = Loaded::default();
    for path in paths {
        if !path.is_dir() {
            loaded.file(path);
            continue;
        }
        let mut files: Vec<PathBuf> = match std::fs::read_dir(path) {
            Ok(entries) => entries.filter_map(|e| e.ok().map(|e| e.path())).collect(),
            Err(_) => {
                loaded.file(path);
                continue;
            }
        };
        files.retain(|f| f.extension().is_some_and(|e| e == "yaml" || e == "yml"));
        files.sort();
        files.iter().for_each(|f| loaded.file(f));
    }
    loaded.resolve();
    loaded
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "rule: a-b
events:
  a: { kind: t.a }
  b: { kind: 't.b*', attributes.n: { gt: 3 } }
sequence:
  by: [attributes.k]
  within: 10s
  steps:
    - { event: a }
    - { event: b, count: 2 }
story: { pattern: ab, root_cause: 'a of {key.attributes.k}' }
";

    fn errors(text: &str) -> Vec<String> {
        let mut loaded = Loaded::default();
        loaded.text("r.yaml", text);
        loaded.errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_rule_compiles() {
        let mut loaded = Loaded::default();
        loaded.text("r.yaml", RULE);
        assert_eq!(loaded.errors, []);
        let Shape::Sequence(s) = &loaded.rules[0].shape else { unreachable!() };
        assert_eq!(s.steps.len(), 3, "a repeat is written out");
    }

    #[test]
    fn the_documents_rules_compile() {
        for text in [include_str!("../../../docs/rules.md"), include_str!("../../../README.md")] {
            let blocks = text.split("```yaml\n").skip(1).filter_map(|b| b.split("```").next());
            let mut loaded = Loaded::default();
            blocks.filter(|b| b.starts_with("rule:")).for_each(|b| loaded.text("doc", b));
            assert_eq!((loaded.errors, loaded.rules.len()), (Vec::new(), 1));
        }
    }

    #[test]
    fn the_builtin_rules_compile() {
        let loaded = builtin();
        assert_eq!(loaded.errors, []);
        assert!(loaded.rules.len() >= 5);
    }

    #[test]
    fn mistakes_have_file_line_and_column() {
        for (from, to, expected) in [
            (
                "within: 10s",
                "withn: 10s",
                "r.yaml:7:3: unknown key in a sequence `withn`: did you mean `within`?",
            ),
            ("within: 10s", "within: 10", "r.yaml:7:11: expected within to be a duration"),
            ("{ event: a }", "{ event: aa }", "r.yaml:9:16: unknown event `aa`: did you mean `a`?"),
            ("count: 2", "count: 0", "r.yaml:10:26: count: must be at least 1"),
            ("pattern: ab, ", "", "r.yaml:11:8: a story needs `pattern`"),
            ("key.attributes.k", "key.attributes.z", "not in the join key"),
            ("rule: a-b", "rule: A b", "r.yaml:1:7: rule name"),
            ("{ event: b, count: 2 }", "{ event: a }", "r.yaml:4:3: event `b` is never used"),
            ("  within: 10s\n", "", "a sequence needs `within`"),
            ("sequence:", "sequence: [", "r.yaml:"),
        ] {
            let found = errors(&RULE.replace(from, to));
            assert!(found.iter().any(|e| e.contains(expected)), "{to}: {found:?}");
        }
    }

    #[test]
    fn what_can_never_match_is_warned_of() {
        for (from, to, expected) in [
            ("{ kind: t.a }", "{ kind: t.a, process.pid: '7' }", Some("`process.pid` is a number")),
            ("{ kind: t.a }", "{ kind: t.a, message: { gt: 3 } }", Some("`message` is text")),
            ("{ kind: t.a }", "{ kind: t.a, process.pid: 7, message: seven }", None),
            ("  steps:", "  until: b\n  steps:", Some("can't be reached")),
            (
                "{ kind: t.a }",
                "{ any: [{ kind: [t.a, systemd.unit.faild] }] }",
                Some(
                    "r.yaml:3:28: no collector tells `systemd.unit.faild`: did you mean `systemd.unit.failed`?",
                ),
            ),
            ("{ kind: t.a }", "{ kind: [t.a, own.unit.failed] }", None),
        ] {
            let mut loaded = Loaded::default();
            loaded.text("r.yaml", &RULE.replace(from, to));
            assert_eq!((loaded.errors.len(), loaded.rules.len()), (0, 1), "{to}");
            let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
            match expected {
                Some(expected) => assert!(warnings[0].contains(expected), "{warnings:?}"),
                None => assert_eq!(warnings, [""; 0]),
            }
        }
    }

    #[test]
    fn a_bad_rule_leaves_the_others() {
        let mut loaded = Loaded::default();
        loaded.text("r.yaml", &format!("{RULE}---\nrule: x\n---\n{}", RULE.replace("a-b", "c-d")));
        assert_eq!((loaded.rules.len(), loaded.errors.len()), (2, 1));
    }
}
