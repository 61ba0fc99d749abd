//! Bounds the queries: few run at once, others wait in a line, and beyond the line they are
//! refused. They run on threads with a low weight in the kernel's scheduler, so that ingest goes
//! on.

use std::io;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::storage::{Budget, InvalidParameter};

/// Queries that run at once, at most; on fewer cores, one for each. More would wait for each
/// other's slices, and while one of them holds a lock of the allocator, ingest would wait with it.
const MAX_RUNNING: usize = 4;
/// Queries that wait.
const WAITING: usize = 60;
/// The niceness of the threads: about a tenth of the weight of other threads.
const NICENESS: i32 = 10;

/// Queries that run at once on this machine.
pub(super) fn running() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_RUNNING))
}

/// The work for a page: what a client may wait for, in memory that forty answers may take.
pub(super) fn budget(items: usize) -> Budget {
    Budget { items, bytes: 8 * 1024 * 1024, segments: 64, time: std::time::Duration::from_secs(2) }
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueryError {
    /// A parameter is invalid.
    #[error(transparent)]
    Invalid(#[from] InvalidParameter),
    /// Too many queries wait.
    #[error("{WAITING} queries are waiting already; try again later")]
    Busy,
    /// The storage can't be read.
    #[error("{0}")]
    Failed(String),
}

/// The line of queries.
pub(super) struct QueryLine {
    running: Arc<Semaphore>,
    /// Those that run or wait.
    admitted: Arc<Semaphore>,
}

/// The place of a query that runs.
pub(super) struct Place {
    _running: OwnedSemaphorePermit,
    _admitted: OwnedSemaphorePermit,
}

impl QueryLine {
    /// A line in which this many queries run at once.
    pub(super) fn new(running: usize) -> Self {
        Self {
            running: Arc::new(Semaphore::new(running)),
            admitted: Arc::new(Semaphore::new(running + WAITING)),
        }
    }

    /// Waits until the query may run.
    ///
    /// # Errors
    /// When the line is full.
    pub(super) async fn enter(&self) -> Result<Place, QueryError> {
        let admitted = Arc::clone(&self.admitted).try_acquire_owned();
        let admitted = admitted.map_err(|_| QueryError::Busy)?;
        // Fails only if it is closed, which it never is.
        let running = Arc::clone(&self.running).acquire_owned().await;
        let running = running.map_err(|_| QueryError::Busy)?;
        Ok(Place { _running: running, _admitted: admitted })
    }
}

impl Place {
    /// Runs a query on a thread of its own. The place is free once it has ended, also if its client
    /// is gone before.
    ///
    /// # Errors
    /// The query's error.
    pub(super) async fn run<T: Send + 'static>(
        self,
        query: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, QueryError> {
        let ran = tokio::task::spawn_blocking(move || {
            let _place = self;
            query()
        });
        let ran = ran.await.map_err(|e| QueryError::Failed(e.to_string()))?;
        ran.map_err(|e| QueryError::Failed(e.to_string()))
    }
}

/// Lowers the weight of the calling thread.
pub(super) fn lower_weight() {
    // It may be refused only to raise the weight; without it, queries take more from ingest.
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_beyond_the_line_are_refused_until_one_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let line = Arc::new(QueryLine::new(3));
            let mut running = Vec::new();
            for _ in 0..3 {
                running.push(line.enter().await.unwrap());
            }
            let wait = |_| {
                let line = Arc::clone(&line);
                tokio::spawn(async move { line.enter().await.map(drop).is_ok() })
            };
            let waiting: Vec<_> = (0..WAITING).map(wait).collect();
            tokio::task::yield_now().await;
            let refused = line.enter().await.err().unwrap();
            assert!(matches!(refused, QueryError::Busy));
            assert!(refused.to_string().starts_with("60 queries are waiting"));
            running.pop();
            for waits in waiting {
                assert!(waits.await.unwrap());
            }
            assert!(line.enter().await.is_ok());
        });
    }
}
