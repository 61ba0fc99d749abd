//! Data points of metrics (opentelemetry-proto 1.x: metrics/v1).

use super::value::OtlpAttributes;
use crate::reader::{FIXED64, LEN, Reader, VARINT, WireCause, WireError};

/// Buckets decoded of a histogram; a point with more is refused.
const MAX_BUCKETS: usize = 512;

/// The type of a metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtlpMetricType {
    /// A value that goes up and down.
    #[default]
    Gauge,
    /// A sum of increments.
    Sum,
    /// A distribution in buckets, explicit or exponential.
    Histogram,
    /// Quantiles that the sender computed.
    Summary,
}

impl OtlpMetricType {
    /// Its name in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Sum => "sum",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// A data point with its metric.
#[derive(Debug, Default)]
pub struct OtlpPoint<'a> {
    /// The metric's name.
    pub name: &'a str,
    /// The metric's unit (UCUM).
    pub unit: &'a str,
    /// The metric's type.
    pub metric_type: OtlpMetricType,
    /// Whether the point counts from the series' start, not from the point before.
    pub is_cumulative: bool,
    /// Whether the sum never decreases.
    pub is_monotonic: bool,
    /// Start of the series, nanoseconds since the Unix epoch; 0: unset.
    pub start_ns: u64,
    /// Time of the point.
    pub time_ns: u64,
    /// The value of a gauge or sum; `None`: no value was recorded.
    pub value: Option<f64>,
    /// Number of measurements of a distribution.
    pub count: u64,
    /// Sum of the measurements.
    pub sum: Option<f64>,
    /// The smallest measurement.
    pub min: Option<f64>,
    /// The largest measurement.
    pub max: Option<f64>,
    /// Upper bounds of the buckets and their counts, in ascending order. The last bound of explicit
    /// buckets is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// Quantiles of a summary: from 0 to 1, and the value.
    pub quantiles: Vec<(f64, f64)>,
    /// The point's attributes.
    pub attributes: OtlpAttributes<'a>,
    /// The bytes of the point.
    pub encoded: &'a [u8],
}

/// `FLAG_NO_RECORDED_VALUE`
const NO_VALUE: u64 = 1;

/// Decodes a `Metric` and passes each of its points to `visit`. Returns the number of points that
/// can't be decoded.
pub(super) fn points<'a>(
    metric: Reader<'a>,
    mut visit: impl FnMut(&OtlpPoint<'a>),
) -> Result<u64, WireError> {
    let mut head = OtlpPoint::default();
    let mut data = None;
    let mut fields = metric;
    while !fields.is_empty() {
        match fields.tag()? {
            (1, LEN) => head.name = fields.text()?,
            (3, LEN) => head.unit = fields.text()?,
            (number @ (5 | 7 | 9..=11), LEN) => data = Some((number, fields.message()?)),
            (_, wire_type) => fields.skip(wire_type)?,
        }
    }
    let Some((number, data)) = data else { return Ok(0) };
    if head.name.is_empty() {
        return Err(metric.error(WireCause::FieldType(1)));
    }
    head.metric_type = match number {
        5 => OtlpMetricType::Gauge,
        7 => OtlpMetricType::Sum,
        11 => OtlpMetricType::Summary,
        _ => OtlpMetricType::Histogram,
    };
    let mut fields = data;
    while !fields.is_empty() {
        match fields.tag()? {
            // AGGREGATION_TEMPORALITY_CUMULATIVE
            (2, VARINT) => head.is_cumulative = fields.varint()? == 2,
            (3, VARINT) => head.is_monotonic = fields.varint()? != 0,
            (_, wire_type) => fields.skip(wire_type)?,
        }
    }
    head.is_cumulative |= head.metric_type == OtlpMetricType::Summary;
    let (mut fields, mut invalid) = (data, 0);
    while !fields.is_empty() {
        let (1, LEN) = fields.tag_or_skip(1)? else { continue };
        let one = fields.message()?;
        let mut point = OtlpPoint { encoded: one.rest(), ..head.without_data() };
        let read = match number {
            5 | 7 => point.number(one),
            9 => point.histogram(one),
            10 => point.exponential(one),
            _ => point.summary(one),
        };
        match read {
            Ok(()) => visit(&point),
            Err(_) => invalid += 1,
        }
    }
    Ok(invalid)
}

impl<'a> OtlpPoint<'a> {
    /// A point of the same metric.
    fn without_data(&self) -> Self {
        let Self { name, unit, metric_type, is_cumulative, is_monotonic, .. } = *self;
        Self { name, unit, metric_type, is_cumulative, is_monotonic, ..Self::default() }
    }

    /// Decodes a `NumberDataPoint`.
    fn number(&mut self, mut r: Reader<'a>) -> Result<(), WireError> {
        let mut flags = 0;
        while !r.is_empty() {
            match r.tag()? {
                (2, FIXED64) => self.start_ns = r.fixed64()?,
                (3, FIXED64) => self.time_ns = r.fixed64()?,
                (4, FIXED64) => self.value = Some(r.double()?),
                (6, FIXED64) => self.value = Some(r.fixed64()?.cast_signed() as f64),
                (7, LEN) => self.attributes.add(r.message()?),
                (8, VARINT) => flags = r.varint()?,
                (_, wire_type) => r.skip(wire_type)?,
            }
        }
        if flags & NO_VALUE != 0 {
            self.value = None;
        }
        Ok(())
    }

