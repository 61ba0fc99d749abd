//! A disturbance as a story.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::blame::{Calls, Evidence, Suspect};
use super::disturbance::Disturbance;
use super::fact::{InstanceNames, Key};
use super::operation::{Deviation, Feature};
use tapio_core::event::{
    Candidate, CauseEntity, Impact, Member, Severity, Story, StoryState, Term, TraceId, names,
};

/// Candidates of a story.
const MAX_CANDIDATES: usize = 10;
/// Members of a story.
const MAX_MEMBERS: usize = 32;
/// Terms of a candidate.
const MAX_TERMS: usize = 6;
/// The longest template in a text.
const MAX_TEMPLATE_CHARS: usize = 80;
/// From here on, what happens is counted by run. Estimates of shares can be a little above 1.
const MOST_RUNS: f64 = 1.05;
/// The name of the rule that such stories have.
const RULE: &str = "service-disturbance";

/// The texts behind the keys.
#[derive(Default)]
pub(super) struct Names {
    pub(super) instances: HashMap<Key, InstanceNames>,
    pub(super) texts: HashMap<Key, Box<str>>,
}

impl Names {
    fn instance(&self, key: Key) -> &str {
        self.instances.get(&key).map_or("an unknown service", InstanceNames::text)
    }

    fn service(&self, key: Key) -> &str {
        self.instances.get(&key).map_or("", |names| &names.service)
    }

    fn text(&self, key: Key) -> &str {
        self.texts.get(&key).map_or("?", |text| text)
    }
}

fn milliseconds(ns: f64) -> String {
    match ns {
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

/// A deviation as a sentence about its instance.
fn sentence(evidence: &Evidence, names: &Names) -> String {
    let operation = match evidence.operation {
        0 => String::new(),
        operation => format!("{} ", names.text(operation)),
    };
    let Deviation { feature, usual, now, .. } = evidence.deviation;
    let shares = || match now.max(usual) {
        most if most > MOST_RUNS => format!("{now:.1} times a run, usually {usual:.1}"),
        _ => format!("in {} of its runs, usually in {}", percent(now), percent(usual)),
    };
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
            let (now, usual) = (milliseconds(now), milliseconds(usual));
            format!("{operation}takes {now} of its own time, usually {usual}")
        }
        Feature::CallTime(callee) => {
            let (now, usual) = (milliseconds(now), milliseconds(usual));
            let callee = names.instance(callee);
            format!("{operation}waits {now} for {callee} beyond its own time, usually {usual}")
        }
    }
}

/// Names of terms differ, also where two are of one kind.
fn numbered(number: usize, name: &str) -> String {
    if number == 0 { name.to_owned() } else { format!("{name}_{}", number + 1) }
}

/// The pod, or the service where it has none.
fn cause_entity(names: &InstanceNames) -> CauseEntity {
    let InstanceNames { service, pod, namespace } = names;
    let (kind, name) = if pod.is_empty() { ("service", service) } else { ("pod", pod) };
    let slash = if namespace.is_empty() { "" } else { "/" };
    CauseEntity {
        kind: kind.into(),
        name: format!("{namespace}{slash}{name}"),
        ..CauseEntity::default()
    }
}

fn candidate(suspect: &Suspect, names: &Names) -> Candidate {
    let strongest = suspect.evidence.first();
    let about = strongest.map_or(String::new(), |evidence| match evidence.instance {
        own if own == suspect.instance => sentence(evidence, names),
        caller => format!("{}: {}", names.service(caller), sentence(evidence, names)),
    });
    let mut terms: Vec<Term> = suspect
        .evidence
        .iter()
        .take(MAX_TERMS)
        .enumerate()
        .map(|(number, evidence)| Term {
            name: numbered(
                number,
                match evidence.deviation.feature {
                    Feature::Failed => "failed_runs",
                    Feature::Logs(_) => "log_template",
                    Feature::Calls(..) => "calls",
                    Feature::OwnTime => "own_time",
                    Feature::CallTime(_) => "call_time",
                },
            ),
            weight: evidence.strength,
            because: format!(
                "{}: {} ({:.1} standard deviations)",
                names.service(evidence.instance),
                sentence(evidence, names),
                evidence.deviation.z
            ),
        })
        .collect();
    if let Some(caller) = suspect.explains {
        terms.push(Term {
            name: "explains_caller".into(),
            weight: suspect.score - suspect.own_score,
            because: format!("{} calls it and deviates, too", names.service(caller)),
        });
    } else if suspect.score < suspect.own_score {
        terms.push(Term {
            name: "explained_by_callee".into(),
            weight: suspect.score - suspect.own_score,
            because: "a service that it calls deviates, too".into(),
        });
    }
    let evidence = suspect.evidence.iter().take(MAX_TERMS).map(|e| e.deviation.example.1);
    Candidate {
        cause: format!("{}: {about}", names.instance(suspect.instance)),
        entity: names.instances.get(&suspect.instance).map(cause_entity),
        evidence: evidence.collect(),
        labels: Vec::new(),
        score: suspect.score,
        terms,
    }
}

