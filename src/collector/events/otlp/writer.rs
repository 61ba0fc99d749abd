//! Builds events from log records, spans and data points of metrics.

mod pass;
mod span;

use serde_json::Value as Json;

use super::answer::{Answer, Rejected};
use super::keys::{Key, Keys};
use super::passing::Passing;
use super::series::{SeriesTable, sent_point, series};
use crate::events::enrich::Subject;
use crate::events::event_builder::{EventBuilder, EventHeader, EventOutput, Shared};
use crate::runtime::Site;
use tapio_core::clock;
use tapio_core::event::{
    ClockQuality, EventId, Name, Reason, Severity, TraceId, names, stable_hash,
};
use tapio_wire::{
    OtlpAttributes, OtlpMetricType, OtlpPoint, OtlpRecord, OtlpScope, OtlpSignal, OtlpValue,
    log_id, otlp_points, otlp_spans,
};

/// The source part of event ids.
const SOURCE: u16 = 0x0200;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// Builds events and writes them into the sink.
#[derive(Default)]
pub(crate) struct EventWriter {
    event: EventBuilder,
    keys: Keys,
    resource: OfResource,
    /// The meaning of the keys of the current record's own attributes.
    own_keys: Vec<Key>,
    last_id_ns: u64,
    /// Records of the current request so far.
    records: u64,
    /// Attributes dropped because the event or the process-wide table of names was full.
    pub(crate) dropped_attributes: u64,
    /// The records of the current request that weren't accepted.
    rejected: Rejected,
    /// The last point of each series of metrics.
    pub(crate) series: SeriesTable,
    /// The record before, and how often it was repeated.
    before: EventId,
    repeats: u32,
    /// Which keys of attributes let a log record pass.
    passing: Passing,
    /// Log records that passed as they came.
    pub(crate) passed: u64,
}

/// The part that all records of a resource share, built once.
#[derive(Default)]
struct OfResource {
    /// Where the resource's bytes are in the request, by which its records find this.
    place: Option<(usize, usize)>,
    shared: Shared,
    left_out: LeftOut,
    /// The hash of the resource's bytes.
    digest: [u8; 16],
}

/// Attributes whose keys aren't names.
#[derive(Clone, Default)]
struct LeftOut {
    overlong: u32,
    unnamed: serde_json::Map<String, Json>,
}

impl LeftOut {
    fn add(&mut self, text: &str, key: Key, value: &OtlpValue<'_>) {
        match key {
            Key::TooLong => self.overlong += 1,
            _ => drop(self.unnamed.insert(text.to_owned(), value.json())),
        }
    }
}

/// A record with what it belongs to.
struct One<'a> {
    signal: OtlpSignal,
    resource: &'a OtlpAttributes<'a>,
    scope: &'a OtlpScope<'a>,
    record: &'a OtlpRecord<'a>,
}

/// Where and when a request arrived.
struct Arrival<'a> {
    site: &'a Site,
    now_ns: u64,
    /// Identifies a request that is read again.
    key: Option<&'a str>,
}

impl EventWriter {
    /// Emits an event for each record of a request. `key` identifies one that is read again, from a
    /// file; one that is sent again is known by its records alone.
    pub(crate) fn request(
        &mut self,
        signal: OtlpSignal,
        bytes: &[u8],
        key: Option<&str>,
        site: &Site,
        output: &mut impl EventOutput,
    ) -> Answer {
        let arrival = Arrival { site, now_ns: clock::wall_ns(), key };
        self.records = 0;
        self.rejected = Rejected::default();
        self.before = EventId::default();
        self.resource.place = None;
        let decoded = match signal {
            OtlpSignal::Metrics => otlp_points(bytes, |resource, scope, point| {
                self.point(resource, scope, point, &arrival, output);
            }),
            OtlpSignal::Logs => self.logs(bytes, &arrival, output),
            OtlpSignal::Traces => otlp_spans(bytes, |resource, scope, record| {
                self.record(&One { signal, resource, scope, record }, &arrival, output);
            }),
        };
        match decoded {
            Ok(invalid) => {
                if invalid > 0 {
                    output.refuse(Reason::BadInput, invalid);
                }
                self.rejected.add(Reason::BadInput, invalid);
                // The sender keeps the whole request and sends it again.
                if self.rejected.count(Reason::Shutdown) > 0 {
                    return Answer::ShuttingDown;
                }
                Answer::Accepted(std::mem::take(&mut self.rejected))
            }
            Err(e) => {
                output.refuse(Reason::BadInput, 1);
                Answer::Malformed(e.to_string())
            }
        }
    }

