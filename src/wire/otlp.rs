//! Decodes OTLP export requests into records that borrow from the bytes (opentelemetry-proto 1.x:
//! collector/logs/v1, collector/trace/v1, logs/v1, trace/v1, common/v1). Decoded by hand: a request
//! of hundreds of records allocates two lists, whatever it contains.

mod metrics;
mod parts;
mod value;

pub(crate) use value::{key_value, value};

pub use metrics::{OtlpMetricType, OtlpPoint};
pub use parts::{OtlpPart, OtlpParts};
pub use value::{OtlpAttributes, OtlpNested, OtlpValue};

use super::reader::{FIXED64, LEN, Reader, VARINT, WireCause, WireError};

/// The signal of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpSignal {
    /// `ExportLogsServiceRequest`
    Logs,
    /// `ExportTraceServiceRequest`
    Traces,
    /// `ExportMetricsServiceRequest`
    Metrics,
}

/// A log record or a span, with its resource's attributes.
#[derive(Debug, Default)]
pub struct OtlpRecord<'a> {
    /// Time of the record or start of the span, nanoseconds since the Unix epoch; 0: unset.
    pub time_ns: u64,
    /// Time of observation; 0: unset.
    pub observed_ns: u64,
    /// End of the span; 0 for a log record.
    pub end_ns: u64,
    /// OpenTelemetry's severity number; 0: unset.
    pub severity: u8,
    /// A log record's `severity_text`.
    pub severity_text: &'a str,
    /// A span's name, or a log record's `event_name`.
    pub name: &'a str,
    /// A log record's body, or the message of a span's status.
    pub body: OtlpValue<'a>,
    /// Whether a span's status is an error.
    pub failed: bool,
    /// Its trace; zeros for none.
    pub trace_id: [u8; 16],
    /// The span itself, or the log record's span; zeros for none.
    pub span_id: [u8; 8],
    /// The span's parent; zeros for none.
    pub parent_span_id: [u8; 8],
    /// The span's kind: 1 internal, 2 server, 3 client, 4 producer, 5 consumer; 0: unset.
    pub span_kind: u8,
    /// The span's events.
    pub events: OtlpParts<'a>,
    /// The span's links.
    pub links: OtlpParts<'a>,
    /// Its own attributes.
    pub attributes: OtlpAttributes<'a>,
    /// The bytes of the record.
    pub encoded: &'a [u8],
}

/// A scope: the library that made the records.
#[derive(Debug, Default)]
pub struct OtlpScope<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its attributes.
    pub attributes: OtlpAttributes<'a>,
    /// The bytes of the scope.
    pub encoded: &'a [u8],
    /// Whether these aren't all, or have fields that aren't known here.
    pub has_unknown: bool,
}

/// Decodes an `ExportLogsServiceRequest` and passes each record to `visit`, with its resource's
/// attributes and its scope. Returns the number of records that can't be decoded and were skipped.
///
/// # Errors
/// When the request's outline is invalid; some records may have been visited.
pub fn otlp_logs<'a>(
    bytes: &'a [u8],
    visit: impl FnMut(&OtlpAttributes<'a>, &OtlpScope<'a>, &OtlpRecord<'a>),
) -> Result<u64, WireError> {
    records(bytes, OtlpRecord::log, visit)
}

/// Decodes an `ExportTraceServiceRequest` and passes each span to `visit`, as [`otlp_logs`] does
/// with records. Returns the number of spans that can't be decoded.
///
/// # Errors
/// When the request's outline is invalid; some spans may have been visited.
pub fn otlp_spans<'a>(
    bytes: &'a [u8],
    visit: impl FnMut(&OtlpAttributes<'a>, &OtlpScope<'a>, &OtlpRecord<'a>),
) -> Result<u64, WireError> {
    records(bytes, OtlpRecord::span, visit)
}

fn records<'a>(
    bytes: &'a [u8],
    read: impl Fn(&mut OtlpRecord<'a>, Reader<'a>) -> Result<(), WireError>,
    mut visit: impl FnMut(&OtlpAttributes<'a>, &OtlpScope<'a>, &OtlpRecord<'a>),
) -> Result<u64, WireError> {
    let mut record = OtlpRecord::default();
    items(bytes, |resource, scope, one| {
        record.clear();
        record.encoded = one.rest();
        read(&mut record, one)?;
        visit(resource, scope, &record);
        Ok(0)
    })
}

/// Decodes an `ExportMetricsServiceRequest` and passes each data point to `visit`, as
/// [`otlp_logs`] does with records. Returns the number of points that can't be decoded.
///
/// # Errors
/// When the request's outline is invalid; some points may have been visited.
pub fn otlp_points<'a>(
    bytes: &'a [u8],
    mut visit: impl FnMut(&OtlpAttributes<'a>, &OtlpScope<'a>, &OtlpPoint<'a>),
) -> Result<u64, WireError> {
    items(bytes, |resource, scope, one| metrics::points(one, |point| visit(resource, scope, point)))
}

/// Passes each log record, span or metric of a request to `read`, which returns the number of
/// records in it that can't be decoded. Returns their sum; an item that fails counts as one.
fn items<'a>(
    bytes: &'a [u8],
    mut read: impl FnMut(&OtlpAttributes<'a>, &OtlpScope<'a>, Reader<'a>) -> Result<u64, WireError>,
) -> Result<u64, WireError> {
    let mut invalid = 0;
    origins(bytes, |resource, scope, mut records| {
        while !records.is_empty() {
            let (2, LEN) = records.tag_or_skip(2)? else { continue };
            let one = records.message()?;
            invalid += read(resource, scope, one).unwrap_or(1);
        }
        Ok(())
    })?;
    Ok(invalid)
}

