//! A measure over a trailing window of one key: count, distinct values, sum, mean, percentile,
//! parts.

use std::collections::{HashMap, VecDeque};

use crate::lru::Lru;
use crate::rules::field::{append_key, build_key};
use crate::rules::{Aggregate, Measure, View};
use tapio_core::event::{ArchivedEvent, Value};

/// Events in a window; beyond it the oldest is removed, so that a flood of one key has bounded
/// memory.
const MAX_EVENTS: usize = 65_536;
/// Keys of an inner measure for one outer key.
const MAX_INNER_KEYS: usize = 1_024;

/// Running sum. Whole numbers are summed exactly; fractions with error compensation (Neumaier,
/// 1974), restarted from zero when the last fraction has left.
#[derive(Default)]
struct Sum {
    whole: i128,
    fractions: u64,
    sum: f64,
    error: f64,
}

impl Sum {
    fn add(&mut self, value: f64, sign: i8) {
        if value.fract() == 0.0 && value.abs() < 9e15 {
            self.whole += i128::from(value as i64) * i128::from(sign);
            return;
        }
        let signed = value * f64::from(sign);
        let next = self.sum + signed;
        self.error += if self.sum.abs() >= signed.abs() {
            (self.sum - next) + signed
        } else {
            (signed - next) + self.sum
        };
        self.sum = next;
        self.fractions = self.fractions.wrapping_add_signed(i64::from(sign));
        if self.fractions == 0 {
            (self.sum, self.error) = (0.0, 0.0);
        }
    }

    fn value(&self) -> f64 {
        self.whole as f64 + (self.sum + self.error)
    }
}

/// The values of the events in a window, by measure. Queues are in order of arrival.
enum Values {
    /// None: the events are only counted.
    None,
    Distinct {
        queue: VecDeque<Box<[u8]>>,
        counts: HashMap<Box<[u8]>, u32, ahash::RandomState>,
    },
    Sum {
        queue: VecDeque<f64>,
        sum: Sum,
    },
    Sorted {
        queue: VecDeque<f64>,
        sorted: Vec<f64>,
    },
    /// The last time of each part.
    Latest(Box<[Option<u64>]>),
    /// The last time of each part, and the latest start of a chain that ends with it.
    Chain(Box<[(Option<u64>, Option<u64>)]>),
}

/// The effect of an event on a measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Added {
    /// None: it lacks the measured field.
    Nothing,
    /// An inner measure added it and didn't fire.
    Inner,
    /// The measured value, the event included.
    Value(f64),
}

/// A measure with the events in its window.
pub(crate) struct WindowMeasure {
    /// The time of each event, and the index of the first counted event that it is.
    events: VecDeque<(u64, u8)>,
    values: Values,
    last_ns: u64,
    /// The inner measures, each by its keys.
    inner: Vec<Lru<Box<[u8]>, WindowMeasure>>,
}

fn number(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Int(n) => Some(n as f64),
        Value::Float(n) if n.is_finite() => Some(n),
        _ => None,
    }
}

impl Values {
    fn new(aggregate: &Aggregate) -> Self {
        let parts = usize::from(aggregate.parts);
        match aggregate.measure {
            Measure::Count => Self::None,
            Measure::Distinct(_) => {
                Self::Distinct { queue: VecDeque::new(), counts: HashMap::default() }
            }
            Measure::Sum(_) | Measure::Avg(_) => {
                Self::Sum { queue: VecDeque::new(), sum: Sum::default() }
            }
            Measure::Percentile(..) => Self::Sorted { queue: VecDeque::new(), sorted: Vec::new() },
            Measure::AnyOrder => Self::Latest(vec![None; parts].into()),
            Measure::InOrder => Self::Chain(vec![(None, None); parts].into()),
        }
    }

