//! A record: the fields that an event is made of. All others are left where they are; of long ones the
//! beginning is kept.

use super::position::Position;

/// The longest message that is kept, in bytes.
pub(super) const MOST_MESSAGE_BYTES: usize = 16 << 10;
/// The longest other field that is kept, in bytes.
const MOST_FIELD_BYTES: usize = 1 << 10;

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
    CoredumpPid = "COREDUMP_PID",
    CoredumpComm = "COREDUMP_COMM",
    CoredumpExe = "COREDUMP_EXE",
    CoredumpSignal = "COREDUMP_SIGNAL",
    CoredumpUnit = "COREDUMP_UNIT",
    CoredumpCgroup = "COREDUMP_CGROUP",
    CoredumpFile = "COREDUMP_FILENAME",
}

/// The longest name of a field that is kept, with its `=`.
pub(super) const MOST_NAME_BYTES: usize = 27;

impl Field {
    /// The field a payload begins with, and where its value begins.
    pub(super) fn of(payload: &[u8]) -> Option<(Self, usize)> {
        let equals = payload.iter().take(MOST_NAME_BYTES).position(|b| *b == b'=')?;
        Some((Self::named(&payload[..equals])?, equals + 1))
    }

    /// The field with this name.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        NAMES.iter().find(|(text, _)| text.as_bytes() == name).map(|(_, field)| *field)
    }

    /// Bytes of its value that are kept.
    pub(super) fn most_bytes(self) -> usize {
        if self == Self::Message { MOST_MESSAGE_BYTES } else { MOST_FIELD_BYTES }
    }
}

/// A record, in buffers that are used again.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) position: Position,
    bytes: Vec<u8>,
    /// Where each field's value lies; zero length where there is none.
    spans: [(u32, u32); NAMES.len()],
}

impl Record {
    /// Begins another record.
    pub(super) fn begin(&mut self, position: Position) {
        self.position = position;
        self.bytes.clear();
        self.spans = [(0, 0); NAMES.len()];
    }

    /// Takes a value over; the first one of a field counts.
    pub(super) fn put(&mut self, field: Field, value: &[u8]) {
        let span = &mut self.spans[field as usize];
        if span.1 == 0 {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(&value[..value.len().min(field.most_bytes())]);
            *span = (start as u32, self.bytes.len() as u32);
        }
    }

    /// A field's value; empty where there is none.
    pub(super) fn get(&self, field: Field) -> &[u8] {
        let (start, end) = self.spans[field as usize];
        self.bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    /// A field's value as text; what isn't UTF-8 is none.
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
    fn fields_are_kept_and_bounded() {
        let longest = NAMES.iter().map(|(name, _)| name.len() + 1).max();
        assert_eq!(longest, Some(MOST_NAME_BYTES));
        assert_eq!(Field::of(b"_PID=7"), Some((Field::Pid, 5)));
        assert_eq!(Field::of(b"_CMDLINE=secret"), None);
        assert_eq!(Field::of(&[b'A'; 500]), None);
        let mut record = Record::default();
        record.put(Field::Message, &[b'm'; MOST_MESSAGE_BYTES + 1]);
        record.put(Field::Pid, b"7");
        record.put(Field::Pid, b"8");
        assert_eq!(record.get(Field::Message).len(), MOST_MESSAGE_BYTES);
        assert_eq!(record.number(Field::Pid), Some(7));
        record.begin(Position::default());
        assert_eq!(record.get(Field::Pid), b"");
    }
}
