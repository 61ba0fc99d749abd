//! Isolation and restart of failing collectors.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tapio_collectors::{Collector, CollectorError, CollectorFactory, Context, Ended, Health};
use tapio_core::clock;
use tapio_core::event::{Event, EventId, Name, Reason, names};
use tapio_core::ring::{OnFull, Route, Router};

use crate::support::pipeline::{Pipeline, Setup};

/// A kind on which the router panics, as a defect in it would.
const DEADLY: Name = names::KERNEL_SYSCALL_ENTER;

/// Panics on an event of the kind [`DEADLY`]; otherwise routes like `OneShard`.
struct PanickingRouter;

impl Router for PanickingRouter {
    fn route(&self, event: &Event<'_>) -> Route {
        assert!(event.kind != DEADLY, "the router panics on this kind");
        Route { visits: 1 }
    }
}

/// Starts collectors whose events are only counted.
fn start(collectors: Vec<(&'static str, OnFull, CollectorFactory)>) -> Pipeline {
    let router = Arc::new(PanickingRouter);
    Pipeline::start_with(Setup { router, keeps_events: false, collectors, ..Setup::default() })
}

/// A collector that runs a function.
struct FnCollector<F>(F);

impl<F: FnMut(&mut Context) -> Result<Ended, CollectorError> + Send> Collector for FnCollector<F> {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        (self.0)(context)
    }
}

fn factory_of<F>(run: F) -> CollectorFactory
where
    F: Fn(&mut Context) -> Result<Ended, CollectorError> + Clone + Send + 'static,
{
    Box::new(move || Box::new(FnCollector(run.clone())))
}

fn offer(context: &mut Context, n: u64, count: u64) {
    for i in n..n + count {
        let id = EventId::from_sequence(context.site.origin, 0, i);
        let event = Event::new(id, i, names::K8S_EVENT, names::K8S);
        assert_eq!(context.sink.offer(&event), Ok(()));
    }
    context.sink.flush();
}

#[test]
fn failures_are_isolated_restarted_and_accounted() {
    const STEADY: u64 = 100_000;
    let starts = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&starts);
    let panics = factory_of(move |context| {
        counted.fetch_add(1, Ordering::Relaxed);
        offer(context, 0, 10);
        panic!("defect in the collector")
    });
    let fails = factory_of(|context| {
        offer(context, 0, 5);
        Err(CollectorError::new("reading the source", "gone"))
    });
    let steady = factory_of(|context| {
        for n in (0..STEADY).step_by(100) {
            offer(context, n, 100);
        }
        Ok(Ended::Finished)
    });
    let idle = factory_of(|context| {
        while !context.shutdown.is_requested() {
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Ended::Stopped)
    });
    let pipeline = start(vec![
        ("panics", OnFull::Wait, panics),
        ("fails", OnFull::Wait, fails),
        ("steady", OnFull::Wait, steady),
        ("idle", OnFull::Drop, idle),
    ]);
    let restarts = |p: &Pipeline| {
        let s = p.manager.status();
        s[0].restarts.min(s[1].restarts)
    };
    pipeline.wait_until("both are restarted twice", |p| restarts(p) >= 2);
    pipeline.wait_until("the steady one finishes", |p| {
        p.manager.status()[2].health == Health::Finished
    });
    let status = pipeline.manager.status();
    assert_eq!(status[0].last_error, "panicked: defect in the collector");
    assert_eq!(status[1].last_error, "reading the source: gone");
    assert_eq!(status[2].restarts + status[3].restarts, 0);
    assert!(!pipeline.manager.is_finished());

    // Shutdown takes less than a second, also for a collector in its backoff.
    let begin = clock::instant();
    pipeline.shutdown.request();
    pipeline.wait_until("all have ended", |p| p.manager.is_finished());
    assert!(begin.elapsed() < Duration::from_secs(1));

    let snapshot = pipeline.finish().snapshot;
    let forwarded: Vec<_> = snapshot.collectors.iter().map(|c| c.forwarded).collect();
    assert_eq!(forwarded[0], 10 * starts.load(Ordering::Relaxed));
    assert!(forwarded[1] >= 15 && forwarded[1].is_multiple_of(5));
    assert_eq!(forwarded[2..], [STEADY, 0]);
    assert!(snapshot.total.dropped.is_empty());
}