    /// Removes the oldest event.
    fn pop(&mut self) {
        match self {
            Self::Distinct { queue, counts } => {
                if let Some(value) = queue.pop_front()
                    && let Some(count) = counts.get_mut(&value)
                {
                    *count -= 1;
                    if *count == 0 {
                        counts.remove(&value);
                    }
                }
            }
            Self::Sum { queue, sum } => {
                if let Some(value) = queue.pop_front() {
                    sum.add(value, -1);
                }
            }
            Self::Sorted { queue, sorted } => {
                if let Some(value) = queue.pop_front() {
                    let at = sorted.partition_point(|v| *v < value);
                    sorted.remove(at);
                }
            }
            Self::None | Self::Latest(_) | Self::Chain(_) => {}
        }
    }

    /// Removes the times of parts before the window.
    fn expire_parts(&mut self, oldest_ns: u64) {
        let expire = |time: &mut Option<u64>| {
            time.take_if(|t| *t < oldest_ns);
        };
        match self {
            Self::Latest(latest) => latest.iter_mut().for_each(expire),
            Self::Chain(chain) => chain.iter_mut().for_each(|(last, start)| {
                expire(last);
                expire(start);
            }),
            _ => {}
        }
    }

    /// Adds an event. False if it lacks the measured field.
    fn push(&mut self, time_ns: u64, parts: &[u8], value: Option<Value<'_>>) -> bool {
        match self {
            Self::None => {}
            Self::Distinct { queue, counts } => {
                let mut bytes = Vec::new();
                if !value.is_some_and(|v| append_key(&mut bytes, v)) {
                    return false;
                }
                let bytes: Box<[u8]> = bytes.into();
                *counts.entry(bytes.clone()).or_default() += 1;
                queue.push_back(bytes);
            }
            Self::Sum { queue, sum } => {
                let Some(n) = value.and_then(number) else { return false };
                queue.push_back(n);
                sum.add(n, 1);
            }
            Self::Sorted { queue, sorted } => {
                let Some(n) = value.and_then(number) else { return false };
                queue.push_back(n);
                sorted.insert(sorted.partition_point(|v| *v < n), n);
            }
            Self::Latest(latest) => {
                parts.iter().for_each(|part| latest[usize::from(*part)] = Some(time_ns));
            }
            Self::Chain(chain) => link(chain, parts, time_ns),
        }
        true
    }
}

/// Adds an event to a chain. An event of the same time can arrive before the one that precedes it
/// in the chain, so all parts seen at this time are evaluated again.
fn link(chain: &mut [(Option<u64>, Option<u64>)], parts: &[u8], time_ns: u64) {
    for i in parts {
        chain[usize::from(*i)].0 = Some(time_ns);
    }
    for at in 0..chain.len() {
        if chain[at].0 != Some(time_ns) {
            continue;
        }
        let start = if at == 0 { Some(time_ns) } else { chain[at - 1].1 };
        chain[at].1 = chain[at].1.max(start);
    }
}

impl WindowMeasure {
    pub(crate) fn new(aggregate: &Aggregate) -> Self {
        Self {
            events: VecDeque::new(),
            values: Values::new(aggregate),
            last_ns: 0,
            inner: aggregate.inner.iter().map(|_| Lru::new(MAX_INNER_KEYS)).collect(),
        }
    }

    /// Removes the events before the window that ends at `time_ns`.
    pub(crate) fn expire(&mut self, aggregate: &Aggregate, time_ns: u64) {
        let oldest_ns = time_ns.saturating_sub(aggregate.within_ns);
        while self.events.front().is_some_and(|(t, _)| *t < oldest_ns)
            || self.events.len() >= MAX_EVENTS
        {
            self.events.pop_front();
            self.values.pop();
        }
        self.values.expire_parts(oldest_ns);
    }

    /// The value over the events from `end_ns` less the window's length on, all of which are before
    /// `end_ns`; `None` without any. Earlier ones are removed.
    pub(crate) fn until(&mut self, aggregate: &Aggregate, end_ns: u64) -> Option<f64> {
        self.expire(aggregate, end_ns);
        (!self.events.is_empty()).then(|| self.value(aggregate.measure))
    }

