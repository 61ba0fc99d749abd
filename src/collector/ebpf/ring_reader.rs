//! Reads the kernel's ring buffer through a window: a part of it is mapped at a time.
//!
//! The pages of a ring buffer are the process's from when they are mapped, touched or not, and its
//! data is mapped twice: a ring of 16 MiB that is mapped whole adds 32 MiB to the process.
//!
//! ```text
//! page 0    the consumer's position: written here, read by the kernel
//! page 1    the producer's position
//! pages 2…  the data, and once more, so that a record that crosses the end is contiguous
//! ```
//!
//! See kernel/bpf/ringbuf.c. Positions only grow; their rest modulo the size is the offset.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// The mapped part. Moving it costs a few microseconds, here once for some 2,000 records.
const WINDOW_BYTES: usize = 256 << 10;
/// A record's header: its length with the two flags, and a number for the kernel.
const HEADER_BYTES: usize = 8;
/// The record is being written.
const BUSY: u32 = 1 << 31;
/// The record was given up.
const DISCARDED: u32 = 1 << 30;

/// A mapped part of a file.
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    /// Maps `bytes` from `offset` on, both multiples of a page.
    fn new(
        file: BorrowedFd<'_>,
        protection: libc::c_int,
        offset: usize,
        bytes: usize,
    ) -> io::Result<Self> {
        let (shared, offset) = (libc::MAP_SHARED, offset as libc::off_t);
        // SAFETY: without an address the kernel picks one where nothing is mapped.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), bytes, protection, shared, file.as_raw_fd(), offset)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, bytes })
    }

    /// The position at its start.
    fn position(&self) -> &AtomicUsize {
        // SAFETY: a mapping begins at a page and has at least one. The kernel and this module
        // access the word there atomically only.
        unsafe { self.start.cast::<AtomicUsize>().as_ref() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own; references into it borrow this value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// The consumer's end of a BPF ring buffer.
pub(super) struct RingReader {
    ring: OwnedFd,
    size_bytes: usize,
    page_bytes: usize,
    consumed: Mapping,
    produced: Mapping,
    window: Mapping,
    /// The offset of the window in the data.
    window_offset: usize,
    /// Where the next record begins.
    position: usize,
    /// The producer's position, as read last.
    end: usize,
}

impl RingReader {
    /// The reader of a ring buffer with `size_bytes` of data, a power of two.
    ///
    /// # Errors
    /// When it can't be mapped.
    pub(super) fn new(ring: OwnedFd, size_bytes: usize) -> io::Result<Self> {
        let page_bytes = rustix::param::page_size();
        let file = ring.as_fd();
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let consumed = Mapping::new(file, both, 0, page_bytes)?;
        let produced = Mapping::new(file, libc::PROT_READ, page_bytes, page_bytes)?;
        let window_bytes = WINDOW_BYTES.min(2 * size_bytes);
        let window = Mapping::new(file, libc::PROT_READ, 2 * page_bytes, window_bytes)?;
        let position = consumed.position().load(Ordering::Acquire);
        Ok(Self {
            ring,
            size_bytes,
            page_bytes,
            consumed,
            produced,
            window,
            window_offset: 0,
            position,
            end: position,
        })
    }

    /// Passes at most `limit` records to `read`, in order. Returns their number. A record on which
    /// `read` panics stays.
    ///
    /// # Errors
    /// When the next part can't be mapped, or the data isn't that of a ring buffer.
    pub(super) fn drain(&mut self, limit: usize, mut read: impl FnMut(&[u8])) -> io::Result<usize> {
        let mut records = 0;
        while records < limit && self.has_next() {
            let header = self.header()?;
            if header & BUSY != 0 {
                break;
            }
            let len = (header & !(BUSY | DISCARDED)) as usize;
            if header & DISCARDED == 0 {
                read(self.record(len)?);
                records += 1;
            }
            self.position += (HEADER_BYTES + len).next_multiple_of(HEADER_BYTES);
            // The kernel loads it with acquire before it writes over the record.
            self.consumed.position().store(self.position, Ordering::Release);
        }
        Ok(records)
    }

    fn has_next(&mut self) -> bool {
        if self.position == self.end {
            // Pairs with the kernel's release after it has written the header.
            self.end = self.produced.position().load(Ordering::Acquire);
        }
        self.position != self.end
    }

    fn header(&mut self) -> io::Result<u32> {
        let at = self.at(HEADER_BYTES)?;
        // SAFETY: `at` has eight mapped bytes behind it, aligned to eight as every record is. The
        // kernel changes the word atomically.
        let header = unsafe { at.cast::<AtomicU32>().as_ref() };
        // Pairs with the kernel's exchange that submits the record.
        Ok(header.load(Ordering::Acquire))
    }

    /// The bytes of the next record, which the kernel has submitted.
    fn record(&mut self, len: usize) -> io::Result<&[u8]> {
        let at = self.at(HEADER_BYTES + len)?;
        // SAFETY: `at` has so many mapped bytes behind it, and the window can't move while the
        // slice borrows this value. The kernel doesn't write over a submitted record before the
        // consumer's position is behind it.
        Ok(unsafe { std::slice::from_raw_parts(at.as_ptr().add(HEADER_BYTES), len) })
    }

    /// The address of the next record, with at least `bytes` mapped behind it.
    fn at(&mut self, bytes: usize) -> io::Result<NonNull<u8>> {
        let offset = self.position & (self.size_bytes - 1);
        let window = self.window_offset..self.window_offset + self.window.bytes;
        if offset < window.start || offset + bytes > window.end {
            self.move_window(offset, bytes)?;
        }
        // SAFETY: the offset is within the window.
        Ok(unsafe { self.window.start.add(offset - self.window_offset) })
    }

    /// Maps the part that begins in the page of `offset`, at least `bytes` from `offset` on.
    fn move_window(&mut self, offset: usize, bytes: usize) -> io::Result<()> {
        if bytes > self.size_bytes {
            let cause = format!("a record of {bytes} bytes in a ring of {}", self.size_bytes);
            return Err(io::Error::new(io::ErrorKind::InvalidData, cause));
        }
        let start = offset - offset % self.page_bytes;
        let needed_bytes = (offset - start + bytes).next_multiple_of(self.page_bytes);
        // The data is mapped twice: less than its size is before `offset`, at most its size behind.
        let window_bytes = needed_bytes.max(WINDOW_BYTES).min(2 * self.size_bytes - start);
        let at = 2 * self.page_bytes + start;
        self.window = Mapping::new(self.ring.as_fd(), libc::PROT_READ, at, window_bytes)?;
        self.window_offset = start;
        Ok(())
    }
}

impl AsFd for RingReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;

    use super::*;

    const SIZE_BYTES: usize = 1 << 20;

    /// A file with the layout of a ring buffer, and the producer's side of it.
    struct Ring {
        file: File,
        page_bytes: usize,
        produced: usize,
    }

    impl Ring {
        fn new() -> Self {
            let file = tempfile::tempfile().unwrap();
            let page_bytes = rustix::param::page_size();
            file.set_len((2 * page_bytes + 2 * SIZE_BYTES) as u64).unwrap();
            Self { file, page_bytes, produced: 0 }
        }

        fn reader(&self) -> RingReader {
            RingReader::new(self.file.try_clone().unwrap().into(), SIZE_BYTES).unwrap()
        }

        /// Writes into the data and, as the kernel maps it twice, into its other half.
        fn put(&self, position: usize, bytes: &[u8]) {
            let offset = position % SIZE_BYTES;
            let (first, rest) = bytes.split_at(bytes.len().min(SIZE_BYTES - offset));
            for half in [0, SIZE_BYTES] {
                let at = 2 * self.page_bytes + half;
                self.file.write_all_at(first, (at + offset) as u64).unwrap();
                self.file.write_all_at(rest, at as u64).unwrap();
            }
        }

        /// Reserves a record, with these flags in its header, and returns its position.
        fn write(&mut self, bytes: &[u8], flags: u32) -> usize {
            let position = self.produced;
            self.put(position, &(bytes.len() as u32 | flags).to_ne_bytes());
            self.put(position + HEADER_BYTES, bytes);
            self.produced += (HEADER_BYTES + bytes.len()).next_multiple_of(8);
            let produced = self.produced.to_ne_bytes();
            self.file.write_all_at(&produced, self.page_bytes as u64).unwrap();
            position
        }

        fn consumed(&self) -> usize {
            let mut bytes = [0; size_of::<usize>()];
            self.file.read_exact_at(&mut bytes, 0).unwrap();
            usize::from_ne_bytes(bytes)
        }
    }

    fn drained(reader: &mut RingReader, limit: usize) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        let read = reader.drain(limit, |record| records.push(record.to_vec())).unwrap();
        assert_eq!(read, records.len());
        records
    }

    #[test]
    fn unfinished_record_holds_back_later_ones() {
        let mut ring = Ring::new();
        let mut reader = ring.reader();
        ring.write(b"first", 0);
        ring.write(b"given up", DISCARDED);
        let busy = ring.write(b"second", BUSY);
        ring.write(b"third", 0);
        assert_eq!(drained(&mut reader, 9), [b"first"]);
        assert_eq!(ring.consumed(), busy);
        assert!(drained(&mut reader, 9).is_empty());
        ring.put(busy, &6u32.to_ne_bytes());
        assert_eq!(drained(&mut reader, 1), [b"second"]);
        assert_eq!(drained(&mut reader, 9), [b"third"]);
        assert_eq!(ring.consumed(), ring.produced);
    }

    #[test]
    fn record_larger_than_the_window_is_read() {
        let mut ring = Ring::new();
        let mut reader = ring.reader();
        let large: Vec<u8> = (0..2 * WINDOW_BYTES).map(|n| n as u8).collect();
        for _ in 0..5 {
            ring.write(b"small", 0);
            ring.write(&large, 0);
            let records = drained(&mut reader, 9);
            assert!(records == [b"small".to_vec(), large.clone()]);
        }
    }

    #[test]
    fn impossible_length_is_an_error() {
        let mut ring = Ring::new();
        let mut reader = ring.reader();
        let at = ring.write(b"record", 0);
        ring.put(at, &(SIZE_BYTES as u32 + 1).to_ne_bytes());
        let error = reader.drain(1, |_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// The ring is passed several times, its end within records.
        #[test]
        fn records_arrive_once_and_in_order(
            lens in prop::collection::vec(0usize..40_000, 1..100),
            limit in 1usize..5,
        ) {
            let mut ring = Ring::new();
            ring.produced = SIZE_BYTES - 4_096;
            for at in [0, ring.page_bytes] {
                ring.file.write_all_at(&ring.produced.to_ne_bytes(), at as u64).unwrap();
            }
            let mut reader = ring.reader();
            let (mut sent, mut read) = (Vec::new(), Vec::new());
            for (n, len) in lens.into_iter().enumerate() {
                let record = vec![n as u8; len];
                while ring.produced - ring.consumed() + len + 16 > SIZE_BYTES {
                    read.extend(drained(&mut reader, limit));
                }
                ring.write(&record, 0);
                sent.push(record);
            }
            read.extend(drained(&mut reader, usize::MAX));
            prop_assert!(read == sent);
        }
    }
}
