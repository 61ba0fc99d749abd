//! The connection to the bus and its method calls. Every call has a timeout ([`CALL_TIMEOUT`]): a
//! hung bus costs a connection, never the collector.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use zbus::{Connection, Message, MessageStream};

use super::properties::{Properties, UNIT_INTERFACE, path_of_unit, text, texts, typed_interface};
use super::unit::Snapshot;

/// Time limit of a method call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of received messages that wait to be read; the bus queues the others.
const MAX_QUEUED: usize = 1_024;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const OBJECT: &str = "/org/freedesktop/systemd1";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const BUS: &str = "org.freedesktop.DBus";

/// Match rules of the signals to receive. The second one detects a re-executed systemd.
const MATCHES: [&str; 2] = [
    "type='signal',sender='org.freedesktop.systemd1'",
    "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='org.freedesktop.systemd1'",
];

/// Maximum number of units that a search for a failed dependency visits.
const MAX_VISITED: usize = 64;

/// A call failed because of the connection, which is unusable from here on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct ConnectionLost(pub(super) String);

/// A reply; `None` if the object has none.
type CallResult<T> = Result<Option<T>, ConnectionLost>;

/// A unit in the reply of `ListUnits`.
pub(super) struct ListedUnit {
    pub(super) name: String,
    pub(super) is_inactive: bool,
}

/// A unit's properties, from `GetAll`.
pub(super) struct UnitProperties {
    pub(super) snapshot: Snapshot,
    pub(super) control_group: String,
}

/// A connection that is subscribed to systemd's signals. Clones share it.
#[derive(Clone)]
pub(super) struct Bus(Connection);

impl Bus {
    /// Connects and subscribes. The stream has all signals from here on.
    pub(super) async fn connect(address: &str) -> Result<(Self, MessageStream), ConnectionLost> {
        let lost = |e: zbus::Error| ConnectionLost(format!("{address}: {e}"));
        let builder = zbus::connection::Builder::address(address)
            .max_queued(NonZeroUsize::new(MAX_QUEUED).unwrap_or(NonZeroUsize::MIN))
            .method_timeout(CALL_TIMEOUT);
        let connecting = tokio::time::timeout(CALL_TIMEOUT, builder.build());
        let connection = connecting
            .await
            .map_err(|_| ConnectionLost(format!("{address}: no answer within {CALL_TIMEOUT:?}")))?
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
        // systemd sends signals only if a client has subscribed.
        bus.manager("Subscribe", &()).await.map_err(lost)?;
        Ok((bus, stream))
    }

    async fn manager<B>(&self, method: &str, body: &B) -> zbus::Result<Message>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        self.0.call_method(Some(SYSTEMD), OBJECT, Some(MANAGER), method, body).await
    }

    /// Pings systemd.
    pub(super) async fn ping(&self) -> Result<(), ConnectionLost> {
        let peer = Some("org.freedesktop.DBus.Peer");
        let pinged = self.0.call_method(Some(SYSTEMD), OBJECT, peer, "Ping", &()).await;
        pinged.map(|_| ()).map_err(|e| ConnectionLost(format!("systemd doesn't answer: {e}")))
    }

    /// Lists the units that systemd has loaded, except those without a unit file.
    pub(super) async fn list(&self) -> Result<Vec<ListedUnit>, ConnectionLost> {
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
        let lost = |e: zbus::Error| ConnectionLost(format!("ListUnits: {e}"));
        let reply = self.manager("ListUnits", &()).await.map_err(lost)?;
        let body = reply.body();
        let rows: Vec<Row<'_>> = body.deserialize().map_err(lost)?;
        let loaded = rows.iter().filter(|row| row.2 != "not-found");
        Ok(loaded
            .map(|row| ListedUnit { name: row.0.to_owned(), is_inactive: row.3 == "inactive" })
            .collect())
    }

    /// Calls a method of the properties interface. An error reply is `None`; any other error means
    /// that the connection is lost.
    async fn call<B>(&self, path: &str, method: &str, body: &B) -> CallResult<Message>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        match self.0.call_method(Some(SYSTEMD), path, Some(PROPERTIES), method, body).await {
            Ok(reply) => Ok(Some(reply)),
            Err(zbus::Error::MethodError(..) | zbus::Error::FDO(_)) => Ok(None),
            Err(e) => Err(ConnectionLost(format!("{method} of {path}: {e}"))),
        }
    }

    async fn get(&self, path: &str, interface: &str, name: &str) -> CallResult<String> {
        let Some(reply) = self.call(path, "Get", &(interface, name)).await? else {
            return Ok(None);
        };
        let body = reply.body();
        let value: Result<zbus::wire::Variant<'_>, _> = body.deserialize();
        Ok(match value {
            Ok(zbus::wire::Variant::Str(text)) => Some(text.as_str().to_owned()),
            _ => None,
        })
    }

    /// Reads a unit, its type's interface first: the state is then never older than the result.
    pub(super) async fn read(&self, unit: &str) -> CallResult<UnitProperties> {
        let path = path_of_unit(unit);
        let mut read =
            UnitProperties { snapshot: Snapshot::default(), control_group: String::new() };
        if let Some(interface) = typed_interface(unit)
            && let Some(reply) = self.call(&path, "GetAll", &interface).await?
            && let Ok(properties) = reply.body().deserialize::<Properties<'_>>()
        {
            read.snapshot.apply_typed(&properties);
            read.control_group = text(&properties, "ControlGroup").unwrap_or_default().to_owned();
        }
        let Some(reply) = self.call(&path, "GetAll", &UNIT_INTERFACE).await? else {
            return Ok(None);
        };
        let body = reply.body();
        let Ok(properties) = body.deserialize::<Properties<'_>>() else {
            return Ok(None);
        };
        read.snapshot.apply_unit(&properties);
        Ok(Some(read))
    }

    /// The control group of a running unit.
    pub(super) async fn control_group(&self, unit: &str) -> CallResult<String> {
        let Some(interface) = typed_interface(unit) else {
            return Ok(None);
        };
        self.get(&path_of_unit(unit), interface, "ControlGroup").await
    }

    /// The type of a job that exists (`start`, `stop`, `restart`, `reload` …).
    pub(super) async fn job_type(&self, path: &str) -> CallResult<String> {
        self.get(path, "org.freedesktop.systemd1.Job", "JobType").await
    }

    /// The failed unit that prevented this one from starting: the nearest failed one among its
    /// requirements, direct and indirect.
    pub(super) async fn failed_dependency(&self, unit: &str) -> CallResult<String> {
        let mut seen = HashSet::from([unit.to_owned()]);
        let mut level = vec![unit.to_owned()];
        while !level.is_empty() {
            let mut next_level = Vec::new();
            for unit in level {
                for required in self.requirements(&unit).await? {
                    if seen.len() > MAX_VISITED || !seen.insert(required.clone()) {
                        continue;
                    }
                    let state =
                        self.get(&path_of_unit(&required), UNIT_INTERFACE, "ActiveState").await?;
                    match state.as_deref() {
                        Some("failed") => return Ok(Some(required)),
                        Some("active") | None => {}
                        Some(_) => next_level.push(required),
                    }
                }
            }
            level = next_level;
        }
        Ok(None)
    }

    async fn requirements(&self, unit: &str) -> Result<Vec<String>, ConnectionLost> {
        let Some(reply) = self.call(&path_of_unit(unit), "GetAll", &UNIT_INTERFACE).await? else {
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
