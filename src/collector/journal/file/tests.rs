use super::*;
use crate::journal::fuzz_entry::count_entries;
use proptest::prelude::*;

/// Builds a journal file in memory, as journald would write it.
struct FileBuilder {
    bytes: Vec<u8>,
    compact: bool,
    /// Number of items of an entry array.
    array_items: usize,
    /// Offset of the current array, and its number of used items.
    array: Option<(usize, usize)>,
    entries: u64,
}

impl FileBuilder {
    fn new(compact: bool, array_items: usize) -> Self {
        let mut bytes = vec![0; 272];
        bytes[..8].copy_from_slice(b"LPKSHHRH");
        bytes[12] = if compact { 0x1c } else { 0x0c };
        bytes[16] = 1;
        bytes[24..40].copy_from_slice(&[7; 16]);
        bytes[72..88].copy_from_slice(&[9; 16]);
        Self { bytes, compact, array_items, array: None, entries: 0 }
    }

    fn put(&mut self, at: usize, n: u64) {
        self.bytes[at..at + 8].copy_from_slice(&n.to_le_bytes());
    }

    fn object(&mut self, kind: u8, flags: u8, size: usize) -> usize {
        let at = self.bytes.len();
        self.bytes.resize((at + size).next_multiple_of(8), 0);
        self.bytes[at] = kind;
        self.bytes[at + 1] = flags;
        self.put(at + 8, size as u64);
        at
    }

    fn data(&mut self, flags: u8, payload: &[u8]) -> usize {
        let begin = if self.compact { 72 } else { 64 };
        let at = self.object(1, flags, begin + payload.len());
        self.bytes[at + begin..at + begin + payload.len()].copy_from_slice(payload);
        at
    }

    fn link(&mut self, entry: usize) {
        let item = if self.compact { 4 } else { 8 };
        let (array, used) = match self.array {
            Some((array, used)) if used < self.array_items => (array, used),
            before => {
                let at = self.object(6, 0, 24 + self.array_items * item);
                self.put(before.map_or(176, |(array, _)| array + 16), at as u64);
                (at, 0)
            }
        };
        let at = array + 24 + used * item;
        self.bytes[at..at + item].copy_from_slice(&(entry as u64).to_le_bytes()[..item]);
        self.array = Some((array, used + 1));
        self.entries += 1;
        self.put(152, self.entries);
    }

    fn entry(&mut self, data: &[usize]) {
        let seqnum = self.entries + 1;
        let item = if self.compact { 4 } else { 16 };
        let at = self.object(3, 0, 64 + data.len() * item);
        self.put(at + 16, seqnum);
        self.put(at + 24, 1_000 * seqnum);
        for (n, offset) in data.iter().enumerate() {
            let to = at + 64 + n * item;
            self.bytes[to..to + 4].copy_from_slice(&(*offset as u32).to_le_bytes());
        }
        self.put(160, seqnum);
        self.link(at);
    }

    /// Adds an entry with a message of its own and a field that all entries share.
    fn message(&mut self, text: &str) {
        let shared = 272;
        if self.bytes.len() == shared {
            self.data(0, b"_COMM=tapio");
        }
        let message = self.data(0, format!("MESSAGE={text}").as_bytes());
        self.entry(&[shared, message]);
    }
}

fn messages(file: &mut JournalFile<&[u8]>) -> Vec<String> {
    let mut record = Record::default();
    let mut out = Vec::new();
    while file.peek().unwrap().is_some() {
        assert_eq!(file.take(&mut record).unwrap(), 0);
        assert_eq!(record.text(Field::Comm), "tapio");
        out.push(record.text(Field::Message).to_owned());
    }
    out
}

fn file_with_messages(compact: bool, n: u64) -> FileBuilder {
    let mut built = FileBuilder::new(compact, 4);
    (1..=n).for_each(|n| built.message(&format!("m{n}")));
    built
}

#[test]
fn entries_are_read_in_order_across_arrays() {
    for compact in [false, true] {
        let built = file_with_messages(compact, 11);
        let mut file = JournalFile::open(&built.bytes[..]).unwrap();
        let expected: Vec<_> = (1..=11).map(|n| format!("m{n}")).collect();
        assert_eq!(messages(&mut file), expected);
        assert_eq!(file.left(), 0);
    }
}

