//! Log records that pass as they came, in blocks: no rule can match them, nothing is learned from
//! them, and no secret has to be removed. All others become events.

use super::super::keys::Keys;
use super::super::passing::MAX_ATTRIBUTES;
use super::{Arrival, EventWriter, NS_PER_SECOND, One};
use crate::events::event_builder::{EventHeader, EventOutput};
use tapio_core::event::{ClockQuality, Event, EventId, LogBlock, Severity, TraceId, Value, names};
use tapio_core::ring::{AttributeUse, LogOutline, LogPass};
use tapio_wire::{
    OtlpAttributes, OtlpLogPart, OtlpRawLog, OtlpRawLogs, OtlpRecord, OtlpScope, OtlpSignal,
    OtlpValue, WireError, otlp_raw_logs,
};

/// The records of a resource and scope are looked at from this size on: for fewer, that would cost
/// more than it saves.
const MIN_GROUP_BYTES: usize = 4 * 1024;
/// The size of a block's records.
const MAX_BLOCK_BYTES: usize = 32 * 1024;
/// The size of a record that passes.
const MAX_RECORD_BYTES: usize = 1024;
/// The size of what the records of a block share.
const MAX_SHARED_BYTES: usize = 8 * 1024;
/// The size of the events that a receiver makes of a block.
const MAX_EVENTS_BYTES: usize = 1024 * 1024;
/// The size of an event's fields other than texts, in bytes.
const EVENT_BYTES: usize = 256;
/// By how much the clock of a sender may be ahead.
const MAX_AHEAD_NS: u64 = NS_PER_SECOND;

/// The records of a resource and scope.
struct Group<'a, 'r> {
    request: &'a [u8],
    resource: &'r OtlpAttributes<'a>,
    scope: &'r OtlpScope<'a>,
    arrival: &'r Arrival<'r>,
    /// Decides which records pass; `None`: none does.
    pass: Option<(LogPass, usize)>,
}

/// Records next to each other in a request that pass.
#[derive(Default)]
struct Run {
    range: std::ops::Range<usize>,
    records: u32,
    latest_ns: u64,
}

impl Run {
    /// Adds a record, unless it isn't the next one, or there is no room.
    fn add(&mut self, range: std::ops::Range<usize>, time_ns: u64, max_records: usize) -> bool {
        if self.records == 0 {
            self.range = range.start..range.start;
        }
        let fits = range.end - self.range.start <= MAX_BLOCK_BYTES;
        if range.start != self.range.end || !fits || self.records as usize >= max_records {
            return false;
        }
        self.range.end = range.end;
        self.records += 1;
        self.latest_ns = self.latest_ns.max(time_ns);
        true
    }
}

impl EventWriter {
    /// Emits the log records of a request, as events or as they came. Returns the number of those
    /// that can't be decoded.
    ///
    /// # Errors
    /// When the outline of the request is invalid; some records may have been emitted.
    pub(super) fn logs(
        &mut self,
        request: &[u8],
        arrival: &Arrival<'_>,
        output: &mut impl EventOutput,
    ) -> Result<u64, WireError> {
        let mut invalid = 0;
        otlp_raw_logs(request, |resource, scope, logs| {
            let mut group = Group { request, resource, scope, arrival, pass: None };
            group.pass = self.pass_of(&group, &logs, output);
            self.group(&group, logs, &mut invalid, output)
        })?;
        Ok(invalid)
    }

