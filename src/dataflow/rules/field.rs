//! Fields that rules name, how events give their values, and join keys.

use tapio_core::event::{ArchivedEvent, Event, Name, Value, names};

use super::derived::Derived;
use super::kubelet_event;
use super::suggest::{near_miss, unknown};

/// A field of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldRef {
    /// `kind`
    Kind,
    /// `source`
    Source,
    /// `severity`, as its OpenTelemetry number
    Severity,
    /// `message`
    Message,
    /// An entity key.
    Entity(Name),
    /// `attributes.…`
    Attribute(Name),
    /// A field that is computed from others.
    Derived(Derived),
}

/// Read access to an event's fields; implemented by events in memory and by archived ones.
pub trait View {
    /// The field's value; `None` where the event doesn't have it.
    fn field(&self, field: FieldRef) -> Option<Value<'_>>;
}

impl View for Event<'_> {
    fn field(&self, field: FieldRef) -> Option<Value<'_>> {
        match field {
            FieldRef::Kind => Some(Value::Str(self.kind.text())),
            FieldRef::Source => Some(Value::Str(self.source.text())),
            FieldRef::Severity => Some(Value::Int(i64::from(self.severity.0))),
            FieldRef::Message => Some(self.message).filter(|m| !m.is_empty()).map(Value::Str),
            FieldRef::Entity(name) => self.entity(name),
            FieldRef::Attribute(name) => {
                self.attributes().iter().find(|f| f.key == name).map(|f| f.value)
            }
            FieldRef::Derived(derived) => derived_value(derived, self),
        }
    }
}

impl View for ArchivedEvent<'_> {
    fn field(&self, field: FieldRef) -> Option<Value<'_>> {
        match field {
            FieldRef::Kind => Some(Value::Str(self.kind_name().text())),
            FieldRef::Source => Some(Value::Str(self.source_name().text())),
            FieldRef::Severity => Some(Value::Int(i64::from(self.severity().0))),
            FieldRef::Message => {
                Some::<&str>(&self.message).filter(|m| !m.is_empty()).map(Value::Str)
            }
            FieldRef::Entity(name) => self.entity(name),
            FieldRef::Attribute(name) => self.attribute(name),
            FieldRef::Derived(derived) => derived_value(derived, self),
        }
    }
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

/// The subject of a Kubernetes Event, from its text.
fn of_message(event: &impl View, part: fn(&str) -> Option<&str>) -> Option<Value<'_>> {
    attribute(event, names::K8S_EVENT_REASON)?;
    match event.field(FieldRef::Message)? {
        Value::Str(message) => part(message).map(Value::Str),
        _ => None,
    }
}

/// The value in an event. Command lines are lists here, which `command_line.rs` joins.
fn derived_value(derived: Derived, event: &impl View) -> Option<Value<'_>> {
    let end = |is_source: bool, local, peer| {
        let is_local = is_source != is_accepted(event).unwrap_or(false);
        attribute(event, if is_local { local } else { peer })
    };
    match derived {
        Derived::CommandLine | Derived::ParentCommandLine => {
            derived.bases().iter().find_map(|name| attribute(event, *name))
        }
        Derived::User => attribute(event, names::PROCESS_OWNER).or_else(|| {
            match attribute(event, names::PROCESS_OWNER_UID)? {
                Value::Int(0) => Some(Value::Str("root")),
                uid => Some(uid),
            }
        }),
        Derived::Initiated => {
            is_accepted(event).map(|accepted| Value::Str(if accepted { "false" } else { "true" }))
        }
        Derived::SourceIp => end(true, names::NETWORK_LOCAL_ADDRESS, names::NETWORK_PEER_ADDRESS),
        Derived::SourcePort => end(true, names::NETWORK_LOCAL_PORT, names::NETWORK_PEER_PORT),
        Derived::DestinationIp => {
            end(false, names::NETWORK_LOCAL_ADDRESS, names::NETWORK_PEER_ADDRESS)
        }
        Derived::DestinationPort => end(false, names::NETWORK_LOCAL_PORT, names::NETWORK_PEER_PORT),
        Derived::EventImage => of_message(event, kubelet_event::image),
        Derived::EventRegistry => of_message(event, kubelet_event::registry),
        Derived::EventVolume => of_message(event, kubelet_event::volume),
        Derived::EventVolumeServer => of_message(event, kubelet_event::volume_server),
    }
}

