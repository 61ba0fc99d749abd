//! Command lines as texts: Sigma's `CommandLine` and `ParentCommandLine` in an event.

use std::borrow::Cow;
use std::cell::OnceCell;

use super::derived::Derived;
use super::field::{FieldRef, View};
use tapio_core::event::Value;

/// The words of a command line, joined by single blanks; `None` if the JSON isn't a list of texts.
fn joined(json: &str) -> Option<String> {
    let words: Vec<Cow<'_, str>> = serde_json::from_str(json).ok()?;
    Some(words.join(" "))
}

/// An event whose command lines are texts. Each is joined at most once, for all predicates.
pub(super) struct WithCommandLines<'a, V> {
    event: &'a V,
    own: OnceCell<Option<String>>,
    parent: OnceCell<Option<String>>,
}

impl<'a, V: View> WithCommandLines<'a, V> {
    pub(super) fn new(event: &'a V) -> Self {
        Self { event, own: OnceCell::new(), parent: OnceCell::new() }
    }
}

impl<V: View> View for WithCommandLines<'_, V> {
    fn field(&self, field: FieldRef) -> Option<Value<'_>> {
        let cell = match field {
            FieldRef::Derived(Derived::CommandLine) => &self.own,
            FieldRef::Derived(Derived::ParentCommandLine) => &self.parent,
            _ => return self.event.field(field),
        };
        match self.event.field(field)? {
            Value::Json(json) => match cell.get_or_init(|| joined(json)) {
                Some(text) => Some(Value::Str(text)),
                None => Some(Value::Str(json)),
            },
            other => Some(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::event::JsonEvent;

    fn values(kind: &str, attributes: &str) -> Vec<(&'static str, String)> {
        let line = format!(r#"{{"time":1,"kind":"{kind}","attributes":{attributes}}}"#);
        let parsed = JsonEvent::parse(&line, "t").unwrap();
        let mut fields = Vec::new();
        let event = parsed.event(0, &mut fields);
        let event = WithCommandLines::new(&event);
        let value = |d: &Derived| match event.field(FieldRef::Derived(*d))? {
            Value::Str(s) => Some((d.text(), s.to_owned())),
            other => Some((d.text(), format!("{other:?}"))),
        };
        Derived::ALL.iter().filter_map(value).collect()
    }

    fn owned(pairs: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    }

    #[test]
    fn command_lines_are_words_joined_by_blanks() {
        let both = r#"{"process.command_args":["sh","-c","echo \"a\"  b",""],
                       "tapio.process.parent.command_args":["/sbin/init"]}"#;
        let expected =
            [("CommandLine", "sh -c echo \"a\"  b "), ("ParentCommandLine", "/sbin/init")];
        assert_eq!(values("kernel.process.exec", &both.replace('\n', "")), owned(&expected));
        let given = values("t.exec", r#"{"process.command_line":"a b"}"#);
        assert_eq!(given, owned(&[("CommandLine", "a b")]));
        let odd = values("t.exec", r#"{"process.command_args":[1]}"#);
        assert_eq!(odd, owned(&[("CommandLine", "[1]")]));
    }

    #[test]
    fn user_is_a_name_where_one_is_known() {
        let user = |attributes| values("t.exec", attributes);
        assert_eq!(user(r#"{"process.owner.uid":0}"#), owned(&[("User", "root")]));
        assert_eq!(user(r#"{"process.owner.uid":7}"#), owned(&[("User", "Int(7)")]));
        let named = user(r#"{"process.owner.uid":7,"process.owner":"joe"}"#);
        assert_eq!(named, owned(&[("User", "joe")]));
    }

    #[test]
    fn source_is_the_end_that_opened_the_connection() {
        let ends = r#"{"network.local.address":"10.0.0.1","network.local.port":80,
                       "network.peer.address":"10.0.0.2","network.peer.port":50000}"#;
        let ends = ends.replace('\n', "");
        let of = |initiated, source, from, destination, to| {
            owned(&[
                ("Initiated", initiated),
                ("SourceIp", source),
                ("SourcePort", from),
                ("DestinationIp", destination),
                ("DestinationPort", to),
            ])
        };
        assert_eq!(
            values("kernel.tcp.accept", &ends),
            of("false", "10.0.0.2", "Int(50000)", "10.0.0.1", "Int(80)")
        );
        assert_eq!(
            values("kernel.tcp.connect", &ends),
            of("true", "10.0.0.1", "Int(80)", "10.0.0.2", "Int(50000)")
        );
    }
}
