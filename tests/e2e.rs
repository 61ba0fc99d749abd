//! Against the real thing: an API server with its etcd, and a node with kubelet, containerd and CNI, built and started by the
//! scripts in tests/testbed. `make test-e2e` gets what they need; elsewhere each test says why it is skipped.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail and speak as tests do, and measure with the clock themselves"
)]

#[path = "e2e/agent.rs"]
mod agent;
#[path = "systemd/machine.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod booted;
#[path = "e2e/cable.rs"]
mod cable;
#[path = "e2e/cluster.rs"]
mod cluster;
#[path = "e2e/collected.rs"]
mod collected;
#[path = "e2e/division.rs"]
mod division;
#[path = "agent/fixture.rs"]
mod fixture;
#[path = "e2e/hangs.rs"]
mod hangs;
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
#[path = "isolation/ordeal.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod ordeal;
#[path = "e2e/refusals.rs"]
mod refusals;
#[path = "container/runtime.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod runtime;
#[path = "e2e/stories.rs"]
mod stories;
