//! Loads rules: the built-in ones, and those in files and folders.

use std::path::{Path, PathBuf};

use super::rule::Rule;
use super::yaml::{Diagnostic, Position};
use super::{compile, sigma, yaml};
use tapio_core::event::Name;

include!(concat!(env!("OUT_DIR"), "/builtin_rules.rs"));

/// Deepest nesting of folders.
const MAX_DEPTH: usize = 32;

/// An error or a warning about a rule document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {}", .diagnostic.position, .diagnostic.message)]
pub struct RuleError {
    /// The file.
    pub file: String,
    /// The problem and its position.
    pub diagnostic: Diagnostic,
}

/// Rules read from documents. A document with an error doesn't affect the others.
#[derive(Default)]
pub struct Loaded {
    /// The rules.
    pub rules: Vec<Rule>,
    /// Reasons why documents were rejected.
    pub errors: Vec<RuleError>,
    /// Findings that are legal but probably unintended; the rules are loaded.
    pub warnings: Vec<RuleError>,
    sigma: sigma::Documents,
    /// Number of documents read, rejected ones and filters included.
    documents: usize,
}

impl Loaded {
    /// Adds the rules of a text. `file` names it in messages.
    pub fn text(&mut self, file: &str, text: &str) {
        self.read(file, text);
        self.resolve();
    }

    /// Compiles the Sigma documents read so far, which may refer to each other.
    fn resolve(&mut self) {
        let sigma::Resolved { rules, errors, warnings } = self.sigma.resolve();
        let of_file = |(file, diagnostic)| RuleError { file, diagnostic };
        self.errors.extend(errors.into_iter().map(of_file));
        self.warnings.extend(warnings.into_iter().map(of_file));
        for (file, position, rule) in rules {
            let error = |diagnostic| RuleError { file: file.clone(), diagnostic };
            match rule {
                Ok(mut rule) => {
                    if let Some(warning) = self.number_title(&mut rule, position) {
                        self.warnings.push(error(warning));
                    }
                    self.add(rule, position, error);
                }
                Err(diagnostic) => self.errors.push(error(diagnostic)),
            }
        }
    }

    /// Numbers a Sigma rule whose title another rule has, too: titles needn't be unique. The same
    /// rule once more keeps its name and is a duplicate.
    fn number_title(&self, rule: &mut Rule, position: Position) -> Option<Diagnostic> {
        let first = self.rules.iter().find(|r| r.name == rule.name)?;
        if first.id() == rule.id() {
            return None;
        }
        let title = rule.name;
        let free = (2..)
            .map(|number| format!("{title} ({number})"))
            .find(|name| !self.rules.iter().any(|r| r.name.text() == name))?;
        rule.name = Name::intern(&free).ok()?;
        let message = format!("`{title}` is also the title in {}; called `{free}`", first.origin);
        Some(Diagnostic { position, message })
    }

    fn read(&mut self, file: &str, text: &str) {
        let error = |diagnostic| RuleError { file: file.to_owned(), diagnostic };
        let documents = match yaml::documents(text).and_then(sigma::expand) {
            Ok(documents) => documents,
            Err(diagnostic) => return self.errors.push(error(diagnostic)),
        };
        for document in documents.iter().filter(|d| !matches!(d.part, yaml::Part::Null)) {
            self.documents += 1;
            if sigma::is_sigma(document) {
                if let Err(diagnostic) = self.sigma.read(document, file) {
                    self.errors.push(error(diagnostic));
                }
                continue;
            }
            match compile::rule::rule(document, file) {
                Ok((rule, warnings)) => {
                    self.warnings.extend(warnings.into_iter().map(error));
                    self.add(rule, document.position, error);
                }
                Err(diagnostic) => self.errors.push(error(diagnostic)),
            }
        }
    }

    fn add(&mut self, rule: Rule, position: Position, error: impl Fn(Diagnostic) -> RuleError) {
        match self.rules.iter().find(|r| r.name == rule.name) {
            None => self.rules.push(rule),
            Some(first) => self.errors.push(error(Diagnostic {
                position,
                message: format!(
                    "duplicate rule `{}`: the first is in {}",
                    rule.name, first.origin
                ),
            })),
        }
    }

    fn file(&mut self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.read(&path.display().to_string(), &text),
            Err(e) => self.reject(path, format!("can't be read: {e}")),
        }
    }

    /// Adds an error about a whole file or folder.
    fn reject(&mut self, path: &Path, message: String) {
        let diagnostic = Diagnostic { position: Position::default(), message };
        self.errors.push(RuleError { file: path.display().to_string(), diagnostic });
    }

    /// Reads a file, or the files of a folder and of those in it. One that gives no rule is an
    /// error.
    fn path(&mut self, path: &Path) {
        let before = (self.documents, self.errors.len());
        let is_folder = path.is_dir();
        let (files, unreadable) = rule_files(path);
        files.iter().for_each(|file| self.file(file));
        for (folder, cause) in unreadable {
            self.reject(&folder, format!("can't be read: {cause}"));
        }
        if (self.documents, self.errors.len()) == before {
            let cause = match is_folder {
                true => "no rule: no .yml or .yaml file in this folder or below it has one",
                false => "no rule in this file",
            };
            self.reject(path, cause.to_owned());
        }
    }
}

