//! Batches → export requests.

use super::event::EventView;
use super::groups::Groups;
use super::log::severe_records;
use super::request::OtlpRequest;
use super::resource::{
    Names, block_resource, node_resource, own_resource, own_scope, sent_resource, sent_scope,
};
use super::seen_stories::SeenStories;
use super::selection::OtlpSelection;
use super::service::OtlpService;
use super::{log, metric, span, story};
use crate::decode::{Batch, Item};
use crate::otlp::OtlpSignal;
use crate::proto;
use crate::proto_vec::ProtoVec;
use crate::raw_event::RawEvent;
use crate::raw_log_block::LogBlockView;
use crate::story::story_from_proto;
use tapio_core::event::{Story, names};

/// Counts of the items of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Events in it.
    pub events: u64,
    /// Revisions of stories in it.
    pub stories: u64,
    /// Events that the selection leaves out.
    pub events_filtered: u64,
    /// Events that can't be decoded.
    pub events_invalid: u64,
}

/// Encodes batches into requests, one for each signal.
pub struct OtlpEncoder {
    service: OtlpService,
    selection: OtlpSelection,
    logs: Groups,
    traces: Groups,
    metrics: Groups,
    stories: SeenStories,
}

impl OtlpEncoder {
    /// An encoder with empty requests.
    #[must_use]
    pub fn new(service: OtlpService, selection: OtlpSelection) -> Self {
        Self {
            service,
            selection,
            logs: Groups::default(),
            traces: Groups::default(),
            metrics: Groups::default(),
            stories: SeenStories::default(),
        }
    }

    /// Adds the items of a batch. `now_ns`: the time, nanoseconds since the Unix epoch.
    pub fn add(&mut self, batch: &Batch<'_>, now_ns: u64) -> Encoded {
        let names = Names::new(batch.names());
        let mut event = EventView::default();
        let mut counts = Encoded::default();
        for item in batch.items() {
            match item {
                Item::Event(raw) => {
                    counts.events += 1;
                    self.event(&mut event, raw, &names, &mut counts);
                }
                Item::LogBlock(block) => {
                    // One that can't be read counts as its records did when it was received.
                    let records = block.records().unwrap_or(0);
                    counts.events += u64::from(records);
                    match block.read() {
                        Ok(block) => self.log_block(&block, &names, &mut counts),
                        Err(_) => counts.events_invalid += u64::from(records),
                    }
                }
                Item::Story(bytes) => {
                    counts.stories += 1;
                    let decoded = <proto::Story as prost::Message>::decode(bytes).ok();
                    if let Some(story) = decoded.and_then(story_from_proto) {
                        self.story(&story, batch.head.node, now_ns);
                    }
                }
            }
        }
        counts
    }