    /// Emits an event for a data point; for none where no value was recorded.
    fn point(
        &mut self,
        resource: &OtlpAttributes<'_>,
        scope: &OtlpScope<'_>,
        point: &OtlpPoint<'_>,
        arrival: &Arrival<'_>,
        output: &mut impl EventOutput,
    ) {
        let is_number = matches!(point.metric_type, OtlpMetricType::Gauge | OtlpMetricType::Sum);
        if is_number && point.value.is_none() {
            return;
        }
        let interval = self.series.add(series(resource, scope.name, point), point);
        self.begin(resource, &point.attributes, arrival.site);
        let event = &mut self.event;
        event.plain(names::TAPIO_METRIC_NAME, point.name);
        event.plain(names::TAPIO_METRIC_UNIT, point.unit);
        event.word(names::TAPIO_METRIC_TYPE, point.metric_type.as_str());
        let [p50, p90, p99] = interval.quantiles;
        for (name, number) in [
            (names::TAPIO_METRIC_VALUE, point.value),
            (names::TAPIO_METRIC_DELTA, interval.delta),
            (names::TAPIO_METRIC_COUNT, interval.count.map(|n| n as f64)),
            (names::TAPIO_METRIC_SUM, interval.sum),
            (names::TAPIO_METRIC_MIN, point.min),
            (names::TAPIO_METRIC_MAX, point.max),
            (names::TAPIO_METRIC_P50, p50),
            (names::TAPIO_METRIC_P90, p90),
            (names::TAPIO_METRIC_P99, p99),
        ] {
            let Some(number) = number.filter(|n| n.is_finite()) else { continue };
            if number.fract() == 0.0 && number.abs() < 9.0e15 {
                event.int(name, number as i64);
            } else {
                event.float(name, number);
            }
        }
        if let Some(sent) = sent_point(point) {
            event.json(names::TAPIO_METRIC_POINT, |out| out.push_str(&sent));
        }
        event.plain_message(point.name);
        event.plain(names::OTEL_SCOPE_NAME, scope.name);
        event.plain(names::OTEL_SCOPE_VERSION, scope.version);
        self.attributes([&point.attributes, &scope.attributes], resource);
        let node = arrival.site.node.as_bytes();
        let name = point.name.as_bytes();
        let parts = [b"otlp-point", node, resource.encoded, name, point.encoded];
        let meta = EventHeader {
            id: EventId(stable_hash(&parts)),
            time_ns: if point.time_ns > 0 { point.time_ns } else { arrival.now_ns },
            observed_ns: arrival.now_ns,
            kind: names::OTLP_METRIC,
            source: names::OTLP,
            clock: ClockQuality::Micros,
            severity: Severity::INFO,
        };
        self.offer(&meta, output);
    }

    /// Offers the event; the output counts one that it can't accept.
    fn offer(&mut self, meta: &EventHeader, output: &mut impl EventOutput) {
        if let Err(reason) = self.event.offer(meta, output) {
            self.rejected.add(reason, 1);
        }
    }

    fn record(&mut self, one: &One<'_>, arrival: &Arrival<'_>, output: &mut impl EventOutput) {
        self.begin(one.resource, &one.record.attributes, arrival.site);
        if one.signal == OtlpSignal::Traces {
            self.span(one.record);
        } else {
            self.event.plain(names::OTEL_EVENT_NAME, one.record.name);
            if one.record.observed_ns > 0 {
                self.event.int(names::OTEL_OBSERVED_TIME_NS, one.record.observed_ns);
            }
            if matches!(one.record.body, OtlpValue::Nested(_)) {
                self.event.bool(names::TAPIO_LOG_STRUCTURED, true);
            }
        }
        self.event.plain(names::OTEL_SCOPE_NAME, one.scope.name);
        self.event.plain(names::OTEL_SCOPE_VERSION, one.scope.version);
        self.attributes([&one.record.attributes, &one.scope.attributes], one.resource);
        self.send(one, arrival, output);
    }