    /// Takes one of the fields 2 to 5, which all distributions have.
    fn distribution(&mut self, number: u32, bits: u64) {
        match number {
            2 => self.start_ns = bits,
            3 => self.time_ns = bits,
            4 => self.count = bits,
            _ => self.sum = Some(f64::from_bits(bits)),
        }
    }

    /// Decodes a `HistogramDataPoint`.
    fn histogram(&mut self, mut r: Reader<'a>) -> Result<(), WireError> {
        let (mut counts, mut bounds) = (Vec::new(), Vec::new());
        while !r.is_empty() {
            match r.tag()? {
                (number @ 2..=5, FIXED64) => self.distribution(number, r.fixed64()?),
                (6, LEN) => packed(r.message()?, &mut counts, Reader::fixed64)?,
                (7, LEN) => packed(r.message()?, &mut bounds, Reader::double)?,
                (9, LEN) => self.attributes.add(r.message()?),
                (11, FIXED64) => self.min = Some(r.double()?),
                (12, FIXED64) => self.max = Some(r.double()?),
                (_, wire_type) => r.skip(wire_type)?,
            }
        }
        if !counts.is_empty() && counts.len() != bounds.len() + 1 {
            return Err(r.error(WireCause::FieldType(6)));
        }
        self.buckets = bounds.into_iter().chain([f64::INFINITY]).zip(counts).collect();
        Ok(())
    }

    /// Decodes an `ExponentialHistogramDataPoint`.
    fn exponential(&mut self, mut r: Reader<'a>) -> Result<(), WireError> {
        let (mut scale, mut zeros) = (0, 0);
        let (mut positive, mut negative) = ((0, Vec::new()), (0, Vec::new()));
        while !r.is_empty() {
            match r.tag()? {
                (1, LEN) => self.attributes.add(r.message()?),
                (number @ 2..=5, FIXED64) => self.distribution(number, r.fixed64()?),
                (6, VARINT) => scale = r.zigzag()?,
                (7, FIXED64) => zeros = r.fixed64()?,
                (8, LEN) => positive = exponential_buckets(r.message()?)?,
                (9, LEN) => negative = exponential_buckets(r.message()?)?,
                (12, FIXED64) => self.min = Some(r.double()?),
                (13, FIXED64) => self.max = Some(r.double()?),
                (_, wire_type) => r.skip(wire_type)?,
            }
        }
        // A bucket ends at a power of 2^(2^-scale); a negative one at the opposite of its begin.
        let power = |index: i64| (index as f64 * (-scale as f64).exp2()).exp2();
        let bucket = |(offset, i): (i64, usize)| offset.saturating_add(i as i64);
        let below = negative.1.iter().enumerate().rev();
        let below = below.map(|(i, n)| (-power(bucket((negative.0, i))), *n));
        let above = positive.1.iter().enumerate();
        let above = above.map(|(i, n)| (power(bucket((positive.0, i)).saturating_add(1)), *n));
        self.buckets = below.chain([(0.0, zeros)]).chain(above).collect();
        Ok(())
    }

    /// Decodes a `SummaryDataPoint`.
    fn summary(&mut self, mut r: Reader<'a>) -> Result<(), WireError> {
        while !r.is_empty() {
            match r.tag()? {
                (number @ 2..=5, FIXED64) => self.distribution(number, r.fixed64()?),
                (6, LEN) if self.quantiles.len() < MAX_BUCKETS => {
                    let mut pair = r.message()?;
                    let (mut quantile, mut value) = (0.0, 0.0);
                    while !pair.is_empty() {
                        match pair.tag()? {
                            (1, FIXED64) => quantile = pair.double()?,
                            (2, FIXED64) => value = pair.double()?,
                            (_, wire_type) => pair.skip(wire_type)?,
                        }
                    }
                    self.quantiles.push((quantile, value));
                }
                (7, LEN) => self.attributes.add(r.message()?),
                (_, wire_type) => r.skip(wire_type)?,
            }
        }
        Ok(())
    }
}

/// Decodes the values of a packed field.
fn packed<'a, T>(
    mut values: Reader<'a>,
    into: &mut Vec<T>,
    read: impl Fn(&mut Reader<'a>) -> Result<T, WireError>,
) -> Result<(), WireError> {
    while !values.is_empty() {
        if into.len() > MAX_BUCKETS {
            return Err(values.error(WireCause::Truncated));
        }
        into.push(read(&mut values)?);
    }
    Ok(())
}

/// Decodes `Buckets`: the index of the first one, and their counts.
fn exponential_buckets(mut r: Reader<'_>) -> Result<(i64, Vec<u64>), WireError> {
    let (mut offset, mut counts) = (0, Vec::new());
    while !r.is_empty() {
        match r.tag()? {
            (1, VARINT) => offset = r.zigzag()?,
            (2, LEN) => packed(r.message()?, &mut counts, Reader::varint)?,
            (_, wire_type) => r.skip(wire_type)?,
        }
    }
    Ok((offset, counts))
}

impl Reader<'_> {
    fn double(&mut self) -> Result<f64, WireError> {
        self.fixed64().map(f64::from_bits)
    }

    /// Reads a `sint32` or `sint64`.
    fn zigzag(&mut self) -> Result<i64, WireError> {
        let n = self.varint()?;
        Ok((n >> 1).cast_signed() ^ -(n & 1).cast_signed())
    }
}