/// The rule files that a path stands for: itself, or each `.yaml` and `.yml` in a folder and those
/// in it, in the order of names. Hidden ones, such as `.git`, are left out. Also the folders that
/// can't be read, with the cause.
#[must_use]
pub fn rule_files(path: &Path) -> (Vec<PathBuf>, Vec<(PathBuf, String)>) {
    let (mut files, mut unreadable) = (Vec::new(), Vec::new());
    if path.is_dir() {
        add_folder(path, 0, &mut files, &mut unreadable);
    } else {
        files.push(path.to_owned());
    }
    (files, unreadable)
}

fn add_folder(
    path: &Path,
    depth: usize,
    files: &mut Vec<PathBuf>,
    unreadable: &mut Vec<(PathBuf, String)>,
) {
    if depth > MAX_DEPTH {
        return unreadable.push((path.to_owned(), "folders are nested too deep".to_owned()));
    }
    let mut entries: Vec<PathBuf> = match std::fs::read_dir(path) {
        Ok(entries) => entries.filter_map(|e| e.ok().map(|e| e.path())).collect(),
        Err(e) => return unreadable.push((path.to_owned(), e.to_string())),
    };
    let is_hidden = |entry: &PathBuf| {
        entry.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
    };
    entries.retain(|entry| !is_hidden(entry));
    entries.sort();
    for entry in entries {
        // A link to a folder may lead back here.
        if entry.is_dir() && !entry.is_symlink() {
            add_folder(&entry, depth + 1, files, unreadable);
        } else if entry.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            files.push(entry);
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

/// Loads rules from files and folders (each `.yaml` and `.yml` in a folder and those in it, in the
/// order of names). A path that gives no rule is an error.
#[must_use]
pub fn load(paths: &[PathBuf]) -> Loaded {
    let mut loaded = Loaded::default();
    paths.iter().for_each(|path| loaded.path(path));
    loaded.resolve();
    loaded
}

#[cfg(test)]
mod tests {
    use super::super::shape::Shape;
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
    fn rule_compiles() {
        let mut loaded = Loaded::default();
        loaded.text("r.yaml", RULE);
        assert_eq!(loaded.errors, []);
        let Shape::Sequence(s) = &loaded.rules[0].shape else { unreachable!() };
        assert_eq!(s.steps.len(), 3, "a repeat is written out");
    }

    #[test]
    fn rules_in_documentation_compile() {
        let rules = include_str!("../../../docs/rules.md");
        for (text, examples) in [(rules, 2), (include_str!("../../../README.md"), 1)] {
            let blocks = text.split("```yaml\n").skip(1).filter_map(|b| b.split("```").next());
            let mut loaded = Loaded::default();
            blocks.filter(|b| b.starts_with("rule:")).for_each(|b| loaded.text("doc", b));
            assert_eq!((loaded.errors, loaded.rules.len()), (Vec::new(), examples));
        }
    }

    #[test]
    fn builtin_rules_compile() {
        let loaded = builtin();
        assert_eq!(loaded.errors, []);
        assert!(loaded.rules.len() >= 5);
    }

    #[test]
    fn mistake_is_reported_with_file_line_and_column() {
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
    fn missing_file_is_an_error_without_a_position() {
        let mut loaded = Loaded::default();
        loaded.file(Path::new("/nonexistent/r.yaml"));
        let error = loaded.errors[0].to_string();
        assert!(error.starts_with("/nonexistent/r.yaml: can't be read: No such"), "{error}");
    }

    #[test]
    fn condition_that_never_matches_gives_a_warning() {
        for (from, to, expected) in [
            (
                "{ kind: t.a }",
                "{ kind: t.a, process.pid: '7' }",
                Some("`process.pid`: numeric field"),
            ),
            ("{ kind: t.a }", "{ kind: t.a, message: { gt: 3 } }", Some("`message`: text field")),
            ("{ kind: t.a }", "{ kind: t.a, process.pid: 7, message: seven }", None),
            ("  steps:", "  until: b\n  steps:", Some("can't be reached")),
            (
                "{ kind: t.a }",
                "{ any: [{ kind: [t.a, systemd.unit.faild] }] }",
                Some(
                    "r.yaml:3:28: no collector emits `systemd.unit.faild`: did you mean `systemd.unit.failed`?",
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
    fn sigma_has_no_deviation() {
        let mut loaded = Loaded::default();
        loaded.text(
            "s.yaml",
            "title: A\nname: a\nlogsource: { category: c }\ndetection: { s: { f: x }, condition: s }\n\
             ---\ntitle: B\ncorrelation: { type: event_count, rules: [a], group-by: [f], \
             timespan: 1m, condition: { deviation: { gt: 6 } } }\n",
        );
        loaded.resolve();
        let errors: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        assert!(errors.iter().any(|e| e.contains("unknown condition `deviation`")), "{errors:?}");
    }

    #[test]
    fn invalid_rule_does_not_affect_others() {
        let mut loaded = Loaded::default();
        loaded.text("r.yaml", &format!("{RULE}---\nrule: x\n---\n{}", RULE.replace("a-b", "c-d")));
        assert_eq!((loaded.rules.len(), loaded.errors.len()), (2, 1));
    }
}