    /// The id that a record has wherever it is sent again; `None` if two different records could
    /// have it.
    fn identify(&mut self, one: &One<'_>, site: &Site) -> Option<EventId> {
        let record = one.record;
        if one.signal == OtlpSignal::Traces {
            let natural = [&record.trace_id[..], &record.span_id].concat();
            let is_some = record.span_id != [0; 8];
            return is_some.then(|| EventId::from_natural("otlp", &hex(&natural)));
        }
        let is_precise = |time_ns: u64| !time_ns.is_multiple_of(NS_PER_SECOND);
        if !is_precise(record.time_ns) && !is_precise(record.observed_ns) {
            return None;
        }
        let first = self.log_id(site, record.encoded, 0);
        // The same record twice in a row isn't one that is sent again.
        self.repeats = if self.before == first { self.repeats + 1 } else { 0 };
        self.before = first;
        let repeats = self.repeats;
        Some(if repeats == 0 { first } else { self.log_id(site, record.encoded, repeats) })
    }

    /// The id of a log record of the resource that was built last.
    fn log_id(&self, site: &Site, record: &[u8], repeats: u32) -> EventId {
        log_id(&site.node, &self.resource.digest, record, repeats)
    }

    /// Begins an event with the entities of its resource, which are built once, and its own ones.
    fn begin(&mut self, resource: &OtlpAttributes<'_>, own: &OtlpAttributes<'_>, site: &Site) {
        let Self { keys, own_keys, .. } = self;
        own_keys.clear();
        own_keys.extend(own.list.iter().map(|(key, _)| keys.of(key)));
        let has_entities = own_keys.iter().any(|key| matches!(key, Key::Entity(_)));
        let place = (resource.encoded.as_ptr() as usize, resource.encoded.len());
        if has_entities || self.resource.place != Some(place) {
            self.build_shared(resource, own, site);
            self.resource.place = (!has_entities).then_some(place);
        }
        self.event.restart(&self.resource.shared);
    }

    /// Builds the entities of resource and record, and the node; and the resource's attributes.
    fn build_shared(
        &mut self,
        resource: &OtlpAttributes<'_>,
        own: &OtlpAttributes<'_>,
        site: &Site,
    ) {
        self.event.clear();
        let mut left_out = LeftOut::default();
        let of_resource: Vec<Key> =
            resource.list.iter().map(|(text, _)| self.keys.of(text)).collect();
        let entities = || {
            // The record's own come first: they are the most specific.
            let all = self.own_keys.iter().zip(&own.list);
            let all = all.chain(of_resource.iter().zip(&resource.list));
            all.filter_map(|(key, (_, value))| match key {
                Key::Entity(name) => Some((*name, *value)),
                _ => None,
            })
        };
        let has = |name: Name| entities().any(|(entity, _)| entity == name);
        if !has(names::HOST_NAME) {
            self.event.plain(names::HOST_NAME, &site.node);
        }
        // The entity directory completes the identity of a pod without a name.
        let lacks_pod_name = !has(names::K8S_POD_NAME);
        if lacks_pod_name {
            let text_of =
                |name: Name| entities().filter(|e| e.0 == name).find_map(|e| as_text(&e.1));
            let subject = Subject {
                container_id: text_of(names::CONTAINER_ID),
                pod_uid: text_of(names::K8S_POD_UID),
            };
            let _ = self.event.enrich(subject, &site.directory);
        }
        for (at, (name, value)) in entities().enumerate() {
            let is_added =
                lacks_pod_name && [names::CONTAINER_ID, names::K8S_POD_UID].contains(&name);
            if !is_added && entities().take(at).all(|(before, _)| before != name) {
                push(&mut self.event, name, &value);
            }
        }
        self.event.end_entities();
        for (key, (text, value)) in of_resource.iter().zip(&resource.list) {
            match key {
                Key::Entity(_) => {}
                Key::Attribute(name) => push(&mut self.event, *name, value),
                key => left_out.add(text, *key, value),
            }
        }
        self.event.share(&mut self.resource.shared);
        self.resource.left_out = left_out;
        self.resource.digest = stable_hash(&[resource.encoded]);
    }

