//! Disturbances in words.

use std::collections::{HashMap, HashSet};

use super::connections::attempts;
use super::deviation::{Deviation, Fault, Feature};
use super::evidence::{Evidence, Suspect};
use super::fact::{InstanceNames, Key};
use super::slow::Slowness;

/// The longest template in a text.
const MAX_TEMPLATE_CHARS: usize = 80;
/// From here on, what happens is counted by run. Estimates of shares can be a little above 1.
const MOST_RUNS: f64 = 1.05;

/// The texts behind the keys.
#[derive(Default)]
pub(super) struct Names {
    /// Of spans and log records.
    pub(super) instances: HashMap<Key, InstanceNames>,
    /// Of connections: owners and addresses.
    pub(super) owners: HashMap<Key, InstanceNames>,
    /// The address of each pair's latest connection.
    pub(super) endpoints: HashMap<(Key, Key), Key>,
    pub(super) texts: HashMap<Key, Box<str>>,
}

impl Names {
    pub(super) fn get(&self, key: Key) -> Option<&InstanceNames> {
        self.instances.get(&key).or_else(|| self.owners.get(&key))
    }

    pub(super) fn instance(&self, key: Key) -> &str {
        self.get(key).map_or("an unknown service", InstanceNames::text)
    }

    pub(super) fn service(&self, key: Key) -> &str {
        self.get(key).map_or("", |names| &names.service)
    }

    /// The address and the port of a pair's connections.
    pub(super) fn endpoint(&self, pair: (Key, Key)) -> Option<(&str, &str)> {
        let names = self.owners.get(self.endpoints.get(&pair)?)?;
        let (address, port) = names.service.rsplit_once(':')?;
        Some((address.trim_matches(['[', ']']), port))
    }

    /// The address and the port that others connect to an instance at; of several, the first.
    pub(super) fn endpoint_of(&self, callee: Key) -> Option<(&str, &str)> {
        let pairs = self.endpoints.keys().filter(|(_, of)| *of == callee);
        pairs.filter_map(|pair| self.endpoint(*pair)).min()
    }

    /// Adds an owner of connections, or an address. Where there is no room, those that no pair has
    /// are forgotten: a port scan has many. Returns whether there is room.
    pub(super) fn add_owner(&mut self, key: Key, names: InstanceNames, capacity: usize) -> bool {
        if self.owners.len() >= capacity && !self.owners.contains_key(&key) {
            let pairs = self.endpoints.iter();
            let used: HashSet<Key> =
                pairs.flat_map(|((caller, callee), at)| [*caller, *callee, *at]).collect();
            self.owners.retain(|key, _| used.contains(key));
            if self.owners.len() >= capacity {
                return false;
            }
        }
        // A pod's name may arrive after its uid.
        if names.pod.is_empty() && self.owners.get(&key).is_some_and(|known| !known.pod.is_empty())
        {
            return true;
        }
        self.owners.insert(key, names);
        true
    }

    fn text(&self, key: Key) -> &str {
        self.texts.get(&key).map_or("?", |text| text)
    }
}

fn duration(ns: f64) -> String {
    match ns {
        ns if ns < 1e5 => format!("{:.0} µs", ns / 1e3),
        ns if ns < 1e7 => format!("{:.1} ms", ns / 1e6),
        ns if ns < 1e9 => format!("{:.0} ms", ns / 1e6),
        ns => format!("{:.1} s", ns / 1e9),
    }
}

fn percent(share: f64) -> String {
    match share.min(1.0) * 100.0 {
        percent if percent > 0.0 && percent < 1.0 => format!("{percent:.1} %"),
        percent => format!("{percent:.0} %"),
    }
}

/// How long something takes, and what is usual, as the end of a sentence. `all`: what has the time.
fn time(deviation: &Deviation, all: &str) -> (String, String) {
    let Deviation { usual, now, slowness, .. } = deviation;
    match slowness {
        None => (duration(*now), format!(", usually {}", duration(*usual))),
        Some(Slowness { share, bound_ns, .. }) => {
            let (now, usual) = (percent(share.now), percent(share.usual));
            let often = format!(" in {now} of its {all}, usually in {usual}");
            (format!("more than {}", duration(*bound_ns)), often)
        }
    }
}

/// A deviation as a sentence about its instance.
pub(super) fn sentence(evidence: &Evidence, names: &Names) -> String {
    let operation = match evidence.operation {
        0 => String::new(),
        operation => format!("{} ", names.text(operation)),
    };
    let Deviation { feature, usual, now, .. } = evidence.deviation;
    let of = |each: &str, all: &str| match now.max(usual) {
        most if most > MOST_RUNS => format!("{now:.1} times {each}, usually {usual:.1}"),
        _ => format!("in {} of its {all}, usually in {}", percent(now), percent(usual)),
    };
    let shares = || of("a run", "runs");
    match feature {
        Feature::Failed => format!("{operation}fails {}", shares()),
        Feature::Logs(template) => {
            let template: String = names.text(template).chars().take(MAX_TEMPLATE_CHARS).collect();
            format!("{operation}logs \"{template}\" {}", shares())
        }
        Feature::Calls(service, callee) => {
            let callee = names.text(callee);
            let of = match names.service(service) {
                "" => String::new(),
                service => format!(" of {service}"),
            };
            format!("{operation}calls {callee}{of} {}", shares())
        }
        Feature::OwnTime => {
            let (now, usually) = time(&evidence.deviation, "runs");
            format!("{operation}takes {now} of its own time{usually}")
        }
        Feature::CallTime(callee) => {
            let (now, usually) = time(&evidence.deviation, "runs");
            let callee = names.instance(callee);
            format!("{operation}waits {now} for {callee} beyond its own time{usually}")
        }
        Feature::ConnectTime(callee) => {
            let (now, usually) = time(&evidence.deviation, "attempts");
            format!("connect time to {} {now}{usually}", names.instance(callee))
        }
        Feature::Connection(fault, callee) => {
            let often = if evidence.operation == attempts(callee) {
                of("an attempt to connect", "attempts to connect")
            } else {
                of("a connection", "connections")
            };
            let callee = names.instance(callee);
            match fault {
                Fault::Refused => format!("is refused by {callee} {often}"),
                Fault::TimedOut => format!("gets no answer from {callee} {often}"),
                Fault::Abandoned => format!("gives up connecting to {callee} {often}"),
                Fault::Reset => format!("is reset by {callee} {often}"),
                Fault::Retransmitted => format!("retransmits to {callee} {often}"),
            }
        }
    }
}

/// The name of a disturbance by its likeliest suspect.
pub(super) fn title(suspect: &Suspect, names: &Names) -> String {
    let name = names.service(suspect.instance);
    let feature = suspect.evidence.first().map(|evidence| evidence.deviation.feature);
    let Some((feature, callee)) = feature.and_then(|f| Some((f, f.connected_to()?))) else {
        return format!("{name} deviates from what it usually does");
    };
    let fault = match feature {
        Feature::Connection(Fault::Refused, _) => "are refused",
        Feature::Connection(Fault::TimedOut | Fault::Abandoned, _) => "get no answer",
        Feature::Connection(Fault::Reset, _) => "are reset",
        Feature::Connection(Fault::Retransmitted, _) => "lose packets",
        _ => "are slow to open",
    };
    let from_or_to = if callee == suspect.instance { "to" } else { "of" };
    format!("connections {from_or_to} {name} {fault}")
}
