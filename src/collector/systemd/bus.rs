//! The connection to the bus and what is asked over it. Every call ends within [`PATIENCE`]: a bus
//! that hangs costs a connection, never the collector.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use zbus::{Connection, Message, MessageStream};

use super::properties::{Properties, UNIT, path_of_unit, text, texts, typed_interface};
use super::unit::Snapshot;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Messages that wait to be read: past it the bus is left to queue them.
const QUEUED: usize = 1_024;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const OBJECT: &str = "/org/freedesktop/systemd1";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const BUS: &str = "org.freedesktop.DBus";

/// What is listened to. The second is how a systemd that executed itself anew shows.
const MATCHES: [&str; 2] = [
    "type='signal',sender='org.freedesktop.systemd1'",
    "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='org.freedesktop.systemd1'",
];

/// Units a search for the one that failed looks at.
const MOST_LOOKED_AT: usize = 64;

/// A question that failed: the connection is of no use any more.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Lost(pub(super) String);

/// An answer, or that the object doesn't have one.
type Answer<T> = Result<Option<T>, Lost>;

/// A unit as `ListUnits` has it.
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) is_inactive: bool,
}

/// What `GetAll` says of a unit.
pub(super) struct Read {
    pub(super) snapshot: Snapshot,
    pub(super) control_group: String,
}

/// A connection on which systemd's signals arrive. Clones share it.
#[derive(Clone)]
pub(super) struct Bus(Connection);

impl Bus {
    /// Connects and subscribes. What happens from here on is in the stream.
    pub(super) async fn connect(address: &str) -> Result<(Self, MessageStream), Lost> {
        let lost = |e: zbus::Error| Lost(format!("{address}: {e}"));
        let builder = zbus::connection::Builder::address(address)
            .max_queued(NonZeroUsize::new(QUEUED).unwrap_or(NonZeroUsize::MIN))
            .method_timeout(PATIENCE);
        let connecting = tokio::time::timeout(PATIENCE, builder.build());
        let connection = connecting
            .await
            .map_err(|_| Lost(format!("{address}: no answer within {PATIENCE:?}")))?
            .map_err(lost)?;
        let stream = MessageStream::from(&connection);
        for rule in MATCHES {
            let added = connection.call_method(
                Some(BUS),
                "/org/freedesktop/DBus",
                Some(BUS),
                "AddMatch",
                &rule,
            );
            added.await.map_err(lost)?;
        }
        let bus = Self(connection);
        // Without a subscriber systemd sends no signals.
        bus.manager("Subscribe", &()).await.map_err(lost)?;
        Ok((bus, stream))
    }

