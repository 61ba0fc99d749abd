//! The attributes that events of each known kind can have: the table of `docs/kinds.md`. With it, a
//! rule that uses a field which its kind never has is rejected instead of never matching.

/// Attributes that events of every known kind can have.
const COMMON: &[&str] = &[
    "process.executable.name",
    "process.executable.path",
    "tapio.cgroup.path",
    "tapio.criticality",
    "tapio.event.id",
    "tapio.extra",
    "tapio.identity",
    "tapio.k8s.rollout.state",
    "tapio.truncated_bytes",
    "tapio.peer.k8s.pod.uid",
    "tapio.peer.k8s.pod.name",
    "tapio.peer.k8s.namespace.name",
    "tapio.peer.k8s.service.name",
    "tapio.peer.systemd.unit",
    "k8s.service.name",
    "k8s.volume.name",
    "k8s.persistentvolumeclaim.name",
    "k8s.pod.ip",
];

const TCP: &str = "network.transport network.type network.local.address network.local.port network.peer.address \
     network.peer.port tapio.tcp.state error.type tapio.tcp.duration_ns network.io.direction \
     tapio.tcp.incoming \
     tapio.tcp.retransmits process.owner.uid process.owner";
const BLOCK: &str = "tapio.block.device tapio.block.sector tapio.block.bytes tapio.block.operation \
     tapio.block.latency_ns error.type";
const UNIT_END: &str = "tapio.systemd.result process.exit.code tapio.signal.name tapio.signal.number \
     tapio.systemd.triggered_by tapio.systemd.restarts";
const POD: &str = "tapio.k8s.owner.kind process.exit.code k8s.container.restart_count \
     k8s.container.status.reason k8s.container.status.last_terminated_reason k8s.pod.status.reason \
     tapio.k8s.startup_ns tapio.k8s.pending_ns tapio.k8s.grace_period_s tapio.k8s.finalizers";
const CNI: &str = "tapio.cni.network tapio.cni.plugin tapio.cni.command tapio.cni.duration_ns \
     network.interface.name network.local.address error.type process.exit.code";
const LINK: &str = "network.interface.name tapio.link.kind network.local.address network.peer.address \
     tapio.network.prefix_length";
const CONTAINER: &str = "process.exit.code error.type tapio.container.namespace tapio.container.sandbox \
     tapio.container.duration_ns k8s.container.restart_count";

/// Each known kind with its own attributes, separated by spaces.
const KINDS: &[(&str, &[&str])] = &[
    (
        "kernel.process.exec",
        &["process.parent_pid process.owner.uid process.owner process.command_args \
           tapio.process.args_truncated process.working_directory \
           tapio.process.parent.executable.path tapio.process.parent.command_args"],
    ),
    ("kernel.process.fork", &["process.parent_pid process.owner.uid process.owner"]),
    (
        "kernel.process.exit",
        &["process.parent_pid tapio.process.duration_ns process.exit.code process.owner.uid \
           process.owner \
           tapio.signal.name tapio.signal.number tapio.signal.sender.pid \
           tapio.signal.sender.name"],
    ),
    (
        "kernel.process.oom_kill",
        &["tapio.oom.scope tapio.oom.rss_bytes tapio.oom.score_adj tapio.oom.killer.pid \
           tapio.oom.killer.name tapio.oom.cgroup tapio.oom.cgroup.id tapio.oom.limit_bytes \
           tapio.oom.usage_bytes process.owner.uid"],
    ),
    (
        "kernel.process.signal",
        &["tapio.signal.name tapio.signal.number tapio.signal.code tapio.signal.fatal \
           tapio.signal.sender.pid tapio.signal.sender.name process.owner.uid"],
    ),
    ("kernel.process.zombies", &["tapio.count"]),
    ("kernel.file.create", &["file.path process.parent_pid process.owner.uid process.owner"]),
    ("kernel.clock.changed", &["tapio.clock.jump_ns"]),
    ("kernel.tcp.connect", &[TCP]),
    ("kernel.tcp.accept", &[TCP]),
    ("kernel.tcp.close", &[TCP]),
    ("kernel.tcp.refused", &[TCP]),
    ("kernel.tcp.reset", &[TCP]),
    ("kernel.tcp.retransmit", &[TCP]),
    ("kernel.tcp.timeout", &[TCP]),
    ("kernel.block.error", &[BLOCK]),
    ("kernel.block.slow", &[BLOCK]),
    (
        "kernel.syscall.error_rate",
        &["error.type tapio.syscall.name tapio.syscall.number tapio.count tapio.window_ns"],
    ),
    ("kernel.syscall.enter", &["tapio.syscall.name tapio.syscall.number"]),
    (
        "kernel.log",
        &["tapio.block.device process.executable.name tapio.signal.name tapio.cgroup.path \
           tapio.oom.scope tapio.oom.cgroup tapio.oom.rss_bytes tapio.repeats"],
    ),
    (
        "kernel.pressure",
        &["tapio.pressure.resource tapio.pressure.some_percent tapio.pressure.usage_share"],
    ),
    (
        "systemd.unit.started",
        &["tapio.systemd.previous_result tapio.systemd.down_ns tapio.systemd.triggered_by \
           tapio.systemd.restarts"],
    ),
    ("systemd.unit.stopped", &[UNIT_END]),
    ("systemd.unit.reloaded", &[UNIT_END]),
    ("systemd.unit.failed", &[UNIT_END, "tapio.systemd.found tapio.systemd.failed_at"]),
    ("systemd.unit.restarting", &[UNIT_END]),
    ("systemd.unit.oom", &[UNIT_END]),
    (
        "systemd.job.failed",
        &["tapio.systemd.job.type tapio.systemd.job.result tapio.systemd.dependency"],
    ),
    (
        "journal.message",
        &["tapio.journal.identifier tapio.journal.message_id tapio.complaint.text \
           tapio.complaint.error"],
    ),
    (
        "journal.coredump",
        &["tapio.signal.name tapio.signal.number tapio.coredump.file tapio.journal.identifier \
           tapio.journal.message_id"],
    ),
    (
        "k8s.event",
        &["k8s.event.reason k8s.event.action k8s.event.name k8s.event.uid k8s.event.count \
           tapio.k8s.event.type tapio.k8s.event.component tapio.k8s.event.reread \
           tapio.k8s.object.kind tapio.k8s.object.name tapio.k8s.pod.watched"],
    ),
    ("k8s.pod.scheduled", &[POD]),
    ("k8s.pod.running", &[POD]),
    ("k8s.pod.ready", &[POD]),
    ("k8s.pod.pending", &[POD]),
    ("k8s.pod.crash_loop", &[POD]),
    ("k8s.pod.oom_killed", &[POD]),
    ("k8s.pod.evicted", &[POD]),
    ("k8s.pod.terminating", &[POD]),
    ("k8s.pod.deleted", &[POD]),
    (
        "k8s.node.condition",
        &["k8s.node.condition.type k8s.node.condition.status tapio.k8s.condition.reason"],
    ),
    (
        "k8s.deployment.rollout",
        &["tapio.k8s.rollout.state tapio.k8s.rollout.reason tapio.k8s.revision"],
    ),
    ("cni.add", &[CNI]),
    ("cni.del", &[CNI]),
    ("cni.check", &[CNI]),
    ("cni.failed", &[CNI]),
    ("cni.ip.allocated", &[CNI]),
    ("cni.ip.released", &[CNI]),
    ("network.link.down", &[LINK]),
    ("network.link.up", &[LINK]),
    ("network.address.added", &[LINK]),
    ("network.address.removed", &[LINK]),
    ("network.route.added", &[LINK]),
    ("network.route.removed", &[LINK]),
    ("network.neighbor.failed", &[LINK]),
    ("container.created", &[CONTAINER]),
    ("container.started", &[CONTAINER]),
    ("container.exited", &[CONTAINER]),
    ("container.oom", &[CONTAINER]),
    ("container.deleted", &[CONTAINER]),
    (
        "container.image.pulled",
        &["tapio.container.namespace tapio.image.digest tapio.image.pull_ns"],
    ),
    ("tapio.kernel.lost", &["tapio.lost.kind tapio.lost.reason tapio.lost.count"]),
    (
        "entity.relation",
        &["tapio.relation.type tapio.relation.from.type tapio.relation.from.name \
           tapio.relation.to.type tapio.relation.to.name tapio.relation.ended"],
    ),
];

