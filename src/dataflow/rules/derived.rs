//! Fields that Sigma's taxonomy has and tapio's events don't, computed from those they have. They
//! are those of Sysmon for Linux, for which SigmaHQ's rules for Linux are written.

use std::borrow::Cow;
use std::cell::OnceCell;

use super::field::{FieldRef, View};
use tapio_core::event::{Name, Value, names};

/// A computed field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Derived {
    /// `CommandLine`: the arguments, joined by single blanks.
    CommandLine,
    /// `ParentCommandLine`
    ParentCommandLine,
    /// `User`: the name, or the number of a user without one.
    User,
    /// `Initiated`: whether the process opened the connection, `true` or `false`.
    Initiated,
    /// `SourceIp`: the address of the end that opened the connection.
    SourceIp,
    /// `SourcePort`
    SourcePort,
    /// `DestinationIp`: the address of the other end.
    DestinationIp,
    /// `DestinationPort`
    DestinationPort,
}

fn attribute(event: &impl View, name: Name) -> Option<Value<'_>> {
    event.field(FieldRef::Attribute(name)).filter(|v| *v != Value::Null)
}

/// Whether the process accepted the connection; `None` for other events.
fn is_accepted(event: &impl View) -> Option<bool> {
    match event.field(FieldRef::Kind) {
        Some(Value::Str(kind)) if kind == names::KERNEL_TCP_ACCEPT.text() => Some(true),
        Some(Value::Str(kind)) if kind == names::KERNEL_TCP_CONNECT.text() => Some(false),
        _ => match attribute(event, names::TAPIO_TCP_INCOMING) {
            Some(Value::Bool(incoming)) => Some(incoming),
            _ => None,
        },
    }
}

impl Derived {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::CommandLine,
        Self::ParentCommandLine,
        Self::User,
        Self::Initiated,
        Self::SourceIp,
        Self::SourcePort,
        Self::DestinationIp,
        Self::DestinationPort,
    ];

    /// Sigma's name for it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::CommandLine => "CommandLine",
            Self::ParentCommandLine => "ParentCommandLine",
            Self::User => "User",
            Self::Initiated => "Initiated",
            Self::SourceIp => "SourceIp",
            Self::SourcePort => "SourcePort",
            Self::DestinationIp => "DestinationIp",
            Self::DestinationPort => "DestinationPort",
        }
    }

    /// The attributes it is computed from; an event without any of them doesn't have it.
    #[must_use]
    pub fn bases(self) -> &'static [Name] {
        match self {
            Self::CommandLine => &[names::PROCESS_COMMAND_LINE, names::PROCESS_COMMAND_ARGS],
            Self::ParentCommandLine => &[names::TAPIO_PROCESS_PARENT_ARGS],
            Self::User => &[names::PROCESS_OWNER, names::PROCESS_OWNER_UID],
            Self::Initiated => &[names::TAPIO_TCP_INCOMING],
            Self::SourceIp | Self::DestinationIp => {
                &[names::NETWORK_LOCAL_ADDRESS, names::NETWORK_PEER_ADDRESS]
            }
            Self::SourcePort | Self::DestinationPort => {
                &[names::NETWORK_LOCAL_PORT, names::NETWORK_PEER_PORT]
            }
        }
    }

    /// The value in an event. Command lines are lists here, which [`WithCommandLines`] joins.
    pub(super) fn value(self, event: &impl View) -> Option<Value<'_>> {
        let end = |is_source: bool, local, peer| {
            let is_local = is_source != is_accepted(event).unwrap_or(false);
            attribute(event, if is_local { local } else { peer })
        };
        match self {
            Self::CommandLine | Self::ParentCommandLine => {
                self.bases().iter().find_map(|name| attribute(event, *name))
            }
            Self::User => attribute(event, names::PROCESS_OWNER).or_else(|| {
                match attribute(event, names::PROCESS_OWNER_UID)? {
                    Value::Int(0) => Some(Value::Str("root")),
                    uid => Some(uid),
                }
            }),
            Self::Initiated => is_accepted(event)
                .map(|accepted| Value::Str(if accepted { "false" } else { "true" })),
            Self::SourceIp => end(true, names::NETWORK_LOCAL_ADDRESS, names::NETWORK_PEER_ADDRESS),
            Self::SourcePort => end(true, names::NETWORK_LOCAL_PORT, names::NETWORK_PEER_PORT),
            Self::DestinationIp => {
                end(false, names::NETWORK_LOCAL_ADDRESS, names::NETWORK_PEER_ADDRESS)
            }
            Self::DestinationPort => {
                end(false, names::NETWORK_LOCAL_PORT, names::NETWORK_PEER_PORT)
            }
        }
    }
}

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
