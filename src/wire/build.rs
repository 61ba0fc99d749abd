//! Generates the types and services of `proto/tapio/v1/tapio.proto`. protox parses it: no protoc
//! needed.

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The folder of the protocol definitions, relative to this package.
const PROTO: &str = "../../proto";

fn main() -> Outcome {
    let proto = format!("{PROTO}/tapio/v1/tapio.proto");
    println!("cargo::rerun-if-changed={proto}");
    let descriptors = protox::compile([proto], [PROTO])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
