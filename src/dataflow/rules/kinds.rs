//! Sets of event kinds, and the attributes that events of known kinds have. A condition, key or
//! variable on an attribute that no event of its kinds has would never match. Kinds outside the
//! vocabulary, such as those of a JSON-lines source, can have any attribute.

use super::field::FieldRef;
use super::suggest::{near_miss, unknown};
use super::yaml::{Diagnostic, Node, Parsed, reject};
use tapio_core::event::{Name, attribute_schema};
use tapio_core::glob;

/// The kinds that a predicate can match.
#[derive(Clone, Debug)]
pub(super) enum Kinds {
    All,
    /// Every kind that no collector of the node emits: those of applications and of other systems.
    Foreign,
    Some {
        exact: Vec<Name>,
        globs: Vec<Box<str>>,
    },
}

impl Kinds {
    /// Parses one kind or a list of kinds, with or without wildcards.
    pub(super) fn parse(node: &Node) -> Parsed<Self> {
        let (mut exact, mut globs) = (Vec::new(), Vec::new());
        for item in node.items() {
            let text = item.text("a kind")?;
            if text.is_empty() {
                return reject(item.position, "a kind can't be empty");
            }
            if glob::has_wildcards(text) {
                globs.push(text.into());
            } else {
                exact.push(
                    Name::intern(text).map_err(|e| Diagnostic {
                        position: item.position,
                        message: e.to_string(),
                    })?,
                );
            }
        }
        Ok(Self::Some { exact, globs })
    }

    /// Whether a kind is in the set.
    pub(super) fn contains(&self, kind: Name) -> bool {
        match self {
            Self::All => true,
            Self::Foreign => !attribute_schema::kinds().any(|known| known == kind.text()),
            Self::Some { exact, globs } => {
                exact.contains(&kind) || globs.iter().any(|g| glob::matches(g, kind.text()))
            }
        }
    }

    /// The kinds of the vocabulary in the set; `None` if it can contain others.
    fn known(&self) -> Option<Vec<&'static str>> {
        let Self::Some { exact, globs } = self else { return None };
        let known = |text: &str| attribute_schema::kinds().find(|kind| *kind == text);
        let mut kinds = exact.iter().map(|name| known(name.text())).collect::<Option<Vec<_>>>()?;
        for pattern in globs {
            let before = kinds.len();
            kinds.extend(attribute_schema::kinds().filter(|kind| glob::matches(pattern, kind)));
            // A glob without a known kind is about kinds outside the vocabulary.
            if kinds.len() == before {
                return None;
            }
        }
        (!kinds.is_empty()).then_some(kinds)
    }

    /// The reason why no event of these kinds has a field; `None` if one can have it.
    pub(super) fn lacks(&self, field: FieldRef) -> Option<String> {
        let FieldRef::Attribute(name) = field else { return None };
        let kinds = self.known()?;
        let mut attributes: Vec<&str> = Vec::new();
        for kind in &kinds {
            attributes.extend(attribute_schema::attributes(kind)?);
        }
        if attributes.contains(&name.text()) {
            return None;
        }
        let of = match &kinds[..] {
            [kind] => (*kind).to_owned(),
            kinds => format!("{} kinds", kinds.len()),
        };
        attributes.sort_unstable();
        attributes.dedup();
        let message = unknown(&format!("attribute of {of}"), name.text(), &attributes);
        // The list of all attributes is too long for a message.
        match message.split_once(": expected one of ") {
            Some((short, _)) => Some(format!("{short}; docs/kinds.md lists them")),
            None => Some(message),
        }
    }
}

/// The kind of the vocabulary that a kind probably is a misspelling of.
pub(super) fn misspelt(kind: &str) -> Option<&'static str> {
    near_miss(kind, attribute_schema::kinds())
}
