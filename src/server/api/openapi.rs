//! `/openapi.json`: the description of the API (OpenAPI 3.1), for programs and fuzzers.

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT)
}

#[cfg(test)]
mod tests {
    use super::super::ROUTES;
    use super::super::list_query::PARAMETERS;
    use super::*;

    #[test]
    fn every_path_and_parameter_is_described() {
        let document: serde_json::Value = serde_json::from_str(DOCUMENT).unwrap();
        let keys = |value: &serde_json::Value| -> Vec<String> {
            let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys
        };
        let described = ROUTES.iter().map(|(path, _)| *path).filter(|p| *p != "/api/v1/stream");
        let mut paths: Vec<&str> = described.collect();
        paths.sort_unstable();
        assert_eq!(keys(&document["paths"]), paths);
        let mut parameters = PARAMETERS.to_vec();
        parameters.sort_unstable();
        assert_eq!(keys(&document["components"]["parameters"]), parameters);
    }
}
