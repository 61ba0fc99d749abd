//! Producer and consumer with the wake protocol.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tapio_core::event::{Event, EventId, Field, Value, names};
use tapio_core::ring::{Bell, Header, RecordReader, RecordWriter, WriteError, ring};
use tapio_core::shutdown::thread_waker;

/// Two million, or `TAPIO_RING_RECORDS` (sanitizers are an order of magnitude slower).
fn records() -> u64 {
    std::env::var("TAPIO_RING_RECORDS").map_or(2_000_000, |n| n.parse().unwrap())
}

/// Each record has a part of this text; its number determines offset and length.
const TEXT: &str = "the quick brown fox jumps over the lazy dog, and again over the same dog, \
    which by now is no longer lazy but awake and quite cross with the quick brown fox";

fn part(n: u64) -> &'static str {
    let start = (n % 61) as usize;
    &TEXT[start..start + (n % 89) as usize]
}

fn write(writer: &mut RecordWriter, bell: &Bell, n: u64) {
    let fields = [
        Field { key: names::HOST_NAME, value: Value::Str(part(n)) },
        Field { key: names::PROCESS_PID, value: Value::Int(n as i64) },
    ];
    let event = Event {
        fields: &fields,
        entities: 2,
        message: part(n / 7),
        ..Event::new(EventId::from_sequence(1, 2, n), n, names::K8S_EVENT, names::K8S)
    };
    while let Err(error) = writer.write_event(&Header::event(1, 1, n), &event) {
        assert_eq!(error, WriteError::Full);
        bell.ring();
        thread::yield_now();
    }
}

struct Counts {
    read: AtomicU64,
    wakes: AtomicU64,
}

/// Reads and checks records until the writer is gone; sleeps whenever the ring is empty.
fn consume(mut reader: RecordReader, bell: &Bell, counts: &Counts) -> u64 {
    let mut next = 0;
    loop {
        reader.drain(usize::MAX, |record| {
            let event = record.event().unwrap();
            assert_eq!(event.event_id(), EventId::from_sequence(1, 2, next));
            assert_eq!(event.time(), next);
            assert_eq!(record.header().time_ns, next);
            assert_eq!(event.entity(names::PROCESS_PID), Some(Value::Int(next as i64)));
            assert_eq!(event.text(names::HOST_NAME), Some(part(next)));
            assert_eq!(&*event.message, part(next / 7));
            next += 1;
            true
        });
        // Release, paired with the Acquire loads of the test: records are read before they count.
        counts.read.store(next, Ordering::Release);
        bell.prepare_sleep();
        if reader.is_finished() {
            return next;
        }
        if reader.is_empty() {
            thread::park();
            counts.wakes.fetch_add(1, Ordering::Relaxed);
        }
        bell.cancel_sleep();
    }
}

#[test]
fn two_threads_lose_nothing_and_sleep_when_idle() {
    // On a thread without libtest in its stack: tests/sanitize/thread.supp suppresses libtest.
    thread::spawn(|| produce(4_096)).join().unwrap();
}

/// The writer is faster than the reader, so the ring's second part comes and goes.
#[test]
fn two_threads_lose_nothing_in_a_ring_that_grows() {
    thread::spawn(|| produce(65_536)).join().unwrap();
}

fn produce(blocks: usize) {
    let (mut writer, reader) = ring(blocks);
    let bell = Arc::new(Bell::new(std::sync::OnceLock::new()));
    let counts = Arc::new(Counts { read: AtomicU64::new(0), wakes: AtomicU64::new(0) });
    let consumer = {
        let (bell, counts) = (Arc::clone(&bell), Arc::clone(&counts));
        thread::spawn(move || {
            assert!(bell.target().set(thread_waker()).is_ok());
            consume(reader, &bell, &counts)
        })
    };
    while bell.target().get().is_none() {
        thread::yield_now();
    }
    let wait_for = |n: u64| {
        while counts.read.load(Ordering::Acquire) < n {
            thread::yield_now();
        }
    };

    let total = records();
    for n in 0..total {
        write(&mut writer, &bell, n);
        if n % 64 == 0 {
            bell.ring();
        }
    }
    bell.ring();
    wait_for(total);

    // Idle for a while: a polling consumer would wake hundreds of times. Two wake-ups are allowed:
    // one in flight may arrive now, and a park may end spuriously.
    let before = counts.wakes.load(Ordering::Relaxed);
    thread::sleep(Duration::from_millis(500));
    let idle = counts.wakes.load(Ordering::Relaxed) - before;
    assert!(idle <= 2, "woke {idle} times with nothing to read");

    // One record at a time: each must wake the consumer by itself.
    for n in total..total + 2_000 {
        write(&mut writer, &bell, n);
        bell.ring();
        wait_for(n + 1);
    }
    drop(writer);
    bell.ring();
    assert_eq!(consumer.join().unwrap(), total + 2_000);
}