    /// About the size of the largest request, in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        [&self.logs, &self.traces, &self.metrics].map(Groups::len_bytes).into_iter().sum()
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [&self.logs, &self.traces, &self.metrics].iter().all(|groups| groups.records() == 0)
    }

    /// Changes the least severity of a log record, from the next batch on.
    pub fn set_min_severity(&mut self, min_severity: u8) {
        self.selection.min_severity = min_severity;
    }

    /// The requests; those without records are left out. The encoder is empty afterwards.
    pub fn finish(&mut self) -> Vec<OtlpRequest> {
        let all = [
            (OtlpSignal::Logs, &mut self.logs),
            (OtlpSignal::Traces, &mut self.traces),
            (OtlpSignal::Metrics, &mut self.metrics),
        ];
        let requests = all.into_iter().filter_map(|(signal, groups)| {
            let (bytes, records) = groups.finish()?;
            Some(OtlpRequest { signal, bytes, records })
        });
        requests.collect()
    }

    fn event<'a>(
        &mut self,
        event: &mut EventView<'a>,
        raw: RawEvent<'a>,
        names: &Names<'a>,
        counts: &mut Encoded,
    ) {
        if event.read(raw).is_err() {
            counts.events_invalid += 1;
            return;
        }
        self.note_context(event);
        let Self { service, selection, logs, traces, metrics, .. } = self;
        let is_selected = !selection.only_stories || event.story.is_some();
        let of_kind = |name: tapio_core::event::Name| names.text(event.kind) == name.text();
        let is_taken = if of_kind(names::OTLP_METRIC) {
            let is_taken = selection.metrics && is_selected;
            if is_taken {
                add_sent(metrics, event, names, metric::sent);
            }
            is_taken
        } else if of_kind(names::OTLP_SPAN) {
            let is_taken = selection.traces && is_selected;
            if is_taken {
                add_sent(traces, event, names, span::sent);
            }
            is_taken
        } else {
            let is_taken =
                selection.logs && is_selected && event.severity >= selection.min_severity;
            if is_taken && of_kind(names::OTLP_LOG) {
                add_sent(logs, event, names, log::sent);
            } else if is_taken {
                let resource = |out: &mut ProtoVec| own_resource(out, event, names, service);
                logs.add(resource, own_scope, |out| log::own(out, event, names));
            }
            let interval = span::interval_ns(event, names).filter(|_| selection.traces);
            if let Some(interval_ns) = interval.filter(|_| !of_kind(names::OTLP_LOG)) {
                let resource = |out: &mut ProtoVec| own_resource(out, event, names, service);
                traces.add(resource, own_scope, |out| {
                    span::interval(out, event, names, interval_ns);
                });
            }
            is_taken
        };
        counts.events_filtered += u64::from(!is_taken);
    }

    /// Adds the records of a block as they came.
    fn log_block(&mut self, block: &LogBlockView<'_>, names: &Names<'_>, counts: &mut Encoded) {
        let Self { selection, logs, .. } = self;
        if !selection.logs || selection.only_stories {
            counts.events_filtered += u64::from(block.records);
            return;
        }
        let resource = |out: &mut ProtoVec| block_resource(out, block, names);
        let scope = |out: &mut ProtoVec| out.0.extend_from_slice(block.scope);
        if selection.min_severity <= 1 {
            let records = |out: &mut ProtoVec| out.0.extend_from_slice(block.encoded);
            return logs.add_all(resource, scope, block.records, records);
        }
        let selected: Vec<&[u8]> = severe_records(block.encoded, selection.min_severity).collect();
        counts.events_filtered += u64::from(block.records).saturating_sub(selected.len() as u64);
        if !selected.is_empty() {
            logs.add_all(resource, scope, selected.len() as u32, |out| {
                selected.iter().for_each(|record| out.delimited(2, record));
            });
        }
    }

    /// Notes the context that an event of a story came with: the story's span links to it.
    fn note_context(&mut self, event: &EventView<'_>) {
        let (trace, span) = event.incoming();
        let (Ok(trace), Ok(span)) = (trace.try_into(), span.try_into()) else { return };
        if event.story.is_some()
            && let Ok(of_story) = event.trace.try_into()
        {
            self.stories.add_context(of_story, (trace, span));
        }
    }

    fn story(&mut self, story: &Story, node: &str, now_ns: u64) {
        let context = (story.trace_id.0, story::story_span(story));
        self.stories.set_context(story.id.0, context);
        let Self { service, selection, logs, traces, stories, .. } = self;
        let resource = |out: &mut ProtoVec| node_resource(out, node, service);
        if selection.logs && story.severity.0 >= selection.min_severity {
            logs.add(resource, own_scope, |out| story::revision(out, story, now_ns));
        }
        if selection.traces && story::is_span(story) {
            let continued = story.continues.and_then(|before| stories.context(&before.0));
            let contexts = stories.contexts(&story.trace_id.0);
            traces.add(resource, own_scope, |out| story::span(out, story, continued, contexts));
        }
    }
}

/// Adds an event as the record that an application sent.
fn add_sent<'a>(
    groups: &mut Groups,
    event: &EventView<'a>,
    names: &Names<'a>,
    record: impl FnOnce(&mut ProtoVec, &EventView<'a>, &Names<'a>),
) {
    groups.add(
        |out| sent_resource(out, event, names),
        |out| sent_scope(out, event, names),
        |out| record(out, event, names),
    );
}
