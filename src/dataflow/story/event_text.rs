//! Texts and figures of one event, as stories and lifecycles use them.

use std::collections::BTreeSet;

use crate::evidence::{AffectedEntity, EntityKind, MAX_AFFECTED};
use crate::rules::field::value_text;
use tapio_core::event::{ArchivedEvent, Name, Value, names};

/// Characters of a message in a story.
const MAX_SUMMARY: usize = 300;

/// The id that the event's source gave it, as text; empty for none.
pub(crate) fn label(event: &ArchivedEvent<'_>) -> String {
    event.attribute(names::TAPIO_EVENT_ID).map(value_text).unwrap_or_default()
}

/// Cuts a message to the length it has in a story.
pub(crate) fn shortened(message: &str) -> &str {
    if message.len() <= MAX_SUMMARY {
        return message;
    }
    let end = message.char_indices().nth(MAX_SUMMARY).map_or(message.len(), |(at, _)| at);
    &message[..end]
}

/// One line for a person: the event's message, or its kind and the affected entities.
pub(crate) fn summary(event: &ArchivedEvent<'_>) -> String {
    if !event.message.is_empty() {
        return shortened(&event.message).to_owned();
    }
    let mut entities = BTreeSet::new();
    affected(event, &mut entities);
    let entities: Vec<String> = entities.iter().map(AffectedEntity::to_string).collect();
    format!("{} {}", event.kind_name(), entities.join(", ")).trim_end().to_owned()
}

/// Adds the entities that the event is about, up to [`MAX_AFFECTED`].
pub(crate) fn affected(event: &ArchivedEvent<'_>, into: &mut BTreeSet<AffectedEntity>) {
    let text = |name| event.text(name).filter(|t| !t.is_empty());
    // Most events are about an entity that is known: its name isn't built again.
    let mut add = |kind, parts: &[&str]| {
        let is_it = |known: &AffectedEntity| known.kind == kind && is_joined(&known.name, parts);
        if into.len() < MAX_AFFECTED && !into.iter().any(is_it) {
            into.insert(AffectedEntity::new(kind, parts.concat()));
        }
    };
    if let Some(unit) = text(names::SYSTEMD_UNIT) {
        add(EntityKind::Unit, &[unit]);
    }
    match (text(names::K8S_POD_NAME), text(names::K8S_POD_UID)) {
        (Some(pod), _) => match text(names::K8S_NAMESPACE_NAME) {
            Some(namespace) => add(EntityKind::Pod, &[namespace, "/", pod]),
            None => add(EntityKind::Pod, &[pod]),
        },
        (None, Some(uid)) => add(EntityKind::Pod, &[uid]),
        (None, None) => {}
    }
    if let Some(service) = text(names::SERVICE_NAME) {
        add(EntityKind::Service, &[service]);
    }
    if let (Some(peer), true) =
        (text(names::NETWORK_PEER_ADDRESS), is_failed_connection(event.kind_name()))
    {
        let port = event.attribute(names::NETWORK_PEER_PORT).map(value_text).unwrap_or_default();
        add(EntityKind::Endpoint, &[peer, ":", &port]);
    }
    if let Some(name) = text(names::PROCESS_EXECUTABLE_NAME) {
        add(EntityKind::Process, &[name]);
    }
}

/// Whether a text is these parts, one after the other.
fn is_joined(text: &str, parts: &[&str]) -> bool {
    let rest = parts.iter().try_fold(text, |rest, part| rest.strip_prefix(part));
    rest.is_some_and(str::is_empty)
}

/// Whether an event of this kind reports a failed connection.
fn is_failed_connection(kind: Name) -> bool {
    [names::KERNEL_TCP_REFUSED, names::KERNEL_TCP_TIMEOUT, names::KERNEL_TCP_RESET].contains(&kind)
}

/// The number of failed connections that an event reports: one, or the kernel's count of failed
/// `connect` calls.
pub(crate) fn failed_connections(event: &ArchivedEvent<'_>) -> u64 {
    let kind = event.kind_name();
    if kind == names::KERNEL_SYSCALL_ERROR_RATE {
        return match (event.text(names::TAPIO_SYSCALL_NAME), event.attribute(names::TAPIO_COUNT)) {
            (Some("connect"), Some(Value::Int(count))) => u64::try_from(count).unwrap_or(0),
            _ => 0,
        };
    }
    u64::from(is_failed_connection(kind))
}

/// Whether a connection's peer is known and isn't on the loopback: a client
/// outside the node depends on it.
pub(crate) fn has_outside_peer(event: &ArchivedEvent<'_>) -> bool {
    let peer =
        event.text(names::NETWORK_PEER_ADDRESS).and_then(|a| a.parse::<std::net::IpAddr>().ok());
    peer.is_some_and(|a| !a.is_loopback())
}