    /// Adds an event that is `counted` (indexes of the rule's counted events).
    pub(crate) fn add(
        &mut self,
        aggregate: &Aggregate,
        counted: &[u8],
        event: &ArchivedEvent<'_>,
        time_ns: u64,
    ) -> Added {
        self.expire(aggregate, time_ns);
        let (parts, added_inside) = if aggregate.inner.is_empty() {
            (None, false)
        } else {
            let (parts, added_inside) = self.parts(aggregate, counted, event, time_ns);
            (Some(parts), added_inside)
        };
        // Without inner measures, each counted event is a part.
        let parts = parts.as_deref().unwrap_or(counted);
        let value = aggregate.measure.field().and_then(|f| event.field(f));
        let added = !parts.is_empty() && self.values.push(time_ns, parts, value);
        if added {
            self.events.push_back((time_ns, counted.first().copied().unwrap_or(0)));
        }
        if added || added_inside {
            self.last_ns = self.last_ns.max(time_ns);
        }
        match (added, added_inside) {
            (true, _) => Added::Value(self.value(aggregate.measure)),
            (false, true) => Added::Inner,
            (false, false) => Added::Nothing,
        }
    }

    /// The parts that an event counts as, and whether an inner measure added it.
    fn parts(
        &mut self,
        aggregate: &Aggregate,
        counted: &[u8],
        event: &ArchivedEvent<'_>,
        time_ns: u64,
    ) -> (Vec<u8>, bool) {
        let of = |i: &u8| &aggregate.events[usize::from(*i)];
        let mut parts: Vec<u8> =
            counted.iter().map(of).filter(|c| c.through.is_none()).map(|c| c.part).collect();
        let mut added_inside = false;
        for (number, (inner, by_key)) in (0u8..).zip(aggregate.inner.iter().zip(&mut self.inner)) {
            let through: Vec<_> = counted
                .iter()
                .map(of)
                .filter_map(|c| c.through.filter(|t| t.0 == number).map(|t| (t.1, c.part)))
                .collect();
            let Some((first, part)) = through.first().copied() else { continue };
            let mut key = Vec::new();
            if !build_key(event, &inner.events[usize::from(first)].by, &mut key) {
                continue;
            }
            if by_key.get(&key[..]).is_none() {
                by_key.insert(key.clone().into(), Self::new(inner));
            }
            let Some(measure) = by_key.get(&key[..]) else { continue };
            let leaves: Vec<u8> = through.iter().map(|t| t.0).collect();
            let added = measure.add(inner, &leaves, event, time_ns);
            added_inside |= added != Added::Nothing;
            if let Added::Value(value) = added
                && measure.fires(inner, value)
            {
                parts.push(part);
            }
        }
        (parts, added_inside)
    }

    /// Whether the measure's condition holds.
    pub(crate) fn fires(&self, aggregate: &Aggregate, value: f64) -> bool {
        aggregate.condition.holds(value, |part| match &self.values {
            Values::Latest(latest) => latest.get(usize::from(part)).is_some_and(Option::is_some),
            _ => false,
        })
    }

    fn value(&self, measure: Measure) -> f64 {
        match &self.values {
            Values::None => self.events.len() as f64,
            Values::Distinct { counts, .. } => counts.len() as f64,
            Values::Sum { queue, sum } => match measure {
                Measure::Avg(_) => sum.value() / queue.len().max(1) as f64,
                _ => sum.value(),
            },
            Values::Sorted { sorted, .. } => {
                let percent = if let Measure::Percentile(_, p) = measure { p } else { 50.0 };
                let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
                sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
            }
            Values::Latest(latest) => latest.iter().flatten().count() as f64,
            Values::Chain(chain) => match chain.last() {
                Some((_, Some(_))) => chain.len() as f64,
                _ => 0.0,
            },
        }
    }

    /// When the windows will be empty.
    pub(crate) fn empty_ns(&self, aggregate: &Aggregate) -> u64 {
        self.last_ns.saturating_add(aggregate.span_ns())
    }

    /// The time of each event in the window, and the index of the first counted event that it is.
    pub(crate) fn events(&self) -> &VecDeque<(u64, u8)> {
        &self.events
    }
}
