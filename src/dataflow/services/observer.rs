//! A shard's part: facts from the spans, log records and connections of its home entities.

use std::collections::HashSet;

use super::fact::{InstanceNames, Key, LogFact, ServiceFact, SpanFact, key_hasher};
use super::template::{template_key, template_text};
use tapio_core::event::{ArchivedEvent, Name, Severity, Value, names};

/// Texts whose keys were sent; then all are sent again.
const MAX_SENT: usize = 65_536;
/// The longest text that is sent.
const MAX_TEXT_BYTES: usize = 160;

/// Makes facts from events.
pub(crate) struct ServiceObserver {
    pub(super) hasher: ahash::RandomState,
    sent: HashSet<Key, ahash::RandomState>,
    pub(super) facts: Vec<ServiceFact>,
}

impl ServiceObserver {
    pub(crate) fn new() -> Self {
        Self { hasher: key_hasher(), sent: HashSet::default(), facts: Vec::new() }
    }

    /// Processes an event; those that are neither spans nor log records of a service nor about a
    /// TCP connection cost a comparison.
    pub(crate) fn process(&mut self, event: &ArchivedEvent<'_>) {
        let kind = event.kind_name();
        if kind == names::OTLP_SPAN {
            self.span(event);
        } else if kind == names::OTLP_LOG {
            self.log(event);
        } else if is_connection(kind) {
            self.connection(event);
        }
    }

    fn span(&mut self, event: &ArchivedEvent<'_>) {
        let Some(instance) = self.instance(event) else { return };
        let Some(duration_ns) = duration(event) else { return };
        let peer = peer(event);
        let operation = self.hasher.hash_one((&*event.message, peer));
        self.text(operation, || {
            let peer = peer.map_or_else(String::new, |peer| format!(" {peer}"));
            format!("{}{peer}", event.message).chars().take(MAX_TEXT_BYTES).collect()
        });
        let parent = event.attribute(names::TAPIO_SPAN_PARENT_ID).and_then(|id| match id {
            Value::Str(id) => u64::from_str_radix(id, 16).ok(),
            _ => None,
        });
        let trace = trace_bits(event);
        self.facts.push(ServiceFact::Span(SpanFact {
            event: event.event_id(),
            start_ns: event.time(),
            duration_ns,
            instance,
            operation,
            span: u64::from_be_bytes(event.span_id) ^ trace,
            parent: parent.map_or(0, |parent| parent ^ trace),
            trace,
            is_work: matches!(
                event.attribute(names::TAPIO_SPAN_KIND),
                Some(Value::Str("server" | "internal" | "consumer"))
            ),
            has_failed: event.severity() >= Severity::ERROR,
        }));
    }

    fn log(&mut self, event: &ArchivedEvent<'_>) {
        let Some(instance) = self.instance(event) else { return };
        let template = template_key(&event.message, &self.hasher);
        self.text(template, || template_text(&event.message));
        let span = u64::from_be_bytes(event.span_id);
        self.facts.push(ServiceFact::Log(LogFact {
            event: event.event_id(),
            time_ns: event.time(),
            instance,
            template,
            span: if span == 0 { 0 } else { span ^ trace_bits(event) },
            trace: trace_bits(event),
            severity: event.severity(),
        }));
    }

    /// The key of the service and its pod.
    fn instance(&mut self, event: &ArchivedEvent<'_>) -> Option<Key> {
        let service = event.text(names::SERVICE_NAME)?;
        let pod = event.text(names::K8S_POD_NAME).unwrap_or("");
        let key = self.hasher.hash_one((service, pod));
        if self.is_new(key) {
            let namespace = event.text(names::K8S_NAMESPACE_NAME).unwrap_or("").into();
            let (service, pod) = (service.into(), pod.into());
            let names = InstanceNames { service, pod, namespace, ..InstanceNames::default() };
            self.facts.push(ServiceFact::Instance { key, names: Box::new(names) });
        }
        self.claim(event, key);
        Some(key)
    }

    fn text(&mut self, key: Key, text: impl FnOnce() -> String) {
        if self.is_new(key) {
            self.facts.push(ServiceFact::Text { key, text: text().into() });
        }
    }

    pub(super) fn is_new(&mut self, key: Key) -> bool {
        if self.sent.len() >= MAX_SENT {
            self.sent.clear();
        }
        self.sent.insert(key)
    }

    /// Lets all names be sent again with the events to come: the receiver may have forgotten them.
    pub(crate) fn repeat_names(&mut self) {
        self.sent.clear();
    }

    /// The facts since the last call.
    pub(crate) fn take(&mut self) -> Vec<ServiceFact> {
        // The next ones will be about as many; without any, nothing is allocated.
        let next = Vec::with_capacity(self.facts.len());
        std::mem::replace(&mut self.facts, next)
    }

    /// The number of facts that wait.
    pub(crate) fn len(&self) -> usize {
        self.facts.len()
    }
}

/// Whether a kind is about a TCP connection.
fn is_connection(kind: Name) -> bool {
    matches!(
        kind,
        names::KERNEL_TCP_CONNECT
            | names::KERNEL_TCP_ACCEPT
            | names::KERNEL_TCP_CLOSE
            | names::KERNEL_TCP_REFUSED
            | names::KERNEL_TCP_RESET
            | names::KERNEL_TCP_RETRANSMIT
            | names::KERNEL_TCP_TIMEOUT
    )
}

/// The callee that a client names. SDKs name all requests of a method alike (`GET`), and what each
/// callee does would be mixed.
fn peer<'a>(event: &'a ArchivedEvent<'_>) -> Option<&'a str> {
    let is_call =
        matches!(event.attribute(names::TAPIO_SPAN_KIND), Some(Value::Str("client" | "producer")));
    let text = |key: Name| match event.attribute(key) {
        Some(Value::Str(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let named = || [names::PEER_SERVICE, names::SERVER_ADDRESS, names::NET_PEER_NAME].map(text);
    let of_url = || [names::URL_FULL, names::HTTP_URL].map(|key| text(key).and_then(host));
    is_call.then(|| named().into_iter().chain(of_url()).flatten().next()).flatten()
}

/// The host of a URL.
fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Some(host).filter(|host| !host.is_empty())
}

fn duration(event: &ArchivedEvent<'_>) -> Option<u64> {
    match event.attribute(names::TAPIO_SPAN_DURATION_NS)? {
        Value::Int(duration_ns) => u64::try_from(duration_ns).ok(),
        _ => None,
    }
}

/// Part of the trace's id: ids of spans are unique in their trace only.
fn trace_bits(event: &ArchivedEvent<'_>) -> u64 {
    event.incoming_trace().unwrap_or_default().low_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_of_a_url_has_no_credentials() {
        for (url, expected) in [
            ("http://mail.shop:8080/send?x=1", Some("mail.shop:8080")),
            ("https://u:p@db.shop", Some("db.shop")),
            ("http://[::1]:80/a", Some("[::1]:80")),
            ("/relative", None),
            ("http:///x", None),
        ] {
            assert_eq!(host(url), expected);
        }
    }
}
