//! A server of the `Ingest` service that behaves as a test wants it to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use tapio_wire::proto::{Ack, EventBatch, Refusal};
use tapio_wire::{Access, AccessConfig, Caller, DoorListener, IngestServer, bind, grpc_server};
use tokio_stream::StreamExt as _;
use tonic::codegen::BoxStream;
use tonic::{Status, Streaming};

/// The server's reply to a batch.
pub(crate) enum Reply {
    Store,
    /// Stores it, and grants this credit.
    Grant(u64),
    Refuse(&'static str),
    End(Status),
    /// No answer, to anything.
    Silence,
}

/// Everything that the server has received.
#[derive(Default)]
pub(crate) struct Seen {
    /// Stored events' ids, and how often.
    pub(crate) events: BTreeMap<Vec<u8>, u32>,
    pub(crate) stories: u32,
    /// When each stream was opened, and the size of its first batches.
    pub(crate) streams: Vec<Instant>,
    pub(crate) batches: Vec<EventBatch>,
}

type Script = dyn Fn(usize, &EventBatch) -> Reply + Send + Sync;

struct Handler {
    script: Arc<Script>,
    streams: AtomicUsize,
    seen: Arc<Mutex<Seen>>,
}

/// A running server; dropping it ends it.
pub(crate) struct ScriptedServer {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl tapio_wire::IngestHandler for Handler {
    fn open(&self, mut batches: Streaming<Bytes>, _: Caller) -> Result<BoxStream<Ack>, Status> {
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        self.seen.lock().unwrap().streams.push(tapio_core::clock::instant());
        let (script, seen) = (Arc::clone(&self.script), Arc::clone(&self.seen));
        let (to, acks) = tokio::sync::mpsc::channel(64);
        tokio::spawn(async move {
            while let Some(Ok(bytes)) = batches.next().await {
                let batch = EventBatch::decode(bytes).unwrap();
                let through = batch.first_sequence + u64::from(batch.count);
                let mut ack = Ack { epoch: batch.epoch, through, ..Ack::default() };
                match script(number, &batch) {
                    reply @ (Reply::Store | Reply::Grant(_)) => {
                        if let Reply::Grant(credit_bytes) = reply {
                            ack.credit_bytes = credit_bytes;
                        }
                        let mut seen = seen.lock().unwrap();
                        for event in &batch.events {
                            *seen.events.entry(event.id.clone()).or_default() += 1;
                        }
                        seen.stories += batch.stories.len() as u32;
                        seen.batches.push(batch);
                    }
                    Reply::Refuse(cause) => ack.refused.push(Refusal {
                        first_sequence: batch.first_sequence,
                        count: batch.count,
                        cause: cause.into(),
                    }),
                    Reply::End(status) => {
                        let _ = to.send(Err(status)).await;
                        return;
                    }
                    Reply::Silence => std::future::pending::<()>().await,
                }
                if to.send(Ok(ack)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Box::pin(tokio_stream::wrappers::ReceiverStream::new(acks)))
    }
}

impl ScriptedServer {
    /// Starts a server at an address. `script` gets the number of the stream and the batch.
    pub(crate) fn start(
        address: SocketAddr,
        script: impl Fn(usize, &EventBatch) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let handler = Handler {
            script: Arc::new(script),
            streams: AtomicUsize::new(0),
            seen: Arc::clone(&seen),
        };
        let listener = bind("test", &address.into()).unwrap();
        let address = listener.address().unwrap().tcp().unwrap();
        let (end, ended) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let access = Access::grpc("test", &AccessConfig::default(), |_, _| None).unwrap();
                let listener = DoorListener::new(listener, Arc::clone(&access)).unwrap();
                let serving = grpc_server(access)
                    .add_service(IngestServer::new(handler))
                    .serve_with_incoming(listener);
                tokio::select! {
                    _ = serving => {}
                    _ = ended => {}
                }
            });
            runtime.shutdown_timeout(Duration::from_millis(10));
        });
        Self { address, seen, end: Some(end), thread: Some(thread) }
    }

    /// Reads what the server has seen.
    pub(crate) fn seen<T>(&self, read: impl FnOnce(&Seen) -> T) -> T {
        read(&self.seen.lock().unwrap())
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
