use super::*;
use crate::journal::count_entries;
use proptest::prelude::*;

/// A journal file in memory, as journald would write it.
struct Made {
    bytes: Vec<u8>,
    compact: bool,
    /// Items an entry array has.
    array_items: usize,
    /// Where the current array begins, and how many of its items are set.
    array: Option<(usize, usize)>,
    entries: u64,
}

impl Made {
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

    /// An entry with a message of its own and a field that all share.
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

fn made(compact: bool, n: u64) -> Made {
    let mut made = Made::new(compact, 4);
    (1..=n).for_each(|n| made.message(&format!("m{n}")));
    made
}

#[test]
fn entries_are_read_in_order_over_arrays() {
    for compact in [false, true] {
        let made = made(compact, 11);
        let mut file = JournalFile::open(&made.bytes[..]).unwrap();
        let expected: Vec<_> = (1..=11).map(|n| format!("m{n}")).collect();
        assert_eq!(messages(&mut file), expected);
        assert_eq!(file.left(), 0);
    }
}

#[test]
fn the_fuzz_targets_seed_is_whole() {
    assert_eq!(count_entries(include_bytes!("samples/small.journal")), (12, 0));
}

#[test]
fn reading_begins_after_a_place() {
    let made = made(true, 11);
    for seqnum in 0..=12 {
        let mut file = JournalFile::open(&made.bytes[..]).unwrap();
        file.seek(&Position { seqnum_id: [9; 16], seqnum, ..Position::default() }).unwrap();
        let expected: Vec<_> = (seqnum + 1..=11).map(|n| format!("m{n}")).collect();
        assert_eq!(messages(&mut file), expected, "{seqnum}");
        // Of another sequence the clock decides.
        let mut file = JournalFile::open(&made.bytes[..]).unwrap();
        let realtime_us = 1_000 * seqnum;
        file.seek(&Position { boot_id: [1; 16], realtime_us, ..Position::default() }).unwrap();
        assert_eq!(messages(&mut file), expected, "{seqnum}");
    }
    let mut file = JournalFile::open(&made.bytes[..]).unwrap();
    file.skip_all().unwrap();
    assert_eq!(messages(&mut file), Vec::<String>::new());
}

#[test]
fn packed_and_long_fields_are_read_as_far_as_they_are_kept() {
    let mut made = Made::new(false, 4);
    let zstd = include_bytes!("samples/message.zst");
    let xz = include_bytes!("samples/message.xz");
    let long = [&b"MESSAGE="[..], &[b'x'; 100_000]].concat();
    let objects = [made.data(4, zstd), made.data(1, xz), made.data(0, &long)];
    objects.iter().for_each(|o| made.entry(&[*o]));
    let mut file = JournalFile::open(&made.bytes[..]).unwrap();
    let mut record = Record::default();
    for len in [6_000, 6_000, MOST_MESSAGE_BYTES] {
        file.peek().unwrap();
        assert_eq!(file.take(&mut record).unwrap(), 0);
        assert_eq!(record.get(Field::Message).len(), len);
    }
}

#[test]
fn what_is_damaged_is_skipped_and_counted() {
    let made = made(false, 8);
    let mut bytes = made.bytes.clone();
    // The third entry's type.
    let third = (0..bytes.len())
        .filter(|at| at.is_multiple_of(8) && bytes[*at] == 3 && u64_at(&bytes, at + 16) == 3);
    let third: Vec<_> = third.filter(|at| u64_at(&bytes, at + 8) == 96).collect();
    bytes[third[0]] = 9;
    assert_eq!(count_entries(&bytes), (7, 1));
    // An array that leads back.
    let mut bytes = made.bytes.clone();
    let array = u64_at(&bytes, 176);
    bytes[array as usize + 16..array as usize + 24].copy_from_slice(&array.to_le_bytes());
    assert_eq!(count_entries(&bytes), (4, 4));
    // A file that was cut.
    let (good, bad) = count_entries(&made.bytes[..made.bytes.len() - 200]);
    assert!(good >= 5 && bad > 0 && good + bad == 8, "{good} {bad}");
}

proptest! {
    /// Whatever bytes are changed, reading ends, and gives no more than the header promises.
    #[test]
    fn damage_never_panics(
        compact in any::<bool>(),
        changes in prop::collection::vec((0..4_000usize, any::<u8>()), 1..8),
        cut in 0..4_000usize,
    ) {
        let mut bytes = made(compact, 12).bytes;
        let len = bytes.len();
        for (at, to) in changes {
            bytes[8 + at % (len - 8)] = to;
        }
        bytes.truncate(len - cut.min(len) % 500);
        let (good, _) = count_entries(&bytes);
        prop_assert!(good <= 4_000);
    }

    #[test]
    fn any_bytes_are_read_or_refused(tail in prop::collection::vec(any::<u8>(), 200..600)) {
        let mut bytes = b"LPKSHHRH\0\0\0\0\x1c\0\0\0".to_vec();
        bytes.extend(tail);
        let _ = count_entries(&bytes);
    }
}
