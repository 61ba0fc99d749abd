//! The trailing window of a measure for one key.

use std::collections::{HashMap, VecDeque};

use super::members::{Hand, Members};
use super::rules::field::append_key;
use super::rules::{Aggregate, Measure, View};
use crate::event::{ArchivedEvent, EventId, TraceId, Value};

/// Events a window remembers; past it the oldest is forgotten, so that a flood of one key costs
/// memory up to here and no more.
const MAX_EVENTS: usize = 65_536;

/// Whole numbers are summed exactly; fractions with the rounding error carried along (Neumaier,
/// 1974), and from nothing again when the last one has left.
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

/// What a window remembers of its events, by what is measured. All queues are in order of arrival.
enum Values {
    Times(VecDeque<u64>),
    Distinct {
        queue: VecDeque<(u64, Box<[u8]>)>,
        counts: HashMap<Box<[u8]>, u32, ahash::RandomState>,
    },
    Sum {
        queue: VecDeque<(u64, f64)>,
        sum: Sum,
    },
    Sorted {
        queue: VecDeque<(u64, f64)>,
        sorted: Vec<f64>,
    },
    /// When each event was seen last.
    Latest(Box<[Option<u64>]>),
    /// When each event was seen last, and the latest beginning of a chain that ends with it.
    Chain(Box<[(Option<u64>, Option<u64>)]>),
}