#[test]
fn seed_of_fuzz_target_is_readable() {
    assert_eq!(count_entries(include_bytes!("../samples/small.journal")), (12, 0));
}

#[test]
fn reading_begins_after_position() {
    let built = file_with_messages(true, 11);
    for seqnum in 0..=12 {
        let mut file = JournalFile::open(&built.bytes[..]).unwrap();
        file.seek(&Position { seqnum_id: [9; 16], seqnum, ..Position::default() }).unwrap();
        let expected: Vec<_> = (seqnum + 1..=11).map(|n| format!("m{n}")).collect();
        assert_eq!(messages(&mut file), expected, "{seqnum}");
        // In another sequence the clock decides.
        let mut file = JournalFile::open(&built.bytes[..]).unwrap();
        let realtime_us = 1_000 * seqnum;
        file.seek(&Position { boot_id: [1; 16], realtime_us, ..Position::default() }).unwrap();
        assert_eq!(messages(&mut file), expected, "{seqnum}");
    }
    let mut file = JournalFile::open(&built.bytes[..]).unwrap();
    file.skip_all().unwrap();
    assert_eq!(messages(&mut file), Vec::<String>::new());
}

#[test]
fn compressed_and_long_fields_are_read_up_to_their_limit() {
    let mut built = FileBuilder::new(false, 4);
    let zstd = include_bytes!("../samples/message.zst");
    let xz = include_bytes!("../samples/message.xz");
    let long = [&b"MESSAGE="[..], &[b'x'; 100_000]].concat();
    let objects = [built.data(4, zstd), built.data(1, xz), built.data(0, &long)];
    objects.iter().for_each(|o| built.entry(&[*o]));
    let mut file = JournalFile::open(&built.bytes[..]).unwrap();
    let mut record = Record::default();
    for len in [6_000, 6_000, MAX_MESSAGE_BYTES] {
        file.peek().unwrap();
        assert_eq!(file.take(&mut record).unwrap(), 0);
        assert_eq!(record.get(Field::Message).len(), len);
    }
}

#[test]
fn damaged_entries_are_skipped_and_counted() {
    let built = file_with_messages(false, 8);
    let mut bytes = built.bytes.clone();
    // The third entry's type.
    let third = (0..bytes.len())
        .filter(|at| at.is_multiple_of(8) && bytes[*at] == 3 && u64_at(&bytes, at + 16) == 3);
    let third: Vec<_> = third.filter(|at| u64_at(&bytes, at + 8) == 96).collect();
    bytes[third[0]] = 9;
    assert_eq!(count_entries(&bytes), (7, 1));
    // An array with a link backwards.
    let mut bytes = built.bytes.clone();
    let array = u64_at(&bytes, 176);
    bytes[array as usize + 16..array as usize + 24].copy_from_slice(&array.to_le_bytes());
    assert_eq!(count_entries(&bytes), (4, 4));
    // A truncated file.
    let (good, bad) = count_entries(&built.bytes[..built.bytes.len() - 200]);
    assert!(good >= 5 && bad > 0 && good + bad == 8, "{good} {bad}");
}

proptest! {
    /// Whatever bytes are changed, reading ends, and returns no more entries than the header has.
    #[test]
    fn damage_never_panics(
        compact in any::<bool>(),
        changes in prop::collection::vec((0..4_000usize, any::<u8>()), 1..8),
        cut in 0..4_000usize,
    ) {
        let mut bytes = file_with_messages(compact, 12).bytes;
        let len = bytes.len();
        for (at, to) in changes {
            bytes[8 + at % (len - 8)] = to;
        }
        bytes.truncate(len - cut.min(len) % 500);
        let (good, _) = count_entries(&bytes);
        prop_assert!(good <= 4_000);
    }

    #[test]
    fn reading_any_bytes_never_panics(tail in prop::collection::vec(any::<u8>(), 200..600)) {
        let mut bytes = b"LPKSHHRH\0\0\0\0\x1c\0\0\0".to_vec();
        bytes.extend(tail);
        let _ = count_entries(&bytes);
    }
}
