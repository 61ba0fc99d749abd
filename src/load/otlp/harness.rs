//! Generator and sink in one process, whose threads are measured apart.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::generator::{self, Accepted, GENERATOR_THREAD, OtlpLoad, RunTimes, Sent, Shared};
use super::sink::{SharedArrivals, Sink};
use super::tally::{Arrivals, Counts, Progress};
use tapio_core::clock;

/// A load to send, and the result of one.
type Job = (OtlpLoad, RunTimes, Shared);
type Outcome = io::Result<Sent>;

/// A sink, and a generator that sends one load at a time.
pub struct OtlpHarness {
    sink: Sink,
    arrivals: SharedArrivals,
    /// To the generator's thread. It lives as long as the harness, so that its CPU time can be read
    /// after a load.
    jobs: SyncSender<Job>,
    outcomes: Receiver<Outcome>,
    run: Option<Run>,
}

struct Run {
    accepted: Arc<Mutex<Accepted>>,
    stop: Arc<AtomicBool>,
    is_running: bool,
}

impl Drop for Run {
    fn drop(&mut self) {
        // Relaxed, paired with the generator's load: no other data depends on the flag.
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl OtlpHarness {
    /// Starts the sink and the generator's thread.
    ///
    /// # Errors
    /// When no port can be bound or no thread started.
    pub fn start() -> io::Result<Self> {
        let arrivals = Arc::new(Mutex::new(Arrivals::new(0..0).map_err(io::Error::other)?));
        let (jobs, orders) = sync_channel::<Job>(1);
        let (results, outcomes) = sync_channel(1);
        std::thread::Builder::new().name(GENERATOR_THREAD.into()).spawn(move || {
            for (load, times, shared) in orders {
                if results.send(generator::run(&load, times, shared)).is_err() {
                    return;
                }
            }
        })?;
        let sink = Sink::start(Arc::clone(&arrivals))?;
        Ok(Self { sink, arrivals, jobs, outcomes, run: None })
    }

    /// The sink's port.
    #[must_use]
    pub fn sink_port(&self) -> u16 {
        self.sink.port()
    }

    /// Starts a load; the counts begin at zero. Returns its times.
    ///
    /// # Errors
    /// When the load before it failed, or the generator has ended.
    pub fn load(&mut self, load: &OtlpLoad) -> io::Result<RunTimes> {
        self.finish()?;
        let times = RunTimes::of(load);
        *self.arrivals.lock().unwrap_or_else(PoisonError::into_inner) =
            Arrivals::new(times.window()).map_err(io::Error::other)?;
        let shared = Shared {
            arrivals: Arc::clone(&self.arrivals),
            accepted: Arc::default(),
            stop: Arc::default(),
        };
        let (accepted, stop) = (Arc::clone(&shared.accepted), Arc::clone(&shared.stop));
        self.jobs.send((load.clone(), times, shared)).map_err(|_| generator_ended())?;
        self.run = Some(Run { accepted, stop, is_running: true });
        Ok(times)
    }

    /// Waits for the end of the load. `None`: none runs.
    ///
    /// # Errors
    /// When the generator failed.
    pub fn finish(&mut self) -> io::Result<Option<Sent>> {
        match &mut self.run {
            Some(run) if run.is_running => run.is_running = false,
            _ => return Ok(None),
        }
        self.outcomes.recv().map_err(|_| generator_ended())?.map(Some)
    }

    /// The counts of the load so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(run) = &self.run else {
            return arrivals.counts(clock::wall_ns(), std::iter::empty());
        };
        let accepted = run.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.counts(clock::wall_ns(), accepted.ranges())
    }

    /// How many distinct records have arrived so far. Unlike [`OtlpHarness::counts`] it doesn't
    /// hold the sink up.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        Progress { at_ns: clock::wall_ns(), unique: arrivals.unique() }
    }

    /// Takes the sink away, or brings it back.
    ///
    /// # Errors
    /// When its port can't be opened again.
    pub fn set_sink_up(&mut self, is_up: bool) -> io::Result<()> {
        self.sink.set_up(is_up)
    }
}

fn generator_ended() -> io::Error {
    io::Error::other("the generator's thread has ended")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn load(port: u16) -> OtlpLoad {
        OtlpLoad {
            port,
            rate: Some(20_000),
            batch_records: 100,
            connections: 2,
            streams: 4,
            match_share: 0.01,
            keys: 10,
            warm_up: Duration::from_millis(100),
            duration: Duration::from_millis(400),
            drain: Duration::from_secs(20),
            retries: true,
        }
    }

    #[test]
    fn everything_offered_arrives_once_and_is_measured() {
        let mut harness = OtlpHarness::start().unwrap();
        let port = harness.sink_port();
        for _ in 0..2 {
            let times = harness.load(&load(port)).unwrap();
            assert_eq!(times.to_ns - times.from_ns, 400_000_000);
            let sent = harness.finish().unwrap().unwrap();
            assert_eq!(
                (sent.offered, sent.accepted, sent.refused),
                (10_000, 10_000, 0),
                "{sent:?}"
            );
            let counts = harness.counts();
            assert_eq!((counts.arrived, counts.unique, counts.missing), (10_000, 10_000, 0));
            assert_eq!((counts.measured, counts.foreign), (8_000, 0), "{counts:?}");
            assert!(counts.latency.max >= counts.latency.p50 && counts.latency.p50 > 0);
        }
        assert_eq!(harness.finish().unwrap(), None);
    }

    #[test]
    fn records_wait_for_a_sink_that_is_away() {
        let mut harness = OtlpHarness::start().unwrap();
        let port = harness.sink_port();
        harness.load(&load(port)).unwrap();
        while harness.counts().unique == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        harness.set_sink_up(false).unwrap();
        let away = Duration::from_millis(700);
        std::thread::sleep(away);
        harness.set_sink_up(true).unwrap();
        let sent = harness.finish().unwrap().unwrap();
        assert_eq!((sent.accepted, sent.unsent), (10_000, 0), "{sent:?}");
        assert!(sent.retries > 0 && !sent.failures.is_empty(), "{sent:?}");
        let counts = harness.counts();
        assert_eq!((counts.unique, counts.missing), (10_000, 0));
        // The schedule went on: the records that were due first have waited longest.
        assert!(counts.latency.max > 200_000_000, "{counts:?}");
    }

    #[test]
    fn records_that_are_not_sent_in_time_count_with_their_wait() {
        let mut harness = OtlpHarness::start().unwrap();
        let slow = OtlpLoad { drain: Duration::ZERO, retries: false, ..load(harness.sink_port()) };
        harness.load(&slow).unwrap();
        while harness.counts().unique == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        harness.set_sink_up(false).unwrap();
        let sent = harness.finish().unwrap().unwrap();
        assert_eq!(sent.offered, 10_000);
        let others = sent.refused + sent.unanswered + sent.unsent;
        assert_eq!(sent.accepted + others, sent.offered, "{sent:?}");
        assert!(others > 0 && sent.retries == 0, "{sent:?}");
        let counts = harness.counts();
        assert_eq!(counts.missing, 0, "those that weren't accepted aren't lost: {counts:?}");
    }
}
