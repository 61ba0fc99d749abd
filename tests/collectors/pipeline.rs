//! The smallest complete pipeline: collectors, a ring each, and one consumer thread.

use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tapio_collectors::{CollectorFactory, CollectorManager, CollectorSpec, Site};
use tapio_core::clock;
use tapio_core::event::{Event, Name, Stage, event_json, names};
use tapio_core::ring::{
    Bell, Ledger, OnFull, RecordReader, Route, Router, Sink, Snapshot, StageLedger, ring,
};
use tapio_core::shutdown::{Shutdown, thread_waker};

/// A kind on which the router panics, as a defect in it would.
pub(crate) const DEADLY: Name = names::KERNEL_SYSCALL_ENTER;

struct OneShard;

impl Router for OneShard {
    fn route(&self, event: &Event<'_>) -> Route {
        assert!(event.kind != DEADLY, "the router panics on this kind");
        Route { visits: 1 }
    }
}

/// The events consumed: the collector's number and the event's JSON form.
pub(crate) type Got = Arc<Mutex<Vec<(u8, serde_json::Value)>>>;

pub(crate) struct Pipeline {
    pub(crate) manager: CollectorManager,
    pub(crate) got: Got,
    pub(crate) shutdown: Shutdown,
    /// The site with the entity directory.
    #[allow(dead_code, reason = "these tests' collectors don't write to the directory")]
    pub(crate) site: Site,
    ledger: Arc<Ledger>,
    consumer: Option<JoinHandle<()>>,
    keep: bool,
}

impl Pipeline {
    /// Starts these collectors. `keep`: whether to keep the events in `got`.
    pub(crate) fn start(
        collectors: Vec<(&'static str, OnFull, CollectorFactory)>,
        keep: bool,
    ) -> Self {
        Self::start_at(Site::new("node-1", 7), collectors, keep)
    }

    /// Starts them at a site with its own persisted state.
    pub(crate) fn start_at(
        site: Site,
        collectors: Vec<(&'static str, OnFull, CollectorFactory)>,
        keep: bool,
    ) -> Self {
        let shutdown = Shutdown::default();
        let bell = Arc::new(Bell::new(OnceLock::new()));
        let names = collectors.iter().map(|c| c.0.to_owned()).collect();
        let mut ledger = Ledger::new(names);
        let mut manager = CollectorManager::new(site.clone(), shutdown.clone());
        let mut readers = Vec::new();
        let mut specs = Vec::new();
        for (number, (name, on_full, factory)) in collectors.into_iter().enumerate() {
            let (writer, reader) = ring(0);
            readers.push(reader);
            let sink = Sink::new(
                number as u8,
                on_full,
                Arc::new(OneShard),
                vec![(writer, Arc::clone(&bell))],
                ledger.stage(Stage::Collect),
                shutdown.clone(),
            );
            specs.push(CollectorSpec { name, factory, sink });
        }
        let taken = ledger.stage(Stage::Bridge);
        let ledger = Arc::new(ledger);
        site.set_ledger(Arc::clone(&ledger));
        let got = Got::default();
        let consumer = {
            let got = Arc::clone(&got);
            thread::spawn(move || consume(readers, &bell, &taken, keep.then_some(&got)))
        };
        for spec in specs {
            manager.start(spec, None).unwrap();
        }
        Self { manager, got, shutdown, site, ledger, consumer: Some(consumer), keep }
    }

    /// Waits until the condition holds, or fails after a minute.
    pub(crate) fn wait_until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let begin = clock::instant();
        while !holds(self) {
            assert!(begin.elapsed() < Duration::from_secs(60), "timed out: {what}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let snapshot = self.ledger.snapshot();
        assert!(snapshot.holds(), "CONS-1: {snapshot:?}");
        snapshot
    }

    /// Ends the pipeline. Verifies that no event is held and that all forwarded ones were kept.
    pub(crate) fn end(mut self) -> Snapshot {
        self.manager.join();
        self.consumer.take().unwrap().join().unwrap();
        let snapshot = self.snapshot();
        assert_eq!(snapshot.total.held, 0);
        if self.keep {
            assert_eq!(snapshot.total.forwarded, self.got.lock().unwrap().len() as u64);
        }
        snapshot
    }

    /// The value at a JSON pointer of every event, in order.
    pub(crate) fn texts(&self, pointer: &str) -> Vec<String> {
        let got = self.got.lock().unwrap();
        let text = |v: &serde_json::Value| {
            v.pointer(pointer)
                .map_or(String::new(), |v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
        };
        got.iter().map(|(_, event)| text(event)).collect()
    }
}

fn consume(mut readers: Vec<RecordReader>, bell: &Bell, taken: &StageLedger, keep: Option<&Got>) {
    assert!(bell.target().set(thread_waker()).is_ok());
    loop {
        for reader in &mut readers {
            reader.drain(usize::MAX, |record| {
                let collector = record.header().collector;
                taken.add_received(collector, 1);
                if let Some(got) = keep {
                    let mut fields = Vec::new();
                    let json = event_json(&record.event().unwrap().borrowed(&mut fields));
                    got.lock().unwrap().push((collector, json));
                }
                taken.add_forwarded(collector, 1);
                true
            });
        }
        bell.prepare_sleep();
        if readers.iter().all(RecordReader::is_finished) {
            return;
        }
        if readers.iter().all(RecordReader::is_empty) {
            // No timeout: only the sinks' bells wake it, also at the end.
            thread::park();
        }
        bell.cancel_sleep();
    }
}
