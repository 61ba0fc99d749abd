//! Generates the gRPC types from `proto/` (protox parses them: no protoc needed).

use std::path::Path;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    protocol()
}

fn protocol() -> Outcome {
    let proto = Path::new("proto/tapio/v1/tapio.proto");
    println!("cargo::rerun-if-changed={}", proto.display());
    let descriptors = protox::compile([proto], ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
