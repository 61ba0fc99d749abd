//! Fixtures shared by the tests of the root package.
//!
//! | need | fixture |
//! | --- | --- |
//! | collectors under a `CollectorManager`, and their events as JSON | [`pipeline::Pipeline`] |
//! | the agent as a process, its configuration and its pages | [`agent::TestAgent`] |
//! | to wait for a condition | [`eventually::eventually`] |
//! | secrets in a source | [`planter::Planter`] |
//! | the search for them in all that leaves an agent | [`planted::PlantedAgent`] |
//! | an API server of Kubernetes with prepared objects | [`api_server::serve_objects`] |
//! | a server that refuses, fails or doesn't answer | [`scripted_server::ScriptedServer`] |
//! | a router without rules | [`router::OneShard`] |
//! | the value of an event's field | [`json::text`] |
//! | to run a test with many seeds, or one | [`seeds::run_each`] |
//! | to skip a test where the kernel lacks something | [`skip::skipped`] |
#![allow(dead_code, reason = "each test target uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "fixtures fail and print as tests do"
)]

pub(crate) mod agent;
pub(crate) mod api_server;
pub(crate) mod cgroup;
pub(crate) mod eventually;
pub(crate) mod ingest;
pub(crate) mod json;
pub(crate) mod net;
pub(crate) mod pipeline;
pub(crate) mod planted;
pub(crate) mod planter;
pub(crate) mod router;
pub(crate) mod scripted_server;
pub(crate) mod seeds;
pub(crate) mod sim_disk;
pub(crate) mod skip;
