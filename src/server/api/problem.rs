//! Errors as `application/problem+json` (RFC 9457), with the parameter that caused them.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::super::query_line::QueryError;
use super::super::storage::InvalidParameter;

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An error response.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    /// The parameter that is invalid.
    parameter: Option<String>,
    detail: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, parameter: None, detail: detail.into() }
    }

    /// An invalid parameter of the path, the query or the body.
    pub(super) fn parameter(name: &str, cause: impl Into<String>) -> Self {
        let parameter = Some(name.to_owned());
        Self { status: StatusCode::BAD_REQUEST, parameter, detail: cause.into() }
    }

    /// Nothing with this id.
    pub(crate) fn missing(noun: &str, id: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("no {noun} {id}"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(parameter) = self.parameter {
            body["parameter"] = parameter.into();
        }
        (self.status, [(CONTENT_TYPE, PROBLEM_JSON)], body.to_string()).into_response()
    }
}

impl From<InvalidParameter> for Problem {
    fn from(invalid: InvalidParameter) -> Self {
        let problem = Self::parameter(invalid.name, invalid.cause);
        // The page doesn't exist.
        let status =
            if invalid.name == "page_token" { StatusCode::NOT_FOUND } else { problem.status };
        Self { status, ..problem }
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let status = match error {
            QueryError::Invalid(invalid) => return invalid.into(),
            QueryError::Busy => StatusCode::SERVICE_UNAVAILABLE,
            QueryError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

/// The answer for a path that doesn't exist.
pub(crate) async fn no_such_path(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("no such path: {}", uri.path()))
}

/// The answer for a path that exists with other methods.
pub(crate) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{}: {method} isn't supported", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_names_the_parameter() {
        let response = Problem::parameter("since", "isn't a time").into_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let missing = Problem::missing("story", "12ab");
        assert_eq!((missing.status, missing.parameter), (StatusCode::NOT_FOUND, None));
        assert_eq!(missing.detail, "no story 12ab");
    }
}
