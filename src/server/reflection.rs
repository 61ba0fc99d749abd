//! Answers clients of gRPC that ask for the services and types: `grpc.reflection.v1`, and `v1alpha`
//! with the same answers, because several clients know only that one.

use tonic::service::RoutesBuilder;
use tonic_reflection::server::{Builder, Error};

use tapio_wire::proto::FILE_DESCRIPTOR_SET;

/// Largest request: a name.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// Adds both versions of the service.
///
/// # Errors
/// When the descriptions aren't valid.
pub(super) fn add(services: &mut RoutesBuilder) -> Result<(), Error> {
    let described = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let current = described().build_v1()?.max_decoding_message_size(MAX_REQUEST_BYTES);
    let alpha = described().build_v1alpha()?.max_decoding_message_size(MAX_REQUEST_BYTES);
    services.add_service(current).add_service(alpha);
    Ok(())
}
