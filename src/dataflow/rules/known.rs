//! Refuses fields that events of the named kinds never have: such a condition, key or hole would wait for
//! ever. Kinds nobody knows, as a JSONL source may bring them, can have any field.

use super::field::FieldRef;
use super::parse::Events;
use super::predicate::{Kinds, parse_kinds};
use super::rule::Shape;
use super::template::{Hole, Template};
use super::tree::{Complaint, Node, Part, Place, Read, complain, slip, unknown};
use tapio_core::event::attribute_schema;

/// The known kinds that `kinds` can mean; `None` where it can mean one that isn't known.
fn meant(kinds: &Kinds) -> Option<Vec<&'static str>> {
    let Kinds::Some { exact, globs } = kinds else { return None };
    let known = |text: &str| attribute_schema::kinds().find(|kind| *kind == text);
    let mut meant = exact.iter().map(|name| known(name.text())).collect::<Option<Vec<_>>>()?;
    for glob in globs {
        let before = meant.len();
        meant.extend(attribute_schema::kinds().filter(|kind| glob.is_match(kind)));
        // A glob that no known kind meets is meant for others.
        if meant.len() == before {
            return None;
        }
    }
    (!meant.is_empty()).then_some(meant)
}

/// What is wrong with asking events of these kinds for a field, if anything.
pub(super) fn lacks(kinds: &Kinds, field: FieldRef) -> Option<String> {
    let FieldRef::Attribute(name) = field else { return None };
    let meant = meant(kinds)?;
    let mut has: Vec<&str> = Vec::new();
    for kind in &meant {
        has.extend(attribute_schema::attributes(kind)?);
    }
    if has.contains(&name.text()) {
        return None;
    }
    let of = if meant.len() == 1 { meant[0].to_owned() } else { format!("{} kinds", meant.len()) };
    has.sort_unstable();
    has.dedup();
    let cause = unknown(&format!("attribute of {of}"), name.text(), &has);
    // The list of all would hide what the kind is about.
    match cause.split_once(": expected one of ") {
        Some((short, _)) => Some(format!("{short}; docs/kinds.md lists what there is")),
        None => Some(cause),
    }
}

/// Kinds nobody knows, but for a slip of the pen: legal, since a source of one's own may tell them, but hardly meant.
pub(super) fn misspelt(node: &Node, warnings: &mut Vec<Complaint>) {
    let Part::Map(entries) = &node.part else { return };
    for (key, value) in entries {
        match key.text.as_str() {
            "kind" => {
                for item in value.items() {
                    let Ok(text) = item.text("a kind") else { continue };
                    if let Some(meant) = slip(text, attribute_schema::kinds()) {
                        let cause = format!("no collector tells `{text}`: did you mean `{meant}`?");
                        warnings.push(Complaint { place: item.place, cause });
                    }
                }
            }
            "any" | "all" => value.items().iter().for_each(|n| misspelt(n, warnings)),
            "not" => misspelt(value, warnings),
            _ => {}
        }
    }
}

/// Looks through a predicate as it is written.
pub(super) fn predicate(node: &Node) -> Read<()> {
    look(node, &Kinds::All)
}

fn look(node: &Node, outer: &Kinds) -> Read<()> {
    let Part::Map(entries) = &node.part else { return Ok(()) };
    let own = node.entry("kind").map(parse_kinds).transpose()?;
    let kinds = own.as_ref().unwrap_or(outer);
    for (key, value) in entries {
        match key.text.as_str() {
            "any" | "all" => value.items().iter().try_for_each(|n| look(n, kinds))?,
            // What isn't there may well be asked for there: `not` only excludes.
            "kind" | "not" => {}
            text => {
                if let Ok(field) = FieldRef::parse(text)
                    && let Some(cause) = lacks(kinds, field)
                {
                    return complain(key.place, cause);
                }
            }
        }
    }
    Ok(())
}

/// Looks through the fields a shape joins or measures its events by.
pub(super) fn shape(
    shape: &Shape,
    routes: &[(usize, &[FieldRef])],
    events: &Events,
    at: Place,
) -> Read<()> {
    let measured = match shape {
        Shape::Aggregate(a) => a.measure.field(),
        Shape::Sequence(_) => None,
    };
    for (event, by) in routes {
        let named = &events.list[*event];
        for field in by.iter().chain(measured.as_ref()) {
            if let Some(cause) = named.predicate.lacks(*field) {
                return complain(at, format!("event `{}`: {cause}", named.name));
            }
        }
    }
    Ok(())
}

/// Looks through the holes of a text.
pub(super) fn holes(template: &Template, events: &Events, at: Place) -> Read<()> {
    for hole in template.holes() {
        if let Hole::Field(event, field) = hole
            && let Some(cause) = events.list[*event].predicate.lacks(*field)
        {
            return complain(at, format!("{{{}.…}}: {cause}", events.list[*event].name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Loaded;

    const RULE: &str = "rule: a-b
events:
  a: { kind: systemd.unit.failed }
  b: { kind: [t.b, k8s.pod.ready] }
sequence:
  by: [host.name]
  within: 10s
  steps: [{ event: a }, { event: b }]
story: { pattern: ab, root_cause: 'a' }
";

    fn complaint(from: &str, to: &str) -> Option<String> {
        let mut loaded = Loaded::default();
        loaded.text("r.yaml", &RULE.replace(from, to));
        loaded.errors.first().map(ToString::to_string)
    }

    #[test]
    fn a_field_that_no_event_of_the_kind_has_is_refused() {
        for (from, to, expected) in [
            (
                "{ kind: systemd.unit.failed }",
                "{ kind: systemd.unit.failed, attributes.tapio.systemd.resul: x }",
                "r.yaml:3:35: unknown attribute of systemd.unit.failed `tapio.systemd.resul`: did you mean `tapio.systemd.result`?",
            ),
            (
                "{ kind: systemd.unit.failed }",
                "{ kind: 'systemd.unit.*', any: [{ attributes.error.type: x }] }",
                "attribute of 6 kinds `error.type`",
            ),
            ("by: [host.name]", "by: [attributes.error.type]", "r.yaml:6:7: event `a`: unknown"),
            ("'a'", "'{a.attributes.error.type}'", "r.yaml:9:35: {a.…}: unknown attribute"),
        ] {
            let found = complaint(from, to).unwrap_or_default();
            assert!(found.contains(expected), "{to}: {found:?}");
        }
    }

    #[test]
    fn kinds_that_nobody_knows_can_have_any_field() {
        for (from, to) in [
            ("[t.b, k8s.pod.ready]", "[t.b, k8s.pod.ready], attributes.anything: 1"),
            ("[t.b, k8s.pod.ready]", "'t.*', attributes.anything: 1"),
            ("[t.b, k8s.pod.ready]", "otlp.log, attributes.anything: 1"),
            ("{ kind: systemd.unit.failed }", "{ attributes.anything: 1 }"),
            (
                "{ kind: systemd.unit.failed }",
                "{ any: [{ kind: t.a, attributes.anything: 1 }, { kind: systemd.unit.failed }] }",
            ),
            (
                "{ kind: systemd.unit.failed }",
                "{ kind: systemd.unit.failed, not: { attributes.anything: 1 } }",
            ),
        ] {
            assert_eq!(complaint(from, to), None, "{to}");
        }
    }
}