    fn group<'a>(
        &mut self,
        group: &Group<'a, '_>,
        mut logs: OtlpRawLogs<'a>,
        invalid: &mut u64,
        output: &mut impl EventOutput,
    ) -> Result<(), WireError> {
        let (mut run, mut record) = (Run::default(), OtlpRecord::default());
        let (mut before, mut has_passed): (&[u8], bool) = (&[], false);
        let end = loop {
            let one = match logs.next_log() {
                Ok(Some(one)) => one,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            let is_repeated = one.encoded == before;
            let passes = !is_repeated && self.passes(group, &one, &mut run, output);
            if passes {
                self.records += 1;
                self.before = EventId::default();
            } else {
                self.end_run(group, &mut run, output);
                if is_repeated && has_passed {
                    // Its first one would have had this id.
                    self.begin(group.resource, &OtlpAttributes::default(), group.arrival.site);
                    self.before = self.log_id(group.arrival.site, one.encoded, 0);
                    self.repeats = 0;
                }
                match one.decode(&mut record) {
                    Ok(()) => {
                        let (resource, scope, signal) =
                            (group.resource, group.scope, OtlpSignal::Logs);
                        let one = One { signal, resource, scope, record: &record };
                        self.record(&one, group.arrival, output);
                    }
                    Err(_) => *invalid += 1,
                }
            }
            (before, has_passed) = (one.encoded, passes);
        };
        self.end_run(group, &mut run, output);
        end
    }

    /// Decides which records pass, and how many may be in a block.
    fn pass_of(
        &mut self,
        group: &Group<'_, '_>,
        logs: &OtlpRawLogs<'_>,
        output: &impl EventOutput,
    ) -> Option<(LogPass, usize)> {
        if logs.len_bytes() < MIN_GROUP_BYTES {
            return None;
        }
        self.passing.clear();
        let scope = group.scope;
        let (pass, shared_bytes) = self.shared(group, 0, |shared, _| {
            Some((output.log_pass(shared)?, shared.archive_bound_bytes() + scope.encoded.len()))
        })?;
        let scope_passes = self.scope_passes(&pass, scope);
        let has_room = shared_bytes <= MAX_SHARED_BYTES;
        let is_whole = self.resource.left_out.unnamed.is_empty();
        let max_records = MAX_EVENTS_BYTES / (2 * shared_bytes + EVENT_BYTES);
        (scope_passes && has_room && is_whole).then_some((pass, max_records))
    }

    /// Whether a record passes. It is then in the run; a full one is offered before.
    fn passes(
        &mut self,
        group: &Group<'_, '_>,
        one: &OtlpRawLog<'_>,
        run: &mut Run,
        output: &mut impl EventOutput,
    ) -> bool {
        let Some((pass, max_records)) = &group.pass else { return false };
        let Some(time_ns) = self.time_of_passing(pass, one, group.arrival.now_ns) else {
            return false;
        };
        let start = one.framed.as_ptr() as usize - group.request.as_ptr() as usize;
        let range = start..start + one.framed.len();
        if !run.add(range.clone(), time_ns, *max_records) {
            self.end_run(group, run, output);
            run.add(range, time_ns, *max_records);
        }
        true
    }

    /// The time of a record that passes.
    fn time_of_passing(
        &mut self,
        pass: &LogPass,
        one: &OtlpRawLog<'_>,
        now_ns: u64,
    ) -> Option<u64> {
        if one.encoded.len() > MAX_RECORD_BYTES {
            return None;
        }
        let Self { passing, keys, .. } = self;
        let outline = one.outline(|part| match part {
            OtlpLogPart::Attribute { at, key, value } => {
                let usage = passing.of(at, key, |key| usage_of(pass, keys, key));
                passes_with(pass, usage, &value)
            }
            OtlpLogPart::Text(text) => !pass.stops_text(text),
        })?;
        let time_ns = if outline.time_ns > 0 { outline.time_ns } else { outline.observed_ns };
        let is_precise = |time_ns: u64| !time_ns.is_multiple_of(NS_PER_SECOND);
        let is_plain = (1..u64::from(Severity::WARN.0)).contains(&outline.severity)
            && outline.attributes <= MAX_ATTRIBUTES
            && !outline.message.is_empty()
            && outline.observed_ns > 0
            && (is_precise(outline.time_ns) || is_precise(outline.observed_ns))
            && time_ns <= now_ns.saturating_add(MAX_AHEAD_NS);
        let trace = TraceId(outline.trace_id);
        let outline = LogOutline { time_ns, message: outline.message, trace };
        (is_plain && !pass.needs(&outline)).then_some(time_ns)
    }

    /// Offers the records of a run.
    fn end_run(&mut self, group: &Group<'_, '_>, run: &mut Run, output: &mut impl EventOutput) {
        let Run { range, records, latest_ns } = std::mem::take(run);
        if records == 0 {
            return;
        }
        let digest = self.resource.digest;
        let encoded = group.request.get(range).unwrap_or_default();
        let outcome = self.shared(group, latest_ns, |shared, dropped_attributes| {
            output.offer_logs(&LogBlock {
                shared: *shared,
                records,
                dropped_attributes,
                resource_digest: digest,
                scope: group.scope.encoded,
                encoded,
            })
        });
        match outcome {
            Ok(()) => self.passed += u64::from(records),
            Err(reason) => self.rejected.add(reason, records.into()),
        }
    }

    /// Calls `read` with what the records of a resource share, and with the number of attributes
    /// that the resource lacks.
    fn shared<R>(
        &mut self,
        group: &Group<'_, '_>,
        time_ns: u64,
        read: impl FnOnce(&Event<'_>, u32) -> R,
    ) -> R {
        self.begin(group.resource, &OtlpAttributes::default(), group.arrival.site);
        let Self { event, resource, .. } = self;
        event.shared_attributes(&resource.shared);
        let dropped_here = resource.left_out.overlong + event.dropped_fields;
        let header = EventHeader {
            id: EventId::default(),
            time_ns,
            observed_ns: group.arrival.now_ns,
            kind: names::OTLP_LOG,
            source: names::OTLP,
            clock: ClockQuality::Micros,
            severity: Severity::INFO,
        };
        event.read(&header, |shared| {
            read(shared, dropped_here.saturating_add(group.resource.dropped))
        })
    }

    /// Whether a scope lets records pass.
    fn scope_passes(&mut self, pass: &LogPass, scope: &OtlpScope<'_>) -> bool {
        let attributes = &scope.attributes;
        let mut passes = |(key, value): &(&str, OtlpValue<'_>)| {
            passes_with(pass, usage_of(pass, &mut self.keys, key), value)
        };
        !scope.has_unknown
            && attributes.dropped == 0
            && ![scope.name, scope.version].iter().any(|text| pass.stops_text(text))
            && attributes.list.iter().all(&mut passes)
    }
}

/// The use of an attribute with this key.
fn usage_of(pass: &LogPass, keys: &mut Keys, key: &str) -> AttributeUse {
    // An entity key is part of the record's identity.
    keys.of(key).name().map_or(AttributeUse::Stops, |name| pass.attribute(name))
}

/// Whether an attribute lets a record pass.
#[inline]
fn passes_with(pass: &LogPass, usage: AttributeUse, value: &OtlpValue<'_>) -> bool {
    let value = match value {
        OtlpValue::Text(text) if pass.stops_text(text) => return false,
        OtlpValue::Text(text) => Value::Str(text),
        OtlpValue::Bool(b) => Value::Bool(*b),
        OtlpValue::Int(n) => Value::Int(*n),
        OtlpValue::Float(n) => Value::Float(*n),
        OtlpValue::Empty => Value::Null,
        OtlpValue::Nested(_) => return false,
    };
    match usage {
        AttributeUse::Stops => false,
        AttributeUse::Read(name) => !pass.stops_value(name, value),
        AttributeUse::Unread => true,
    }
}