    /// Adds the attributes that aren't entities, and counts those that are left out.
    /// The record's own come first: they are the most specific.
    fn attributes(&mut self, own: [&OtlpAttributes<'_>; 2], resource: &OtlpAttributes<'_>) {
        let Self { event, keys, own_keys, resource: of_resource, .. } = self;
        let mut left_out = of_resource.left_out.clone();
        let [of_record, of_scope] = own;
        let of_scope = of_scope.list.iter().map(|(text, value)| (keys.of(text), *text, value));
        let of_record = own_keys.iter().zip(&of_record.list);
        let of_record = of_record.map(|(key, (text, value))| (*key, *text, value));
        for (key, text, value) in of_record.chain(of_scope) {
            match key {
                Key::Entity(_) => {}
                Key::Attribute(name) => push(event, name, value),
                key => left_out.add(text, key, value),
            }
        }
        event.shared_attributes(&of_resource.shared);
        let LeftOut { overlong, unnamed } = left_out;
        if !unnamed.is_empty() {
            let json = Json::Object(unnamed).to_string();
            event.json(names::TAPIO_UNNAMED, |out| out.push_str(&json));
        }
        let dropped_here = overlong + event.dropped_fields;
        self.dropped_attributes += u64::from(dropped_here);
        let by_sender = own.iter().chain([&resource]).map(|attributes| attributes.dropped);
        let dropped = by_sender.fold(dropped_here, u32::saturating_add);
        if dropped > 0 {
            event.dropped_count(names::OTEL_DROPPED_ATTRIBUTES_COUNT, dropped);
        }
    }

    fn send(&mut self, one: &One<'_>, arrival: &Arrival<'_>, output: &mut impl EventOutput) {
        let &Arrival { site, now_ns, key } = arrival;
        let id = self.identify(one, site);
        let (event, record) = (&mut self.event, one.record);
        event.trace_context(TraceId(record.trace_id), record.span_id);
        let is_span = one.signal == OtlpSignal::Traces;
        match (&record.body, is_span) {
            (_, true) | (OtlpValue::Empty, false) => event.plain_message(record.name),
            (OtlpValue::Text(text), false) => event.plain_message(text),
            (body, false) => event.message(format_args!("{}", body.json())),
        }
        // One without an id of its own has that of its place or its arrival.
        self.records += 1;
        let id = id.unwrap_or_else(|| match key {
            Some(key) => EventId::from_natural("otlp", &format!("{key}:{}", self.records)),
            None => {
                self.last_id_ns = clock::monotonic_ns().max(self.last_id_ns + 1);
                EventId::from_sequence(site.origin, SOURCE, self.last_id_ns)
            }
        });
        let times = [record.time_ns, record.observed_ns, now_ns];
        let meta = EventHeader {
            id,
            time_ns: times.into_iter().find(|t| *t > 0).unwrap_or(now_ns),
            observed_ns: now_ns,
            kind: if is_span { names::OTLP_SPAN } else { names::OTLP_LOG },
            source: names::OTLP,
            clock: ClockQuality::Micros,
            severity: one.severity(),
        };
        self.offer(&meta, output);
    }
}

impl One<'_> {
    fn severity(&self) -> Severity {
        match (self.record.failed, self.record.severity) {
            (true, _) => Severity::ERROR,
            (false, n @ 1..=24) => Severity(n),
            (false, _) => Severity::parse(self.record.severity_text)
                .filter(|s| s.0 > 0)
                .unwrap_or(Severity::INFO),
        }
    }
}

fn push(event: &mut EventBuilder, key: Name, value: &OtlpValue<'_>) {
    match value {
        OtlpValue::Empty => {}
        OtlpValue::Text(text) => event.plain(key, text),
        OtlpValue::Bool(b) => event.bool(key, *b),
        OtlpValue::Int(n) => event.int(key, *n),
        OtlpValue::Float(n) => event.float(key, *n),
        OtlpValue::Nested(_) => event.json(key, |out| out.push_str(&value.json().to_string())),
    }
}

fn as_text<'a>(value: &OtlpValue<'a>) -> Option<&'a str> {
    match value {
        OtlpValue::Text(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|b| [b >> 4, b & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}