/// The kinds whose attributes are known. Events of applications (`otlp.*`) can have any.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(kind, _)| *kind)
}

/// The attributes that events of a kind can have; `None` for an unknown kind.
#[must_use]
pub fn attributes(kind: &str) -> Option<Vec<&'static str>> {
    let (_, own) = KINDS.iter().find(|(known, _)| *known == kind)?;
    Some(
        own.iter().flat_map(|text| text.split_whitespace()).chain(COMMON.iter().copied()).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOC: &str = include_str!("../../../docs/kinds.md");

    /// The texts between backticks.
    fn code_spans(text: &str) -> Vec<&str> {
        text.split('`').skip(1).step_by(2).collect()
    }

    #[test]
    fn documented_kinds_equal_known_kinds() {
        let mut documented = Vec::new();
        for row in DOC.lines().filter(|l| l.starts_with("| `")) {
            let mut prefix = "";
            for word in code_spans(row.split('|').nth(1).unwrap()) {
                // `kernel.tcp.connect`, `accept`: the second one shares the first one's prefix.
                let kind = match word.rsplit_once('.') {
                    Some((before, _)) => {
                        prefix = before;
                        word.to_owned()
                    }
                    None => format!("{prefix}.{word}"),
                };
                documented.push(kind);
            }
        }
        for kind in &documented {
            assert!(
                kind.starts_with("otlp.") || attributes(kind).is_some(),
                "docs/kinds.md: unknown kind {kind}"
            );
        }
        let inner = ["kernel.syscall.enter", "tapio.kernel.lost", "entity.relation"];
        for kind in kinds().filter(|k| !inner.contains(k)) {
            assert!(documented.iter().any(|t| t == kind), "docs/kinds.md lacks {kind}");
        }
    }

    #[test]
    fn documented_attributes_are_known() {
        let all: Vec<&str> = kinds().flat_map(|k| attributes(k).unwrap()).collect();
        // Events of applications can have any attribute.
        let is_schema_row = |l: &&str| l.starts_with("| `") && !l.starts_with("| `otlp.");
        for row in DOC.lines().filter(is_schema_row) {
            for word in code_spans(row.split('|').nth(2).unwrap()) {
                let is_name = word.contains('.')
                    && !word.contains(['/', ':', ' ', '('])
                    && word.bytes().all(|b| b.is_ascii_lowercase() || b"._0123456789".contains(&b));
                let is_entity = crate::event::names::ENTITY_KEYS.iter().any(|e| e.text() == word);
                let known = || {
                    all.iter().any(|a| *a == word || (word.starts_with('.') && a.ends_with(word)))
                };
                assert!(
                    !is_name || is_entity || known(),
                    "docs/kinds.md: unknown attribute {word}"
                );
            }
        }
    }
}
