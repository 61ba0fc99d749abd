//! The description of gRPC's services: off unless configured, for callers that may read.

use prost::Message as _;
use tapio_wire::ClientAccess;
use tonic::{Code, Status};
use tonic_reflection::pb::{v1, v1alpha};

use super::pki::secret;
use super::sender::{channel, runtime, server};

type Ask = v1::server_reflection_request::MessageRequest;

/// The answer to one question.
fn ask(
    endpoint: &str,
    access: &ClientAccess,
    question: Ask,
) -> Result<v1::server_reflection_response::MessageResponse, Status> {
    runtime().block_on(async {
        let channel = channel(endpoint, access).await.unwrap();
        let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel);
        let request =
            v1::ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        let request = tokio_stream::once(request);
        let mut answers = client.server_reflection_info(request).await?.into_inner();
        Ok(answers.message().await?.unwrap().message_response.unwrap())
    })
}

fn services(endpoint: &str, access: &ClientAccess) -> Result<Vec<String>, Status> {
    match ask(endpoint, access, Ask::ListServices(String::new()))? {
        v1::server_reflection_response::MessageResponse::ListServicesResponse(list) => {
            Ok(list.service.into_iter().map(|service| service.name).collect())
        }
        _ => Ok(Vec::new()),
    }
}

#[test]
fn reflection_is_off_unless_configured() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), "");
    let refused = services(server.grpc_endpoint(), &ClientAccess::default()).unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
}

#[test]
fn reflection_describes_each_service_to_readers() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    secret(&tokens, "write n1 token-of-n1\nread web token-of-web\n");
    let settings = format!(", grpc_reflection: true, token_file: {}", tokens.display());
    let server = server(folder.path(), &settings);
    let endpoint = server.grpc_endpoint().to_owned();
    let token = |token: &str| {
        let path = folder.path().join(format!("{token}.token"));
        secret(&path, &format!("{token}\n"));
        ClientAccess { tls: None, token_file: Some(path) }
    };
    let refused = services(&endpoint, &ClientAccess::default()).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    let refused = services(&endpoint, &token("token-of-n1")).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let reader = token("token-of-web");
    let mut found = services(&endpoint, &reader).unwrap();
    found.sort();
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "tapio.v1.Ingest",
        "tapio.v1.Operate",
        "tapio.v1.Query",
    ];
    assert_eq!(found, expected);

    let symbol = Ask::FileContainingSymbol("tapio.v1.Query.ListAnnotations".into());
    let v1::server_reflection_response::MessageResponse::FileDescriptorResponse(files) =
        ask(&endpoint, &reader, symbol).unwrap()
    else {
        panic!("no file")
    };
    let bytes = files.file_descriptor_proto.first().unwrap();
    let file = prost_types::FileDescriptorProto::decode(bytes.as_slice()).unwrap();
    let query = file.service.iter().find(|service| service.name() == "Query").unwrap();
    assert!(query.method.iter().any(|method| method.name() == "ListIncidents"));
    let unknown = Ask::FileContainingSymbol("tapio.v1.Absent".into());
    let answer = ask(&endpoint, &reader, unknown);
    let is_missing = match &answer {
        Ok(v1::server_reflection_response::MessageResponse::ErrorResponse(error)) => {
            error.error_code == Code::NotFound as i32
        }
        Ok(_) => false,
        Err(status) => status.code() == Code::NotFound,
    };
    assert!(is_missing, "{answer:?}");
}

/// Clients that know only the older version get the same.
#[test]
fn older_version_has_the_same_services() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), ", grpc_reflection: true");
    let endpoint = server.grpc_endpoint().to_owned();
    let names = runtime().block_on(async {
        let channel = channel(&endpoint, &ClientAccess::default()).await.unwrap();
        let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
        let question =
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
        let request = v1alpha::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(question),
        };
        let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
        let answer = answers.into_inner().message().await.unwrap().unwrap();
        match answer.message_response.unwrap() {
            v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list) => {
                list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    });
    assert!(names.iter().any(|name| name == "tapio.v1.Operate"), "{names:?}");
}
