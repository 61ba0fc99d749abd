//! A disturbance as a story.

use std::collections::{BTreeMap, BTreeSet};

use super::deviation::{Deviation, Fault, Feature};
use super::disturbance::Disturbance;
use super::evidence::{Calls, Evidence, Suspect};
use super::fact::{InstanceKind, InstanceNames, Key};
use super::wording::{Names, sentence, title};
use crate::shell_text::word;
use tapio_core::event::{
    Candidate, CauseEntity, Impact, Member, Name, Severity, Story, StoryState, Term, TraceId, names,
};

/// Candidates of a story.
const MAX_CANDIDATES: usize = 10;
/// Members of a story.
const MAX_MEMBERS: usize = 32;
/// Terms of a candidate.
const MAX_TERMS: usize = 6;
/// The name of the rule that such stories have.
const RULE: &str = "service-disturbance";

/// Names of terms differ, also where two are of one kind.
fn numbered(number: usize, name: &str) -> String {
    if number == 0 { name.to_owned() } else { format!("{name}_{}", number + 1) }
}

/// The pod, or the service where it has none; what has connections alone by what it is.
fn cause_entity(names: &InstanceNames) -> CauseEntity {
    let InstanceNames { kind, service, pod, namespace, node } = names;
    let (kind, name) = match kind {
        InstanceKind::Service if pod.is_empty() => ("service", service),
        InstanceKind::Service => ("pod", pod),
        InstanceKind::Container => ("container", service),
        InstanceKind::Unit => ("unit", service),
        InstanceKind::Program => ("process", service),
        InstanceKind::Endpoint => ("endpoint", service),
        InstanceKind::Address => ("address", service),
    };
    let slash = if namespace.is_empty() { "" } else { "/" };
    CauseEntity {
        kind: kind.into(),
        name: format!("{namespace}{slash}{name}"),
        node: node.clone(),
        ..CauseEntity::default()
    }
}

