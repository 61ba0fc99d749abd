//! Collections of the first version of Sigma: documents of one file with an `action`. `global`
//! holds what the documents after it have in common, `reset` ends that, `repeat` changes the
//! document before it.

use super::super::suggest::unknown;
use super::super::yaml::{Key, Node, Parsed, Part, reject};

/// Writes out the documents of a file.
pub(crate) fn expand(documents: Vec<Node>) -> Parsed<Vec<Node>> {
    if documents.iter().all(|d| d.entry("action").is_none()) {
        return Ok(documents);
    }
    let mut all: Vec<Node> = Vec::new();
    let mut global: Option<Node> = None;
    for mut document in documents {
        let action = document.take("action");
        match action.as_ref().map(|n| n.text("action")).transpose()? {
            Some("global") => {
                global = Some(document);
                continue;
            }
            Some("reset") => {
                global = None;
                continue;
            }
            Some("repeat") => match all.last() {
                Some(last) => document.inherit(last),
                None => {
                    return reject(
                        document.position,
                        "`action: repeat` needs a document before it",
                    );
                }
            },
            None => {
                if let Some(global) = &global {
                    document.inherit(global);
                }
            }
            Some(other) => {
                let position = action.as_ref().map_or(document.position, |n| n.position);
                return reject(position, unknown("action", other, &["global", "reset", "repeat"]));
            }
        }
        all.push(document);
    }
    number_titles(&mut all);
    Ok(all)
}

/// Numbers documents that share a title, which names a rule.
fn number_titles(documents: &mut [Node]) {
    let mut seen: Vec<(String, usize)> = Vec::new();
    for document in documents {
        let Some(Part::Text(title)) = document.entry_mut("title").map(|n| &mut n.part) else {
            continue;
        };
        match seen.iter_mut().find(|(known, _)| known == title) {
            None => seen.push((title.clone(), 1)),
            Some((_, number)) => {
                *number += 1;
                *title = format!("{title} ({number})");
            }
        }
    }
}

impl Node {
    fn entry_mut(&mut self, key: &str) -> Option<&mut Node> {
        match &mut self.part {
            Part::Map(entries) => entries.iter_mut().find(|(k, _)| k.text == key).map(|(_, n)| n),
            _ => None,
        }
    }

    /// Removes a key.
    fn take(&mut self, key: &str) -> Option<Node> {
        let Part::Map(entries) = &mut self.part else { return None };
        let at = entries.iter().position(|(k, _)| k.text == key)?;
        Some(entries.remove(at).1)
    }

    /// Adds the entries of another mapping that this one lacks, also those of mappings within.
    fn inherit(&mut self, from: &Node) {
        let (Part::Map(own), Part::Map(more)) = (&mut self.part, &from.part) else { return };
        for (key, node) in more {
            match own.iter_mut().find(|(k, _)| k.text == key.text) {
                Some((_, found)) => found.inherit(node),
                None => {
                    let key = Key { position: key.position, text: key.text.clone() };
                    own.push((key, node.clone()));
                }
            }
        }
    }
}
