//! Reads properties of units from the bus into a [`Snapshot`] (org.freedesktop.systemd1(5)). A
//! property of another type than documented counts as missing.

use std::collections::HashMap;
use std::sync::Arc;

use zbus::wire::Variant;

use super::unit::{Snapshot, State};

/// The properties in a reply or a signal: `a{sv}`.
pub(super) type Properties<'a> = HashMap<&'a str, Variant<'a>>;

/// The interface of all units.
pub(super) const UNIT_INTERFACE: &str = "org.freedesktop.systemd1.Unit";

const PATH_PREFIX: &str = "/org/freedesktop/systemd1/unit/";

/// The interface of a unit's type, for types with a `Result`.
pub(super) fn typed_interface(unit: &str) -> Option<&'static str> {
    Some(match unit.rsplit_once('.')?.1 {
        "service" => "org.freedesktop.systemd1.Service",
        "socket" => "org.freedesktop.systemd1.Socket",
        "mount" => "org.freedesktop.systemd1.Mount",
        "automount" => "org.freedesktop.systemd1.Automount",
        "swap" => "org.freedesktop.systemd1.Swap",
        "timer" => "org.freedesktop.systemd1.Timer",
        "path" => "org.freedesktop.systemd1.Path",
        "scope" => "org.freedesktop.systemd1.Scope",
        _ => return None,
    })
}

/// Decodes an object's path into the unit's name. The path has `_` and two hex digits for each
/// byte that isn't a letter or digit.
pub(super) fn unit_of_path(path: &str) -> Option<String> {
    let label = path.strip_prefix(PATH_PREFIX)?;
    let mut name = Vec::with_capacity(label.len());
    let mut rest = label.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte == b'_' {
            let hex = std::str::from_utf8(rest.get(..2)?).ok()?;
            name.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &rest[2..];
        } else {
            name.push(*byte);
        }
    }
    String::from_utf8(name).ok().filter(|n| !n.is_empty())
}

/// The object path of a unit.
pub(super) fn path_of_unit(unit: &str) -> String {
    let mut path = PATH_PREFIX.to_owned();
    for (i, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (i > 0 && byte.is_ascii_digit()) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

pub(super) fn text<'a>(properties: &'a Properties<'_>, name: &str) -> Option<&'a str> {
    match properties.get(name)? {
        Variant::Str(text) => Some(text.as_str()),
        _ => None,
    }
}

fn number(properties: &Properties<'_>, name: &str) -> Option<u64> {
    match properties.get(name)? {
        Variant::U64(n) => Some(*n),
        Variant::U32(n) => Some(u64::from(*n)),
        _ => None,
    }
}

fn signed(properties: &Properties<'_>, name: &str) -> Option<i32> {
    match properties.get(name)? {
        Variant::I32(n) => Some(*n),
        _ => None,
    }
}

/// A list of texts, such as names of units.
pub(super) fn texts(properties: &Properties<'_>, name: &str) -> Vec<String> {
    let Some(Variant::Array(list)) = properties.get(name) else {
        return Vec::new();
    };
    let text = |value: &Variant<'_>| match value {
        Variant::Str(text) => Some(text.as_str().to_owned()),
        _ => None,
    };
    list.iter().filter_map(text).collect()
}

/// Sets a text; an equal one keeps its allocation.
fn set(into: &mut Arc<str>, text: &str) {
    if **into != *text {
        *into = text.into();
    }
}

impl Snapshot {
    /// Applies properties of the interface of all units.
    pub(super) fn apply_unit(&mut self, properties: &Properties<'_>) {
        if let Some(state) = text(properties, "ActiveState") {
            self.active = State::parse(state);
        }
        if let Some(state) = text(properties, "SubState") {
            self.awaits_restart = state.starts_with("auto-restart");
            let has_job = has_job(properties).unwrap_or(false);
            self.restart_is_queued =
                state == "auto-restart-queued" || (self.awaits_restart && has_job);
        }
        if let Some(id) = invocation_id(properties) {
            set(&mut self.invocation_id, &id);
        }
        for (name, stamp) in [
            ("StateChangeTimestamp", &mut self.changed),
            ("ActiveEnterTimestamp", &mut self.active_enter),
            ("InactiveEnterTimestamp", &mut self.inactive_enter),
        ] {
            let mono = format!("{name}Monotonic");
            stamp.wall_us = number(properties, name).unwrap_or(stamp.wall_us);
            stamp.mono_us = number(properties, &mono).unwrap_or(stamp.mono_us);
        }
        if properties.contains_key("ActivationDetails") {
            set(&mut self.trigger, trigger(properties).unwrap_or_default());
        }
    }

    /// Applies properties of the interface of the unit's type.
    pub(super) fn apply_typed(&mut self, properties: &Properties<'_>) {
        if let Some(result) = text(properties, "Result") {
            set(&mut self.result, result);
        }
        if let Some(result) = text(properties, "ReloadResult") {
            set(&mut self.reload_result, result);
        }
        if let Some(restarts) = number(properties, "NRestarts") {
            self.restarts = u32::try_from(restarts).unwrap_or(u32::MAX);
        }
        let exit = &mut self.exit;
        exit.code = signed(properties, "ExecMainCode").unwrap_or(exit.code);
        exit.status = signed(properties, "ExecMainStatus").unwrap_or(exit.status);
        exit.at_mono_us =
            number(properties, "ExecMainExitTimestampMonotonic").unwrap_or(exit.at_mono_us);
    }
}

/// Whether `Job`, a `(uo)`, has the id of a job.
fn has_job(properties: &Properties<'_>) -> Option<bool> {
    let Variant::Structure(job) = properties.get("Job")? else {
        return None;
    };
    Some(matches!(job.fields(), [Variant::U32(1..), _]))
}

/// `InvocationID` in hex: 16 bytes, none before the first invocation.
fn invocation_id(properties: &Properties<'_>) -> Option<String> {
    let Variant::Array(bytes) = properties.get("InvocationID")? else {
        return None;
    };
    let hex = |value: &Variant<'_>| match value {
        Variant::U8(byte) => format!("{byte:02x}"),
        _ => String::new(),
    };
    Some(bytes.iter().map(hex).collect())
}

