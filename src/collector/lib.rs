//! The collectors: each reads one source and emits its events. A collector is a file or folder and
//! a row in `table.rs`. It runs on a thread of its own, supervised by the
//! [`CollectorManager`](runtime::CollectorManager), and writes its events into a
//! [`Sink`](tapio_core::ring::Sink).
//!
//! | module | purpose |
//! | --- | --- |
//! | `table` | [`CollectorsConfig`](table::CollectorsConfig): every collector, one row each |
//! | `runtime` | threads, supervision, health, cursors |
//! | `events` | event builder, entity enrichment, filters |
//! | `cni_report` | what the plugin `tapio-cni` sends to the collector `cni` |
//! | the others | one collector each |

pub mod cni;
pub mod cni_report;
pub mod container;
pub mod ebpf;
pub mod events;
pub mod journal;
pub mod jsonl;
pub mod k8s;
pub mod kmsg;
pub mod node;
pub mod otlp;
pub mod receiver;
pub mod runtime;
pub mod synthetic;
pub mod systemd;
pub mod table;

pub use events::Filter;
pub use journal::Config as JournalConfig;
pub use runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, CollectorManager, CollectorSpec,
    CollectorStatus, Confinement, Context, Ended, Health, LiveRate, Needs, Rights, Site,
    StatusNote, StatusReport,
};
pub use table::{CollectorsConfig, Row};