/// Passes the `ScopeLogs`, `ScopeSpans` or `ScopeMetrics` of a request to `visit`, each with its
/// resource's attributes and its scope.
pub(crate) fn origins<'a>(
    bytes: &'a [u8],
    mut visit: impl FnMut(&OtlpAttributes<'a>, &OtlpScope<'a>, Reader<'a>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let mut request = Reader::new(bytes);
    while !request.is_empty() {
        let (1, LEN) = request.tag()? else {
            return Err(request.error(WireCause::FieldType(1)));
        };
        // ResourceLogs, ResourceSpans, ResourceMetrics: the resource may follow its records.
        let of_resource = request.message()?;
        let resource = resource_attributes(of_resource)?;
        let mut parts = of_resource;
        while !parts.is_empty() {
            let (2, LEN) = parts.tag_or_skip(2)? else { continue };
            let records = parts.message()?;
            visit(&resource, &scope(records)?, records)?;
        }
    }
    Ok(())
}

fn resource_attributes(mut part: Reader<'_>) -> Result<OtlpAttributes<'_>, WireError> {
    let mut attributes = OtlpAttributes::default();
    while !part.is_empty() {
        let (1, LEN) = part.tag_or_skip(1)? else { continue };
        let mut resource = part.message()?;
        attributes.encoded = resource.rest();
        while !resource.is_empty() {
            match resource.tag()? {
                (1, LEN) => attributes.add(resource.message()?),
                (2, VARINT) => attributes.add_dropped(resource.varint()?),
                (number, wire_type) => resource.skip_unknown(number, 2, wire_type)?,
            }
        }
    }
    Ok(attributes)
}

/// The scope of `ScopeLogs` or `ScopeSpans`, which may follow its records.
fn scope(mut part: Reader<'_>) -> Result<OtlpScope<'_>, WireError> {
    let mut scope = OtlpScope::default();
    while !part.is_empty() {
        let (1, LEN) = part.tag_or_skip(1)? else { continue };
        scope.read(part.message()?)?;
    }
    Ok(scope)
}

impl<'a> OtlpScope<'a> {
    /// Reads an `InstrumentationScope`.
    pub(crate) fn read(&mut self, mut fields: Reader<'a>) -> Result<(), WireError> {
        // A second message adds to the first.
        self.has_unknown = !self.encoded.is_empty();
        self.encoded = fields.rest();
        while !fields.is_empty() {
            match fields.tag()? {
                (1, LEN) => self.name = fields.text()?,
                (2, LEN) => self.version = fields.text()?,
                (3, LEN) => self.attributes.add(fields.message()?),
                (4, VARINT) => self.attributes.add_dropped(fields.varint()?),
                (number, wire_type) => {
                    self.has_unknown = true;
                    fields.skip_unknown(number, 4, wire_type)?;
                }
            }
        }
        Ok(())
    }
}

impl<'a> OtlpRecord<'a> {
    pub(crate) fn clear(&mut self) {
        let mut attributes = std::mem::take(&mut self.attributes);
        attributes.list.clear();
        attributes.dropped = 0;
        let [events, links] = [&mut self.events, &mut self.links].map(OtlpParts::cleared);
        *self = Self { attributes, events, links, ..Self::default() };
    }

    /// Decodes a `LogRecord`.
    pub(crate) fn log(&mut self, mut r: Reader<'a>) -> Result<(), WireError> {
        while !r.is_empty() {
            match r.tag()? {
                (1, FIXED64) => self.time_ns = r.fixed64()?,
                (2, VARINT) => self.severity = u8::try_from(r.varint()?).unwrap_or(0),
                (3, LEN) => self.severity_text = r.text()?,
                (5, LEN) => self.body = value(r.message()?)?,
                (6, LEN) => self.attributes.add(r.message()?),
                (7, VARINT) => self.attributes.add_dropped(r.varint()?),
                (9, LEN) => self.trace_id = r.id()?,
                (10, LEN) => self.span_id = r.id()?,
                (11, FIXED64) => self.observed_ns = r.fixed64()?,
                (12, LEN) => self.name = r.text()?,
                (8, wire_type) => r.skip(wire_type)?,
                (number, wire_type) => r.skip_unknown(number, 12, wire_type)?,
            }
        }
        Ok(())
    }

    /// Decodes a `Span`.
    fn span(&mut self, mut r: Reader<'a>) -> Result<(), WireError> {
        while !r.is_empty() {
            match r.tag()? {
                (1, LEN) => self.trace_id = r.id()?,
                (2, LEN) => self.span_id = r.id()?,
                (4, LEN) => self.parent_span_id = r.id()?,
                (5, LEN) => self.name = r.text()?,
                (6, VARINT) => self.span_kind = u8::try_from(r.varint()?).unwrap_or(0),
                (7, FIXED64) => self.time_ns = r.fixed64()?,
                (8, FIXED64) => self.end_ns = r.fixed64()?,
                (9, LEN) => self.attributes.add(r.message()?),
                (10, VARINT) => self.attributes.add_dropped(r.varint()?),
                (11, LEN) => self.events.add(r.message()?),
                (12, VARINT) => self.events.add_dropped(r.varint()?),
                (13, LEN) => self.links.add(r.message()?),
                (14, VARINT) => self.links.add_dropped(r.varint()?),
                (15, LEN) => self.status(r.message()?)?,
                (_, wire_type) => r.skip(wire_type)?,
            }
        }
        Ok(())
    }

    fn status(&mut self, mut r: Reader<'a>) -> Result<(), WireError> {
        while !r.is_empty() {
            match r.tag()? {
                (2, LEN) => self.body = OtlpValue::Text(r.text()?),
                // STATUS_CODE_ERROR
                (3, VARINT) => self.failed = r.varint()? == 2,
                (_, wire_type) => r.skip(wire_type)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