/// The value of `trigger_unit` in `ActivationDetails`, an `a(ss)` since systemd 252.
fn trigger<'a>(properties: &'a Properties<'_>) -> Option<&'a str> {
    let Variant::Array(pairs) = properties.get("ActivationDetails")? else {
        return None;
    };
    pairs.iter().find_map(|pair| {
        let Variant::Structure(pair) = pair else { return None };
        match pair.fields() {
            [Variant::Str(key), Variant::Str(unit)] if key.as_str() == "trigger_unit" => {
                Some(unit.as_str())
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn snapshot_applies_present_properties() {
        let mut snapshot = Snapshot::default();
        snapshot.apply_unit(&Properties::from([
            ("ActiveState", Variant::from("activating")),
            ("SubState", Variant::from("auto-restart")),
            ("InvocationID", Variant::from(vec![0xabu8, 1])),
            ("StateChangeTimestamp", Variant::from(7u64)),
            ("StateChangeTimestampMonotonic", Variant::from(3u64)),
            ("ActivationDetails", Variant::from(vec![("trigger_unit", "tick.timer")])),
            ("InactiveEnterTimestamp", Variant::from("not a number")),
        ]));
        assert!(snapshot.awaits_restart && !snapshot.restart_is_queued);
        let mut queued = snapshot.clone();
        queued.apply_unit(&Properties::from([
            ("SubState", Variant::from("auto-restart")),
            ("Job", Variant::from((7u32, zbus::ObjectPath::from_static_str_unchecked("/job/7")))),
        ]));
        assert!(queued.restart_is_queued);
        assert_eq!(snapshot.active, State::Activating);
        assert_eq!((&*snapshot.invocation_id, &*snapshot.trigger), ("ab01", "tick.timer"));
        assert_eq!((snapshot.changed.mono_us, snapshot.changed.wall_us), (3, 7));
        assert_eq!(snapshot.inactive_enter.wall_us, 0);
        snapshot.apply_typed(&Properties::from([
            ("Result", Variant::from("exit-code")),
            ("NRestarts", Variant::from(2u32)),
            ("ExecMainCode", Variant::from(1i32)),
            ("ExecMainStatus", Variant::from(7i32)),
        ]));
        assert_eq!((&*snapshot.result, snapshot.restarts), ("exit-code", 2));
        assert_eq!((snapshot.exit.code, snapshot.exit.status), (1, 7));
        let before = snapshot.clone();
        snapshot.apply_unit(&Properties::new());
        snapshot.apply_typed(&Properties::new());
        assert_eq!(snapshot, before, "missing properties leave the snapshot unchanged");
    }

    #[test]
    fn paths_match_systemds_encoding() {
        let path = "/org/freedesktop/systemd1/unit/dbus_2eservice";
        assert_eq!(unit_of_path(path).as_deref(), Some("dbus.service"));
        assert_eq!(path_of_unit("dbus.service"), path);
        assert_eq!(path_of_unit("1a.timer"), "/org/freedesktop/systemd1/unit/_31a_2etimer");
        for bad in ["/org/freedesktop/systemd1/job/7", "/org/freedesktop/systemd1/unit/a_2"] {
            assert_eq!(unit_of_path(bad), None);
        }
    }

    proptest! {
        #[test]
        fn path_decodes_to_its_unit(unit in "[a-zA-Z0-9:_.\\\\@-]{1,40}") {
            prop_assert_eq!(unit_of_path(&path_of_unit(&unit)), Some(unit));
        }

        #[test]
        fn decoding_any_path_never_panics(path in "(/org/freedesktop/systemd1/unit/)?\\PC{0,30}") {
            let _ = unit_of_path(&path);
        }
    }
}