#[test]
fn unavailable_collector_is_not_restarted_and_others_continue() {
    let starts = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&starts);
    let lacks = factory_of(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Err(CollectorError::Unavailable("no such kernel".into()))
    });
    let late = factory_of(|context| {
        // Longer than the first backoff, after which a collector would be restarted.
        thread::sleep(Duration::from_millis(300));
        offer(context, 0, 1_000);
        Ok(Ended::Finished)
    });
    let pipeline = start(vec![("lacks", OnFull::Drop, lacks), ("late", OnFull::Wait, late)]);
    pipeline.wait_until("all have ended", |p| p.manager.is_finished());
    let lacking = pipeline.manager.status().remove(0);
    assert_eq!((lacking.health.as_str(), lacking.restarts), ("unavailable", 0));
    assert_eq!(lacking.last_error, "no such kernel");
    assert_eq!(starts.load(Ordering::Relaxed), 1);
    let total = pipeline.end().snapshot.total;
    assert_eq!((total.received, total.forwarded, total.held), (1_000, 1_000, 0));
}

#[test]
fn backoff_grows_with_each_failure() {
    let times = Arc::new(std::sync::Mutex::new(Vec::new()));
    let recorded = Arc::clone(&times);
    let fails = factory_of(move |_| {
        recorded.lock().unwrap().push(clock::instant());
        Err(CollectorError::new("always", "fails"))
    });
    let pipeline = start(vec![("fails", OnFull::Wait, fails)]);
    pipeline.wait_until("three restarts", |p| p.status().restarts >= 3);
    pipeline.end();
    let times = times.lock().unwrap();
    // A sleep can only be too long, so these minimums hold on any machine: 100, 200, 400 ms.
    for (pair, min_ms) in times.windows(2).zip([100, 200, 400]) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(min_ms));
    }
}

#[test]
fn event_that_panics_its_collector_is_counted() {
    let dies = factory_of(|context| {
        offer(context, 0, 3);
        let id = EventId::from_sequence(context.site.origin, 0, 3);
        let deadly = Event::new(id, 3, DEADLY, names::K8S);
        let _ = context.sink.offer(&deadly);
        unreachable!("the router panics")
    });
    let pipeline = start(vec![("dies", OnFull::Wait, dies)]);
    pipeline.wait_until("a restart", |p| p.status().restarts >= 1);
    let total = pipeline.end().snapshot.total;
    assert_eq!(total.dropped[0].1, Reason::CollectorPanic);
    assert_eq!(total.forwarded, 3 * total.dropped[0].2);
}

#[test]
fn collector_that_runs_with_less_is_degraded_until_it_recovers() {
    let recovers = Arc::new(AtomicU64::new(0));
    let recovered = Arc::clone(&recovers);
    let reduced = factory_of(move |context| {
        context.report.degrade("4 of 7 programs rejected");
        while !context.shutdown.is_requested() {
            if recovered.load(Ordering::Relaxed) > 0 {
                context.report.degrade("");
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Ended::Stopped)
    });
    let pipeline = start(vec![("reduced", OnFull::Drop, reduced)]);
    pipeline.wait_until("it is degraded", |p| p.status().health == Health::Degraded);
    assert_eq!(pipeline.status().last_error, "4 of 7 programs rejected");
    assert!(!pipeline.manager.is_finished(), "it runs");
    recovers.store(1, Ordering::Relaxed);
    pipeline.wait_until("it is healthy again", |p| p.status().health == Health::Running);
    assert_eq!(pipeline.status().last_error, "");
}
