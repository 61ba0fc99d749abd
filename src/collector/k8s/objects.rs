//! Kubernetes objects, pruned while they are parsed: fields without a declaration here are skipped,
//! so annotations, environment values, command lines and managed fields are in no value of this
//! program.
//!
//! The format is JSON as in the API reference (`core/v1`, `apps/v1`, `discovery.k8s.io/v1`); every
//! field may be missing.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A text of an object.
pub(super) type Text = Box<str>;

/// A time of the API: RFC 3339, in whole seconds or microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Time {
    /// Nanoseconds since the Unix epoch.
    pub(super) ns: u64,
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Rfc3339;
        impl Visitor<'_> for Rfc3339 {
            type Value = Time;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 time")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Time, E> {
                let time: jiff::Timestamp = text.parse().map_err(E::custom)?;
                // Go's zero time lies before the epoch and means that the field isn't set.
                Ok(Time { ns: u64::try_from(time.as_nanosecond()).unwrap_or(0) })
            }
        }
        from.deserialize_str(Rfc3339)
    }
}

/// Deserializes a list that may be `null`, as Go writes an empty one.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Option::<Vec<T>>::deserialize(from).map(Option::unwrap_or_default)
}

/// Deserializes text that may be `null`.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Text, D::Error> {
    Option::<Text>::deserialize(from).map(Option::unwrap_or_default)
}

/// The keys of a map whose entries are kept.
pub(super) trait Keys {
    const KEYS: &'static [&'static str];
}

/// The labels that the collector reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Labels;
impl Keys for Labels {
    const KEYS: &'static [&'static str] = &[
        "tapio.criticality",
        "app.kubernetes.io/criticality",
        "pod-template-hash",
        "kubernetes.io/service-name",
    ];
}

/// The only annotation that the collector reads; its value is a number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Annotations;
impl Keys for Annotations {
    const KEYS: &'static [&'static str] = &["deployment.kubernetes.io/revision"];
}

/// A map of texts, pruned to the entries of [`Keys::KEYS`].
#[derive(Clone, Debug)]
pub(super) struct PrunedMap<K>(Vec<(&'static str, Text)>, PhantomData<K>);

impl<K> Default for PrunedMap<K> {
    fn default() -> Self {
        Self(Vec::new(), PhantomData)
    }
}

impl<K> PrunedMap<K> {
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| *k == key).map(|(_, v)| &**v)
    }
}

impl<'de, K: Keys> Deserialize<'de> for PrunedMap<K> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entries<K>(PhantomData<K>);
        impl<'de, K: Keys> Visitor<'de> for Entries<K> {
            type Value = PrunedMap<K>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of texts")
            }
            fn visit_unit<E>(self) -> Result<PrunedMap<K>, E> {
                Ok(PrunedMap::default())
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<PrunedMap<K>, M::Error> {
                let mut pruned = PrunedMap::default();
                while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
                    match K::KEYS.iter().find(|k| **k == key) {
                        Some(key) => pruned.0.push((key, map.next_value()?)),
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(pruned)
            }
        }
        from.deserialize_any(Entries(PhantomData))
    }
}