    async fn manager<B>(&self, method: &str, body: &B) -> zbus::Result<Message>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        self.0.call_method(Some(SYSTEMD), OBJECT, Some(MANAGER), method, body).await
    }

    /// Whether systemd still answers.
    pub(super) async fn ping(&self) -> Result<(), Lost> {
        let peer = Some("org.freedesktop.DBus.Peer");
        let pinged = self.0.call_method(Some(SYSTEMD), OBJECT, peer, "Ping", &()).await;
        pinged.map(|_| ()).map_err(|e| Lost(format!("systemd doesn't answer: {e}")))
    }

    /// The units that systemd has loaded and found.
    pub(super) async fn list(&self) -> Result<Vec<Listed>, Lost> {
        type Row<'a> = (
            &'a str,
            &'a str,
            &'a str,
            &'a str,
            &'a str,
            &'a str,
            zbus::ObjectPath<'a>,
            u32,
            &'a str,
            zbus::ObjectPath<'a>,
        );
        let lost = |e: zbus::Error| Lost(format!("ListUnits: {e}"));
        let reply = self.manager("ListUnits", &()).await.map_err(lost)?;
        let body = reply.body();
        let rows: Vec<Row<'_>> = body.deserialize().map_err(lost)?;
        let loaded = rows.iter().filter(|row| row.2 != "not-found");
        Ok(loaded
            .map(|row| Listed { name: row.0.to_owned(), is_inactive: row.3 == "inactive" })
            .collect())
    }

    /// Asks for something; an error that the object answered with is no answer, any other one says
    /// that the connection is lost.
    async fn ask<B>(&self, path: &str, method: &str, body: &B) -> Answer<Message>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        match self.0.call_method(Some(SYSTEMD), path, Some(PROPERTIES), method, body).await {
            Ok(reply) => Ok(Some(reply)),
            Err(zbus::Error::MethodError(..) | zbus::Error::FDO(_)) => Ok(None),
            Err(e) => Err(Lost(format!("{method} of {path}: {e}"))),
        }
    }

    async fn get(&self, path: &str, interface: &str, name: &str) -> Answer<String> {
        let Some(reply) = self.ask(path, "Get", &(interface, name)).await? else {
            return Ok(None);
        };
        let body = reply.body();
        let value: Result<zbus::wire::Variant<'_>, _> = body.deserialize();
        Ok(match value {
            Ok(zbus::wire::Variant::Str(text)) => Some(text.as_str().to_owned()),
            _ => None,
        })
    }

    /// Reads a unit, its type's interface first: so the state is never older than the result.
    pub(super) async fn read(&self, unit: &str) -> Answer<Read> {
        let path = path_of_unit(unit);
        let mut read = Read { snapshot: Snapshot::default(), control_group: String::new() };
        if let Some(interface) = typed_interface(unit)
            && let Some(reply) = self.ask(&path, "GetAll", &interface).await?
            && let Ok(properties) = reply.body().deserialize::<Properties<'_>>()
        {
            read.snapshot.take_typed(&properties);
            read.control_group = text(&properties, "ControlGroup").unwrap_or_default().to_owned();
        }
        let Some(reply) = self.ask(&path, "GetAll", &UNIT).await? else {
            return Ok(None);
        };
        let body = reply.body();
        let Ok(properties) = body.deserialize::<Properties<'_>>() else {
            return Ok(None);
        };
        read.snapshot.take_unit(&properties);
        Ok(Some(read))
    }

    /// The control group of a unit that runs.
    pub(super) async fn control_group(&self, unit: &str) -> Answer<String> {
        let Some(interface) = typed_interface(unit) else {
            return Ok(None);
        };
        self.get(&path_of_unit(unit), interface, "ControlGroup").await
    }

    /// What a job does (`start`, `stop`, `restart`, `reload` …), as long as it is there.
    pub(super) async fn job_type(&self, path: &str) -> Answer<String> {
        self.get(path, "org.freedesktop.systemd1.Job", "JobType").await
    }

    /// The unit whose failure kept this one from being started: among those that it requires, and those
    /// that these require, the nearest one that failed.
    pub(super) async fn failed_dependency(&self, unit: &str) -> Answer<String> {
        let mut seen = HashSet::from([unit.to_owned()]);
        let mut near = vec![unit.to_owned()];
        while !near.is_empty() {
            let mut far = Vec::new();
            for unit in near {
                for needed in self.required(&unit).await? {
                    if seen.len() > MOST_LOOKED_AT || !seen.insert(needed.clone()) {
                        continue;
                    }
                    let state = self.get(&path_of_unit(&needed), UNIT, "ActiveState").await?;
                    match state.as_deref() {
                        Some("failed") => return Ok(Some(needed)),
                        Some("active") | None => {}
                        Some(_) => far.push(needed),
                    }
                }
            }
            near = far;
        }
        Ok(None)
    }

    async fn required(&self, unit: &str) -> Result<Vec<String>, Lost> {
        let Some(reply) = self.ask(&path_of_unit(unit), "GetAll", &UNIT).await? else {
            return Ok(Vec::new());
        };
        let body = reply.body();
        let Ok(properties) = body.deserialize::<Properties<'_>>() else {
            return Ok(Vec::new());
        };
        let lists = ["Requires", "BindsTo", "Requisite"];
        Ok(lists.iter().flat_map(|list| texts(&properties, list)).collect())
    }
}
