//! Tests on real components: an API server with its etcd, and a node with kubelet, containerd and
//! CNI, built and started by the scripts in tests/testbed. `make test-e2e` provides what they need;
//! otherwise each test prints why it is skipped.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "test helpers may panic, print and read the clock"
)]

#[path = "e2e/agent.rs"]
mod agent;
#[path = "e2e/cluster.rs"]
mod cluster;
#[path = "e2e/collector_run.rs"]
mod collector_run;
#[path = "isolation/fault_injection.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod fault_injection;
#[path = "e2e/isolation.rs"]
mod isolation;
#[path = "e2e/kubernetes.rs"]
mod kubernetes;
#[path = "e2e/machine.rs"]
mod machine;
#[path = "e2e/memory.rs"]
mod memory;
#[path = "e2e/node.rs"]
mod node;
#[path = "e2e/objects_without_node.rs"]
mod objects_without_node;
#[path = "e2e/pod_faults.rs"]
mod pod_faults;
#[path = "e2e/proxy.rs"]
mod proxy;
#[path = "container/runtime.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod runtime;
#[path = "e2e/server_errors.rs"]
mod server_errors;
#[path = "e2e/stories.rs"]
mod stories;
#[path = "support/mod.rs"]
mod support;
#[path = "systemd/machine.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod systemd_machine;
#[path = "e2e/unresponsive_peers.rs"]
mod unresponsive_peers;
