//! A record: the fields that events need. Other fields aren't read, and long ones are truncated.

use super::position::Position;

/// Maximum length of a message; the rest is cut off.
pub(super) const MAX_MESSAGE_BYTES: usize = 16 << 10;
/// Maximum length of another field.
const MAX_FIELD_BYTES: usize = 1 << 10;

macro_rules! fields {
    ($($variant:ident = $text:literal),* $(,)?) => {
        /// The fields that are kept (systemd.journal-fields(7)).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Field { $($variant),* }

        const NAMES: &[(&str, Field)] = &[$(($text, Field::$variant)),*];
    };
}

fields! {
    Message = "MESSAGE",
    MessageId = "MESSAGE_ID",
    Priority = "PRIORITY",
    Identifier = "SYSLOG_IDENTIFIER",
    Comm = "_COMM",
    Exe = "_EXE",
    Pid = "_PID",
    SystemdUnit = "_SYSTEMD_UNIT",
    Invocation = "_SYSTEMD_INVOCATION_ID",
    Cgroup = "_SYSTEMD_CGROUP",
    Transport = "_TRANSPORT",
    SourceTime = "_SOURCE_REALTIME_TIMESTAMP",
    KernelDevice = "_KERNEL_DEVICE",
    UdevName = "_UDEV_SYSNAME",
    Unit = "UNIT",
    UnitInvocation = "INVOCATION_ID",
    ContainerId = "CONTAINER_ID_FULL",
    ShortContainerId = "CONTAINER_ID",
    ContainerName = "CONTAINER_NAME",
    CoredumpPid = "COREDUMP_PID",
    CoredumpComm = "COREDUMP_COMM",
    CoredumpExe = "COREDUMP_EXE",
    CoredumpSignal = "COREDUMP_SIGNAL",
    CoredumpUnit = "COREDUMP_UNIT",
    CoredumpCgroup = "COREDUMP_CGROUP",
    CoredumpFile = "COREDUMP_FILENAME",
}

/// Length of the longest field name, with its `=`.
pub(super) const MAX_NAME_BYTES: usize = 27;

impl Field {
    /// The field of a payload, and the offset of its value.
    pub(super) fn of(payload: &[u8]) -> Option<(Self, usize)> {
        let equals = payload.iter().take(MAX_NAME_BYTES).position(|b| *b == b'=')?;
        Some((Self::named(&payload[..equals])?, equals + 1))
    }

    /// The field with this name.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        NAMES.iter().find(|(text, _)| text.as_bytes() == name).map(|(_, field)| *field)
    }

    /// Maximum length of its value.
    pub(super) fn max_bytes(self) -> usize {
        if self == Self::Message { MAX_MESSAGE_BYTES } else { MAX_FIELD_BYTES }
    }
}

/// A record, in reused buffers.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) position: Position,
    bytes: Vec<u8>,
    /// Start and end of each field's value in `bytes`; the end is zero for missing fields.
    spans: [(u32, u32); NAMES.len()],
}

impl Record {
    /// Starts another record.
    pub(super) fn begin(&mut self, position: Position) {
        self.position = position;
        self.bytes.clear();
        self.spans = [(0, 0); NAMES.len()];
    }

    /// Adds a value; only the first one of a field is kept.
    pub(super) fn put(&mut self, field: Field, value: &[u8]) {
        let span = &mut self.spans[field as usize];
        if span.1 == 0 {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(&value[..value.len().min(field.max_bytes())]);
            *span = (start as u32, self.bytes.len() as u32);
        }
    }

    /// A field's value; empty if missing.
    pub(super) fn get(&self, field: Field) -> &[u8] {
        let (start, end) = self.spans[field as usize];
        self.bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    /// A field's value as text; empty if it isn't UTF-8.
    pub(super) fn text(&self, field: Field) -> &str {
        std::str::from_utf8(self.get(field)).unwrap_or_default()
    }

    /// A field's value as a number.
    pub(super) fn number(&self, field: Field) -> Option<u64> {
        self.text(field).parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_value_of_each_field_is_kept_up_to_its_limit() {
        let longest = NAMES.iter().map(|(name, _)| name.len() + 1).max();
        assert_eq!(longest, Some(MAX_NAME_BYTES));
        assert_eq!(Field::of(b"_PID=7"), Some((Field::Pid, 5)));
        assert_eq!(Field::of(b"_CMDLINE=secret"), None);
        assert_eq!(Field::of(&[b'A'; 500]), None);
        let mut record = Record::default();
        record.put(Field::Message, &[b'm'; MAX_MESSAGE_BYTES + 1]);
        record.put(Field::Pid, b"7");
        record.put(Field::Pid, b"8");
        assert_eq!(record.get(Field::Message).len(), MAX_MESSAGE_BYTES);
        assert_eq!(record.number(Field::Pid), Some(7));
        record.begin(Position::default());
        assert_eq!(record.get(Field::Pid), b"");
    }
}
