//! rtrb as loom can model it: the positions and the mark of an abandoned ring are loom's atomics,
//! with the orderings that rtrb has. Only the operations that the elastic ring uses. Access to the
//! blocks isn't modelled: rtrb's own tests cover it.

use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The part that both ends share.
pub(super) struct RingBuffer<T> {
    blocks: Mutex<Vec<Option<T>>>,
    /// Blocks read and blocks written since the start.
    head: AtomicUsize,
    tail: AtomicUsize,
    is_abandoned: AtomicBool,
}

impl<T: Copy> RingBuffer<T> {
    #[expect(clippy::new_ret_no_self, reason = "as rtrb has it")]
    pub(super) fn new(capacity: usize) -> (Producer<T>, Consumer<T>) {
        let ring = Arc::new(Self {
            blocks: Mutex::new(vec![None; capacity]),
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            is_abandoned: AtomicBool::new(false),
        });
        (Producer(Arc::clone(&ring)), Consumer(ring))
    }

    pub(super) fn capacity(&self) -> usize {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn filled(&self) -> usize {
        let head = self.head.load(Ordering::Acquire);
        self.tail.load(Ordering::Acquire) - head
    }

    /// The part of `n` blocks from a position on that is before the ring's end.
    fn before_end(&self, position: usize, n: usize) -> usize {
        let capacity = self.capacity();
        n.min(capacity - position % capacity)
    }
}

pub(super) struct Producer<T>(Arc<RingBuffer<T>>);
pub(super) struct Consumer<T>(Arc<RingBuffer<T>>);

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.0.is_abandoned.store(true, Ordering::Release);
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.0.is_abandoned.store(true, Ordering::Release);
    }
}

impl<T: Copy> Producer<T> {
    pub(super) fn buffer(&self) -> &RingBuffer<T> {
        &self.0
    }

    pub(super) fn slots(&self) -> usize {
        self.0.capacity() - self.0.filled()
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.0.is_abandoned.load(Ordering::Acquire)
    }

    pub(super) fn write_chunk_uninit(&mut self, n: usize) -> Result<WriteChunk<'_, T>, ()> {
        if self.slots() < n {
            return Err(());
        }
        let before_end = self.0.before_end(self.0.tail.load(Ordering::Relaxed), n);
        Ok(WriteChunk { ring: &self.0, blocks: vec![MaybeUninit::uninit(); n], before_end })
    }
}

pub(super) struct WriteChunk<'a, T> {
    ring: &'a RingBuffer<T>,
    blocks: Vec<MaybeUninit<T>>,
    before_end: usize,
}

impl<T: Copy> WriteChunk<'_, T> {
    pub(super) fn as_mut_slices(&mut self) -> (&mut [MaybeUninit<T>], &mut [MaybeUninit<T>]) {
        self.blocks.split_at_mut(self.before_end)
    }

    /// # Safety
    /// The first `n` blocks are initialised.
    pub(super) unsafe fn commit(self, n: usize) {
        let tail = self.ring.tail.load(Ordering::Relaxed);
        let mut blocks = self.ring.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let capacity = blocks.len();
        for (at, block) in self.blocks[..n].iter().enumerate() {
            // SAFETY: the caller initialised it.
            blocks[(tail + at) % capacity] = Some(unsafe { block.assume_init() });
        }
        drop(blocks);
        self.ring.tail.store(tail + n, Ordering::Release);
    }
}

impl<T: Copy> Consumer<T> {
    pub(super) fn slots(&self) -> usize {
        self.0.filled()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots() == 0
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.0.is_abandoned.load(Ordering::Acquire)
    }

    pub(super) fn read_chunk(&mut self, n: usize) -> Result<ReadChunk<'_, T>, ()> {
        if self.slots() < n {
            return Err(());
        }
        let head = self.0.head.load(Ordering::Relaxed);
        let before_end = self.0.before_end(head, n);
        let blocks = self.0.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let block = |at: usize| blocks[(head + at) % blocks.len()];
        let blocks = (0..n).filter_map(block).collect();
        Ok(ReadChunk { ring: &self.0, blocks, before_end })
    }
}

pub(super) struct ReadChunk<'a, T> {
    ring: &'a RingBuffer<T>,
    blocks: Vec<T>,
    before_end: usize,
}

impl<T: Copy> ReadChunk<'_, T> {
    pub(super) fn as_slices(&self) -> (&[T], &[T]) {
        self.blocks.split_at(self.before_end)
    }

    pub(super) fn commit(self, n: usize) {
        let head = self.ring.head.load(Ordering::Relaxed);
        self.ring.head.store(head + n, Ordering::Release);
    }
}