impl FieldRef {
    /// Parses a field's name.
    ///
    /// # Errors
    /// If there is no such field; the text suggests a name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let intern = |key: &str| Name::intern(key).map_err(|e| e.to_string());
        match text {
            "kind" => return Ok(Self::Kind),
            "source" => return Ok(Self::Source),
            "severity" => return Ok(Self::Severity),
            "message" => return Ok(Self::Message),
            _ => {}
        }
        if let Some(key) = text.strip_prefix("attributes.").filter(|k| !k.is_empty()) {
            return Ok(Self::Attribute(intern(key)?));
        }
        if let Some(derived) = Derived::OF_EVENTS.iter().find(|derived| derived.text() == text) {
            return Ok(Self::Derived(*derived));
        }
        let key = names::canonical(text.strip_prefix("entity.").unwrap_or(text));
        if let Some(entity) = names::ENTITY_KEYS.iter().find(|e| e.text() == key) {
            return Ok(Self::Entity(*entity));
        }
        if Name::find(text).is_some_and(|n| (n.0 as usize) < names::WELL_KNOWN.len()) {
            return Err(format!("unknown field `{text}`: did you mean `attributes.{text}`?"));
        }
        if let Some((head, rest)) = text.split_once('.')
            && near_miss(head, ["attributes"]).is_some()
        {
            return Err(format!("unknown field `{text}`: did you mean `attributes.{rest}`?"));
        }
        let mut known: Vec<&str> = vec!["kind", "source", "severity", "message", "node"];
        known.extend(Derived::OF_EVENTS.iter().map(|derived| derived.text()));
        known.extend(names::ENTITY_KEYS.iter().map(|e| e.text()));
        Err(format!("{}, or `attributes.{text}`", unknown("field", text, &known)))
    }

    /// Whether its values are numbers; `None` if unknown.
    #[must_use]
    pub fn is_number(self) -> Option<bool> {
        match self {
            Self::Kind | Self::Source | Self::Message => Some(false),
            Self::Severity => Some(true),
            Self::Entity(name) => Some(names::NUMERIC_KEYS.contains(&name)),
            Self::Attribute(name) => names::NUMERIC_KEYS.contains(&name).then_some(true),
            Self::Derived(_) => None,
        }
    }

    /// The field's name as a rule writes it.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Kind => "kind".into(),
            Self::Source => "source".into(),
            Self::Severity => "severity".into(),
            Self::Message => "message".into(),
            Self::Entity(name) => name.text().into(),
            Self::Attribute(name) => format!("attributes.{}", name.text()),
            Self::Derived(derived) => derived.text().into(),
        }
    }
}

/// Appends a value to a join key. Equal values give equal bytes: 1 equals 1.0; text never equals a
/// number. Returns false for null, which joins with nothing.
pub(crate) fn append_key(key: &mut Vec<u8>, value: Value<'_>) -> bool {
    let mut tagged = |tag: u8, bytes: &[u8]| {
        key.push(tag);
        key.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        key.extend_from_slice(bytes);
    };
    match value {
        Value::Null => return false,
        Value::Bool(b) => tagged(1, &[u8::from(b)]),
        Value::Int(n) => tagged(2, &n.to_le_bytes()),
        Value::Float(n) if n.fract() == 0.0 && n.abs() < 9e15 => {
            tagged(2, &(n as i64).to_le_bytes())
        }
        Value::Float(n) => tagged(3, &n.to_bits().to_le_bytes()),
        Value::Str(s) => tagged(4, s.as_bytes()),
        Value::Json(s) => tagged(5, s.as_bytes()),
    }
    true
}

/// Builds the join key of these fields into `key`. Returns false if one is missing or null: such
/// an event joins with nothing.
pub(crate) fn build_key(event: &impl View, by: &[FieldRef], key: &mut Vec<u8>) -> bool {
    key.clear();
    by.iter().all(|field| event.field(*field).is_some_and(|value| append_key(key, value)))
}

/// A value as text, for templates and story keys.
pub(crate) fn value_text(value: Value<'_>) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Float(n) => n.to_string(),
        Value::Str(s) | Value::Json(s) => s.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_field_is_rejected_with_a_suggestion() {
        assert_eq!(FieldRef::parse("host.name"), FieldRef::parse("node"));
        assert_eq!(FieldRef::parse("systemd.unit.name"), FieldRef::parse("systemd.unit"));
        assert!(FieldRef::parse("k8s.pod.uidd").unwrap_err().contains("k8s.pod.uid"));
        assert!(FieldRef::parse("error.type").unwrap_err().contains("attributes.error.type"));
        assert!(
            FieldRef::parse("atribute.n").unwrap_err().ends_with("did you mean `attributes.n`?")
        );
    }

    #[test]
    fn equal_values_give_equal_keys() {
        let key = |v| {
            let mut k = Vec::new();
            append_key(&mut k, v).then_some(k)
        };
        assert_eq!(key(Value::Int(3)), key(Value::Float(3.0)));
        assert_ne!(key(Value::Int(3)), key(Value::Str("3")));
        assert_eq!(key(Value::Null), None);
    }
}