/// Steps for the operator, by the strongest evidence of the likeliest suspect.
fn actions(suspect: &Suspect, names: &Names) -> Vec<String> {
    let Some(strongest) = suspect.evidence.first() else { return Vec::new() };
    let unknown = InstanceNames::default();
    let instance = names.instances.get(&suspect.instance).unwrap_or(&unknown);
    let mut actions = Vec::new();
    let InstanceNames { service, pod, namespace } = instance;
    let has_pod = !pod.is_empty() && !namespace.is_empty();
    match strongest.deviation.feature {
        Feature::OwnTime if has_pod => {
            actions.push(format!("kubectl -n {namespace} top pod {pod} --containers"));
        }
        Feature::CallTime(_) if has_pod => {
            actions.push(format!("kubectl -n {namespace} get pod {pod} -o wide"));
        }
        _ => {}
    }
    if has_pod {
        actions.push(format!("kubectl -n {namespace} logs {pod} --since=15m"));
        actions.push(format!("kubectl -n {namespace} describe pod {pod}"));
    }
    actions.push(match strongest.deviation.feature {
        Feature::OwnTime => {
            format!("Look for a lack of CPU, locks or garbage collection in {service}")
        }
        Feature::CallTime(callee) => format!(
            "Look for delay or loss between {} and {}",
            names.service(strongest.instance),
            names.service(callee)
        ),
        _ => {
            format!("Compare with the last deployment of {service} and of its configuration")
        }
    });
    actions
}

fn impact(suspects: &[Suspect], calls: &Calls, names: &Names) -> Impact {
    let affected: BTreeSet<Key> = suspects.iter().map(|suspect| suspect.instance).collect();
    let callees: BTreeSet<Key> = calls.values().flatten().copied().collect();
    // Nobody calls it: requests enter there.
    let entries = affected.iter().filter(|key| !callees.contains(key) && calls.contains_key(key));
    let entries = entries.count();
    let all = names.instances.len().max(1);
    let share = affected.len() as f64 / all as f64;
    let services: BTreeSet<String> =
        affected.iter().map(|key| format!("service {}", names.service(*key))).collect();
    let mut evidence = vec![format!("{} of {all} instances deviate", affected.len())];
    if entries > 0 {
        evidence.push(format!("{entries} of them take requests from outside"));
    }
    Impact {
        business: (0.2 + share + if entries > 0 { 0.3 } else { 0.0 }).min(1.0),
        customer_facing: entries > 0,
        slo_impact: entries > 0,
        affected: services.into_iter().collect(),
        evidence,
    }
}

fn members(suspects: &[Suspect], names: &Names) -> Vec<Member> {
    let cause = suspects.first().map(|suspect| suspect.instance);
    let mut members = BTreeMap::new();
    let mut all: Vec<&Evidence> = suspects.iter().flat_map(|suspect| &suspect.evidence).collect();
    all.sort_by(|a, b| b.strength.total_cmp(&a.strength));
    for evidence in all {
        let (time_ns, id) = evidence.deviation.example;
        if members.len() >= MAX_MEMBERS || members.contains_key(&(time_ns, id)) {
            continue;
        }
        let is_log = matches!(evidence.deviation.feature, Feature::Logs(_))
            && evidence.deviation.now > evidence.deviation.usual;
        let kind = if is_log { names::OTLP_LOG } else { names::OTLP_SPAN };
        let role = if Some(evidence.instance) == cause { "cause" } else { "effect" };
        let member = Member {
            id,
            label: String::new(),
            time_ns,
            kind: kind.text().into(),
            source: names::OTLP.text().into(),
            severity: Severity::WARN,
            role: role.into(),
            pattern: String::new(),
            summary: format!(
                "{}: {}",
                names.instance(evidence.instance),
                sentence(evidence, names)
            ),
        };
        members.insert((time_ns, id), member);
    }
    members.into_values().collect()
}

/// The story of a disturbance with these suspects.
pub(super) fn story(
    disturbance: &Disturbance,
    state: StoryState,
    suspects: &[Suspect],
    calls: &Calls,
    names: &Names,
) -> Story {
    let first = suspects.first();
    let service = first.map_or("", |suspect| names.service(suspect.instance));
    let strongest = first.and_then(|suspect| suspect.evidence.first());
    let fails = strongest.is_some_and(|e| e.deviation.feature == Feature::Failed);
    let z = strongest.map_or(0.0, |evidence| evidence.deviation.z);
    let members = members(suspects, names);
    Story {
        id: disturbance.id,
        trace_id: TraceId(disturbance.id.0),
        rule: RULE.into(),
        pattern: RULE.into(),
        name: format!("{service} deviates from what it usually does"),
        intent: "an application is slower, fails or works otherwise than learned".into(),
        state,
        revision: disturbance.revision,
        key: vec![(names::SERVICE_NAME.text().into(), service.into())],
        members_total: members.len() as u64,
        members,
        first_ns: disturbance.first_ns,
        last_ns: disturbance.last_ns,
        severity: if fails { Severity::ERROR } else { Severity::WARN },
        root_cause: suspects.iter().take(MAX_CANDIDATES).map(|s| candidate(s, names)).collect(),
        impact: impact(suspects, calls, names),
        actions: first.map_or(Vec::new(), |suspect| actions(suspect, names)),
        confidence: z / (z + 6.0),
        continues: None,
        provisional: None,
        incident: None,
    }
}