/// A page of a list. Items stay text, so that a bad one doesn't affect the others.
#[derive(Deserialize)]
pub(super) struct List {
    #[serde(default)]
    pub(super) metadata: ListMeta,
    #[serde(default, deserialize_with = "list")]
    pub(super) items: Vec<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListMeta {
    pub(super) resource_version: String,
    #[serde(deserialize_with = "token")]
    pub(super) r#continue: Option<String>,
}

fn token<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Option::<String>::deserialize(from).map(|t| t.filter(|t| !t.is_empty()))
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Owner {
    pub(super) kind: Text,
    pub(super) name: Text,
    pub(super) uid: Text,
    pub(super) controller: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ObjectMeta {
    pub(super) uid: Text,
    pub(super) name: Text,
    #[serde(deserialize_with = "text")]
    pub(super) namespace: Text,
    pub(super) resource_version: Text,
    pub(super) generation: i64,
    pub(super) creation_timestamp: Option<Time>,
    pub(super) deletion_timestamp: Option<Time>,
    pub(super) deletion_grace_period_seconds: Option<u64>,
    #[serde(deserialize_with = "list")]
    pub(super) finalizers: Vec<Text>,
    #[serde(deserialize_with = "list")]
    pub(super) owner_references: Vec<Owner>,
    pub(super) labels: PrunedMap<Labels>,
    pub(super) annotations: PrunedMap<Annotations>,
}

impl ObjectMeta {
    /// The owner that creates and deletes it.
    pub(super) fn controller(&self) -> Option<&Owner> {
        self.owner_references.iter().find(|o| o.controller)
    }

    pub(super) fn criticality(&self) -> Option<&str> {
        let labels = &self.labels;
        labels.get("tapio.criticality").or_else(|| labels.get("app.kubernetes.io/criticality"))
    }
}

/// Only an object's metadata: identity and owners.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Owned {
    pub(super) metadata: ObjectMeta,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Condition {
    pub(super) r#type: Text,
    pub(super) status: Text,
    #[serde(deserialize_with = "text")]
    pub(super) reason: Text,
    #[serde(deserialize_with = "text")]
    pub(super) message: Text,
    pub(super) last_transition_time: Option<Time>,
    pub(super) last_update_time: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    pub(super) metadata: ObjectMeta,
    pub(super) spec: PodSpec,
    pub(super) status: PodStatus,
    /// The topmost owner, as kind and name; resolved after parsing.
    #[serde(skip)]
    pub(super) workload: Option<(Text, Text)>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodSpec {
    #[serde(deserialize_with = "text")]
    pub(super) node_name: Text,
    pub(super) host_network: bool,
    #[serde(deserialize_with = "list")]
    pub(super) containers: Vec<Named>,
    #[serde(deserialize_with = "list")]
    pub(super) init_containers: Vec<Named>,
    #[serde(deserialize_with = "list")]
    pub(super) ephemeral_containers: Vec<Named>,
}

/// Only a container's name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Named {
    pub(super) name: Text,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodStatus {
    pub(super) phase: Text,
    pub(super) reason: Text,
    pub(super) message: Text,
    #[serde(rename = "podIP")]
    pub(super) pod_ip: Text,
    #[serde(rename = "podIPs", deserialize_with = "list")]
    pub(super) pod_ips: Vec<Ip>,
    #[serde(deserialize_with = "list")]
    pub(super) conditions: Vec<Condition>,
    #[serde(deserialize_with = "list")]
    pub(super) init_container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "list")]
    pub(super) container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "list")]
    pub(super) ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ip {
    pub(super) ip: Text,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerStatus {
    pub(super) name: Text,
    pub(super) image: Text,
    #[serde(rename = "containerID", deserialize_with = "text")]
    pub(super) container_id: Text,
    pub(super) restart_count: u32,
    pub(super) state: State,
    pub(super) last_state: State,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct State {
    pub(super) waiting: Option<Waiting>,
    pub(super) running: Option<Running>,
    pub(super) terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Waiting {
    pub(super) reason: Text,
    pub(super) message: Text,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Running {
    pub(super) started_at: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Terminated {
    pub(super) exit_code: i32,
    pub(super) reason: Text,
    pub(super) started_at: Option<Time>,
    pub(super) finished_at: Option<Time>,
    #[serde(rename = "containerID", deserialize_with = "text")]
    pub(super) container_id: Text,
}

/// A container's id without the runtime's prefix, as in `containerd://8a4e…`.
pub(super) fn bare_id(id: &str) -> &str {
    id.rsplit_once("://").map_or(id, |(_, id)| id)
}

impl Pod {
    pub(super) fn condition(&self, r#type: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|c| &*c.r#type == r#type)
    }

    /// All containers: init, then regular, then ephemeral ones.
    pub(super) fn containers(&self) -> impl Iterator<Item = &ContainerStatus> {
        let status = &self.status;
        let all = status.init_container_statuses.iter().chain(&status.container_statuses);
        all.chain(&status.ephemeral_container_statuses)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Node {
    pub(super) metadata: ObjectMeta,
    pub(super) status: NodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NodeStatus {
    #[serde(deserialize_with = "list")]
    pub(super) conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Deployment {
    pub(super) metadata: ObjectMeta,
    pub(super) status: DeploymentStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DeploymentStatus {
    pub(super) observed_generation: i64,
    #[serde(deserialize_with = "list")]
    pub(super) conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ObjectRef {
    pub(super) kind: Text,
    #[serde(deserialize_with = "text")]
    pub(super) namespace: Text,
    pub(super) name: Text,
    #[serde(deserialize_with = "text")]
    pub(super) uid: Text,
    #[serde(deserialize_with = "text")]
    pub(super) field_path: Text,
}

/// An Event: the report of a Kubernetes component about an object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Event {
    pub(super) metadata: ObjectMeta,
    pub(super) involved_object: ObjectRef,
    pub(super) reason: Text,
    pub(super) message: Text,
    pub(super) r#type: Text,
    pub(super) source: EventSource,
    #[serde(deserialize_with = "text")]
    pub(super) reporting_component: Text,
    #[serde(deserialize_with = "text")]
    pub(super) reporting_instance: Text,
    pub(super) first_timestamp: Option<Time>,
    pub(super) last_timestamp: Option<Time>,
    pub(super) event_time: Option<Time>,
    pub(super) count: Option<i64>,
    pub(super) series: Option<Series>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct EventSource {
    pub(super) component: Text,
    pub(super) host: Text,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Series {
    pub(super) count: Option<i64>,
    pub(super) last_observed_time: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Service {
    pub(super) metadata: ObjectMeta,
    pub(super) spec: ServiceSpec,
    pub(super) status: ServiceStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServiceSpec {
    #[serde(rename = "clusterIP", deserialize_with = "text")]
    pub(super) cluster_ip: Text,
    #[serde(rename = "clusterIPs", deserialize_with = "list")]
    pub(super) cluster_ips: Vec<Text>,
    #[serde(rename = "externalIPs", deserialize_with = "list")]
    pub(super) external_ips: Vec<Text>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServiceStatus {
    pub(super) load_balancer: LoadBalancer,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LoadBalancer {
    #[serde(deserialize_with = "list")]
    pub(super) ingress: Vec<Ip>,
}

/// An EndpointSlice (`endpoints`), or an Endpoints object of older clusters (`subsets`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Endpoints {
    pub(super) metadata: ObjectMeta,
    #[serde(deserialize_with = "list")]
    pub(super) endpoints: Vec<Endpoint>,
    #[serde(deserialize_with = "list")]
    pub(super) subsets: Vec<Subset>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Endpoint {
    #[serde(deserialize_with = "list")]
    pub(super) addresses: Vec<Text>,
    pub(super) target_ref: Option<ObjectRef>,
    #[serde(deserialize_with = "text")]
    pub(super) node_name: Text,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Subset {
    #[serde(deserialize_with = "list")]
    pub(super) addresses: Vec<SubsetAddress>,
    #[serde(deserialize_with = "list")]
    pub(super) not_ready_addresses: Vec<SubsetAddress>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SubsetAddress {
    pub(super) ip: Text,
    pub(super) target_ref: Option<ObjectRef>,
    #[serde(deserialize_with = "text")]
    pub(super) node_name: Text,
}