/// The trailing window of a measure for one key.
pub(super) struct Window {
    values: Values,
    last_ns: u64,
    pub(super) trace: TraceId,
    pub(super) members: Members,
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
        let events = aggregate.events.len();
        match aggregate.measure {
            Measure::Count => Self::Times(VecDeque::new()),
            Measure::Distinct(_) => {
                Self::Distinct { queue: VecDeque::new(), counts: HashMap::default() }
            }
            Measure::Sum(_) | Measure::Avg(_) => {
                Self::Sum { queue: VecDeque::new(), sum: Sum::default() }
            }
            Measure::Percentile(..) => Self::Sorted { queue: VecDeque::new(), sorted: Vec::new() },
            Measure::AnyOrder => Self::Latest(vec![None; events].into()),
            Measure::InOrder => Self::Chain(vec![(None, None); events].into()),
        }
    }

    /// How many events it remembers, where it remembers each.
    fn len(&self) -> Option<usize> {
        match self {
            Self::Times(queue) => Some(queue.len()),
            Self::Distinct { queue, .. } => Some(queue.len()),
            Self::Sum { queue, .. } | Self::Sorted { queue, .. } => Some(queue.len()),
            Self::Latest(_) | Self::Chain(_) => None,
        }
    }

    fn front_ns(&self) -> Option<u64> {
        match self {
            Self::Times(queue) => queue.front().copied(),
            Self::Distinct { queue, .. } => queue.front().map(|(t, _)| *t),
            Self::Sum { queue, .. } | Self::Sorted { queue, .. } => queue.front().map(|(t, _)| *t),
            Self::Latest(latest) => latest.iter().flatten().min().copied(),
            Self::Chain(chain) => chain.iter().filter_map(|(last, _)| *last).min(),
        }
    }

    fn pop(&mut self) {
        match self {
            Self::Times(queue) => {
                queue.pop_front();
            }
            Self::Distinct { queue, counts } => {
                if let Some((_, value)) = queue.pop_front()
                    && let Some(count) = counts.get_mut(&value)
                {
                    *count -= 1;
                    if *count == 0 {
                        counts.remove(&value);
                    }
                }
            }
            Self::Sum { queue, sum } => {
                if let Some((_, value)) = queue.pop_front() {
                    sum.add(value, -1);
                }
            }
            Self::Sorted { queue, sorted } => {
                if let Some((_, value)) = queue.pop_front() {
                    let at = sorted.partition_point(|v| *v < value);
                    sorted.remove(at);
                }
            }
            Self::Latest(_) | Self::Chain(_) => {}
        }
    }

    /// Forgets what lies before the window.
    fn expire(&mut self, oldest_ns: u64) {
        match self {
            Self::Latest(latest) => {
                latest.iter_mut().for_each(|t| {
                    t.take_if(|t| *t < oldest_ns);
                });
            }
            Self::Chain(chain) => {
                for (last, start) in chain {
                    last.take_if(|t| *t < oldest_ns);
                    start.take_if(|t| *t < oldest_ns);
                }
            }
            _ => {
                while self.front_ns().is_some_and(|t| t < oldest_ns)
                    || self.len().is_some_and(|n| n >= MAX_EVENTS)
                {
                    self.pop();
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.front_ns().is_none()
    }

    /// Takes an event in. False where it hasn't the field that is measured.
    fn push(&mut self, time_ns: u64, counted: &[u8], value: Option<Value<'_>>) -> bool {
        match self {
            Self::Times(queue) => queue.push_back(time_ns),
            Self::Distinct { queue, counts } => {
                let mut bytes = Vec::new();
                if !value.is_some_and(|v| append_key(&mut bytes, v)) {
                    return false;
                }
                let bytes: Box<[u8]> = bytes.into();
                *counts.entry(bytes.clone()).or_default() += 1;
                queue.push_back((time_ns, bytes));
            }
            Self::Sum { queue, sum } => {
                let Some(n) = value.and_then(number) else { return false };
                queue.push_back((time_ns, n));
                sum.add(n, 1);
            }
            Self::Sorted { queue, sorted } => {
                let Some(n) = value.and_then(number) else { return false };
                queue.push_back((time_ns, n));
                sorted.insert(sorted.partition_point(|v| *v < n), n);
            }
            Self::Latest(latest) => {
                counted.iter().for_each(|i| latest[usize::from(*i)] = Some(time_ns));
            }
            Self::Chain(chain) => link(chain, counted, time_ns),
        }
        true
    }

    fn value(&self, measure: Measure) -> f64 {
        match self {
            Self::Times(queue) => queue.len() as f64,
            Self::Distinct { counts, .. } => counts.len() as f64,
            Self::Sum { queue, sum } => match measure {
                Measure::Avg(_) => sum.value() / queue.len().max(1) as f64,
                _ => sum.value(),
            },
            Self::Sorted { sorted, .. } => {
                let percent = if let Measure::Percentile(_, p) = measure { p } else { 50.0 };
                let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
                sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
            }
            Self::Latest(latest) => latest.iter().flatten().count() as f64,
            Self::Chain(chain) => match chain.last() {
                Some((_, Some(_))) => chain.len() as f64,
                _ => 0.0,
            },
        }
    }
}

/// Adds an event to a chain. An event of the same time may have come before the one it follows in
/// the chain, so every event seen at this very time is looked at again.
fn link(chain: &mut [(Option<u64>, Option<u64>)], counted: &[u8], time_ns: u64) {
    for i in counted {
        chain[usize::from(*i)].0 = Some(time_ns);
    }
    for at in 0..chain.len() {
        if chain[at].0 != Some(time_ns) {
            continue;
        }
        let begins = if at == 0 { Some(time_ns) } else { chain[at - 1].1 };
        chain[at].1 = chain[at].1.max(begins);
    }
}

impl Window {
    pub(super) fn new(aggregate: &Aggregate) -> Self {
        Self {
            values: Values::new(aggregate),
            last_ns: 0,
            trace: TraceId::default(),
            members: Members::default(),
        }
    }

    /// Adds an event that is `counted` (numbers of the rule's counted events). Returns the measure,
    /// it included, and the ends of the members before it; `None` where it hasn't the measured
    /// field. `open` gives the trace when the window was empty; while `told`, members stay even
    /// when their time has left the window.
    pub(super) fn add(
        &mut self,
        aggregate: &Aggregate,
        counted: &[u8],
        event: &ArchivedEvent<'_>,
        hand: &mut Hand<'_>,
        told: bool,
        open: impl FnOnce() -> TraceId,
    ) -> Option<(f64, [EventId; 2])> {
        let oldest_ns = hand.time_ns.saturating_sub(aggregate.within_ns);
        self.values.expire(oldest_ns);
        let was_empty = self.values.is_empty();
        let value = aggregate.measure.field().and_then(|f| event.field(f));
        if !self.values.push(hand.time_ns, counted, value) {
            return None;
        }
        if was_empty && !told {
            self.members = Members::default();
            self.trace = open();
        } else if !told {
            self.members.kept.retain(|k| k.record.record().header().time_ns >= oldest_ns);
            let before = self.values.len().map(|n| n - 1);
            self.members.total = before.unwrap_or(self.members.kept.len()) as u64;
            self.members.first_ns = self.values.front_ns().unwrap_or(hand.time_ns);
        }
        self.last_ns = hand.time_ns;
        let before = self.members.ends;
        let first = counted.first().copied().unwrap_or(0);
        let number = aggregate.events[usize::from(first)].event;
        self.members.add(hand, first, number as u16);
        Some((self.values.value(aggregate.measure), before))
    }

    /// When the window will be empty.
    pub(super) fn deadline_ns(&self, aggregate: &Aggregate) -> Option<u64> {
        (!self.values.is_empty()).then(|| self.last_ns.saturating_add(aggregate.within_ns))
    }
}