/// The key of a story: its likeliest suspect, and the address of its connections if it is about
/// these, else the address that others reach the suspect at. Rules' stories have it, too.
fn key(suspect: &Suspect, names: &Names) -> Vec<(String, String)> {
    let unknown = InstanceNames::default();
    let instance = names.get(suspect.instance).unwrap_or(&unknown);
    let InstanceNames { kind, service, pod, namespace, node } = instance;
    let mut found: Vec<(Name, &str)> = match kind {
        InstanceKind::Service if !pod.is_empty() && pod == service => {
            vec![(names::K8S_NAMESPACE_NAME, namespace), (names::K8S_POD_NAME, pod)]
        }
        InstanceKind::Service => vec![(names::SERVICE_NAME, service)],
        InstanceKind::Container => vec![(names::CONTAINER_NAME, service)],
        InstanceKind::Unit => vec![(names::HOST_NAME, node), (names::SYSTEMD_UNIT, service)],
        InstanceKind::Program => {
            vec![(names::HOST_NAME, node), (names::PROCESS_EXECUTABLE_NAME, service)]
        }
        InstanceKind::Endpoint | InstanceKind::Address if node.is_empty() => Vec::new(),
        InstanceKind::Endpoint | InstanceKind::Address => vec![(names::HOST_NAME, node)],
    };
    let strongest = suspect.evidence.first();
    let callee = strongest.and_then(|e| Some((e.instance, e.deviation.feature.connected_to()?)));
    let endpoint = callee.and_then(|pair| names.endpoint(pair));
    let endpoint = endpoint.or_else(|| names.endpoint_of(suspect.instance));
    if let Some((address, port)) = endpoint {
        found.push((names::NETWORK_PEER_ADDRESS, address));
        found.push((names::NETWORK_PEER_PORT, port));
    }
    // As rules name them.
    let is_entity = |name: Name| names::ENTITY_KEYS.contains(&name);
    let text = |name: Name| match is_entity(name) {
        true => name.text().to_owned(),
        false => format!("attributes.{}", name.text()),
    };
    found.into_iter().map(|(name, value)| (text(name), value.to_owned())).collect()
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
                    Feature::ConnectTime(_) => "connect_time",
                    Feature::Connection(Fault::Refused, _) => "refused_attempts",
                    Feature::Connection(Fault::TimedOut, _) => "timed_out",
                    Feature::Connection(Fault::Abandoned, _) => "abandoned_attempts",
                    Feature::Connection(Fault::Reset, _) => "resets",
                    Feature::Connection(Fault::Retransmitted, _) => "retransmits",
                },
            ),
            weight: evidence.strength,
            value: evidence.strength,
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
            value: suspect.score - suspect.own_score,
            because: format!("{} calls it and deviates, too", names.service(caller)),
        });
    } else if suspect.score < suspect.own_score {
        terms.push(Term {
            name: "explained_by_callee".into(),
            weight: suspect.score - suspect.own_score,
            value: suspect.score - suspect.own_score,
            because: "a service that it calls deviates, too".into(),
        });
    }
    let evidence = suspect.evidence.iter().take(MAX_TERMS).map(|e| e.deviation.example.1);
    Candidate {
        cause: format!("{}: {about}", names.instance(suspect.instance)),
        entity: names.get(suspect.instance).map(cause_entity),
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
    let instance = names.get(suspect.instance).unwrap_or(&unknown);
    let mut actions = Vec::new();
    let InstanceNames { kind, service, pod, namespace, .. } = instance;
    let has_pod = !pod.is_empty() && !namespace.is_empty();
    let [unit, pod, namespace] = [service, pod, namespace].map(|name| word(name));
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
    if *kind == InstanceKind::Unit {
        actions.push(format!("systemctl status {unit}"));
        actions.push(format!("journalctl -u {unit} --since -15m"));
    }
    let caller = names.service(strongest.instance);
    actions.push(match strongest.deviation.feature {
        Feature::OwnTime => {
            format!("Look for a lack of CPU, locks or garbage collection in {service}")
        }
        Feature::CallTime(callee) => {
            format!("Look for delay or loss between {caller} and {}", names.service(callee))
        }
        Feature::Connection(Fault::Refused, callee) => {
            let port = names.endpoint((strongest.instance, callee)).map_or("", |(_, port)| port);
            let port: String = port.chars().filter(char::is_ascii_digit).collect();
            let callee = names.service(callee);
            format!("Check that {callee} runs and listens: ss -ltnp 'sport = :{port}'")
        }
        Feature::Connection(Fault::Reset, callee) => format!(
            "Check whether {} restarts, is overloaded or has a shorter idle timeout than {caller}",
            names.service(callee)
        ),
        Feature::ConnectTime(callee) | Feature::Connection(_, callee) => format!(
            "Look for delay, loss or packet filters between {caller} and {}",
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
    let others = affected.iter().filter(|key| !names.instances.contains_key(*key));
    let all = (names.instances.len() + others.count()).max(1);
    let share = affected.len() as f64 / all as f64;
    let known = affected.iter().filter_map(|key| names.get(*key));
    let services: BTreeSet<String> = known.map(InstanceNames::affected).collect();
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

/// The kind and the source of the event that shows a deviation.
fn source(deviation: &Deviation) -> (Name, Name) {
    match deviation.feature {
        Feature::ConnectTime(_) => (names::KERNEL_TCP_CONNECT, names::EBPF),
        Feature::Connection(fault, _) => {
            let kind = match fault {
                Fault::Refused => names::KERNEL_TCP_REFUSED,
                Fault::TimedOut => names::KERNEL_TCP_TIMEOUT,
                Fault::Abandoned => names::KERNEL_TCP_CLOSE,
                Fault::Reset => names::KERNEL_TCP_RESET,
                Fault::Retransmitted => names::KERNEL_TCP_RETRANSMIT,
            };
            (kind, names::EBPF)
        }
        Feature::Logs(_) if deviation.now > deviation.usual => (names::OTLP_LOG, names::OTLP),
        _ => (names::OTLP_SPAN, names::OTLP),
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
        let (kind, source) = source(&evidence.deviation);
        let role = if Some(evidence.instance) == cause { "cause" } else { "effect" };
        let member = Member {
            id,
            label: String::new(),
            time_ns,
            kind: kind.text().into(),
            source: source.text().into(),
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
    let strongest = first.and_then(|suspect| suspect.evidence.first());
    let fails = strongest.is_some_and(|evidence| {
        matches!(
            evidence.deviation.feature,
            Feature::Failed | Feature::Connection(Fault::Refused | Fault::TimedOut, _)
        )
    });
    let z = strongest.map_or(0.0, |evidence| evidence.deviation.z);
    let members = members(suspects, names);
    Story {
        id: disturbance.id,
        trace_id: TraceId(disturbance.id.0),
        rule: RULE.into(),
        pattern: RULE.into(),
        name: first.map_or(String::new(), |suspect| title(suspect, names)),
        intent: "an application is slower, fails or works otherwise than learned".into(),
        state,
        revision: disturbance.revision,
        key: first.map_or(Vec::new(), |suspect| key(suspect, names)),
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
