//! Rejects fields and variables that can never have a value: a rule that needs one would never
//! match.

use super::super::shape::Shape;
use super::super::template::{Template, Variable};
use super::super::yaml::{Parsed, Position, reject};
use super::scope::EventScope;

/// Checks the fields by which a shape joins or measures its events.
pub(super) fn shape(shape: &Shape, events: &EventScope, position: Position) -> Parsed<()> {
    let measured = match shape {
        Shape::Aggregate(a) => a.measure.field(),
        Shape::Sequence(_) => None,
    };
    for (event, by) in shape.routes() {
        let named = &events.list[event];
        for field in by.iter().chain(measured.as_ref()) {
            if let Some(message) = named.predicate.lacks(*field) {
                return reject(position, format!("event `{}`: {message}", named.name));
            }
        }
    }
    Ok(())
}

/// Checks the variables of a text.
pub(super) fn variables(
    template: &Template,
    position: Position,
    events: &EventScope,
    shape: &Shape,
) -> Parsed<()> {
    let by = shape.join_fields();
    for variable in template.variables() {
        match variable {
            Variable::Field(event, field) => {
                let named = &events.list[*event];
                if let Some(message) = named.predicate.lacks(*field) {
                    return reject(position, format!("{{{}.…}}: {message}", named.name));
                }
            }
            Variable::Key(field) if !by.contains(field) => {
                return reject(position, format!("{{key.{}}}: not in the join key", field.text()));
            }
            Variable::Measured(_) if !matches!(shape, Shape::Aggregate(a) if a.deviation.is_some()) =>
            {
                let message = "{value}, {usual} and {deviation} need a condition with `deviation`";
                return reject(position, message);
            }
            Variable::Capture(event, group) if !events.list[*event].predicate.captures(group) => {
                let name = &events.list[*event].name;
                let message = format!(
                    "{{{name}.match.{group}}}: no regex of `{name}` has a group (?<{group}>…)"
                );
                return reject(position, message);
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::load::Loaded;

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

    fn first_error(from: &str, to: &str) -> Option<String> {
        let mut loaded = Loaded::default();
        loaded.text("r.yaml", &RULE.replace(from, to));
        loaded.errors.first().map(ToString::to_string)
    }

    #[test]
    fn field_that_no_event_of_the_kind_has_is_rejected() {
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
            let found = first_error(from, to).unwrap_or_default();
            assert!(found.contains(expected), "{to}: {found:?}");
        }
    }

    #[test]
    fn kind_outside_the_vocabulary_can_have_any_field() {
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
            assert_eq!(first_error(from, to), None, "{to}");
        }
    }
}
