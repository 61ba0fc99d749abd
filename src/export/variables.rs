//! The variables `OTEL_EXPORTER_OTLP_*` ("OpenTelemetry Protocol Exporter", configuration options).
//! They complete what the configuration of a sink leaves out; those of a signal, such as
//! `OTEL_EXPORTER_OTLP_LOGS_ENDPOINT`, complete a sink that has only this signal.

use std::time::Duration;

use super::config::{ExportSignal, OtlpSinkConfig};
use tapio_wire::{OtlpCompression, OtlpProtocol, TlsClientConfig};

/// Completes a sink with the variables that `env` returns.
///
/// # Errors
/// The variable with an invalid value, and the cause.
pub fn complete_from_env(
    sink: &mut OtlpSinkConfig,
    env: impl Fn(&str) -> Option<String>,
) -> Result<(), String> {
    let signal = match sink.signals[..] {
        [ExportSignal::Logs] => Some("LOGS"),
        [ExportSignal::Traces] => Some("TRACES"),
        [ExportSignal::Metrics] => Some("METRICS"),
        _ => None,
    };
    let variables = Variables { env: &env, signal };
    if sink.endpoint.is_none()
        && let Some((name, endpoint)) = variables.get("ENDPOINT")
    {
        sink.endpoint = Some(endpoint);
        sink.is_signal_endpoint = name != "OTEL_EXPORTER_OTLP_ENDPOINT";
    }
    if sink.protocol.is_none() {
        sink.protocol = variables.parse("PROTOCOL", |text| match text {
            "grpc" => Ok(OtlpProtocol::Grpc),
            "http/protobuf" => Ok(OtlpProtocol::Http),
            _ => Err("must be grpc or http/protobuf".into()),
        })?;
    }
    if sink.compression.is_none() {
        sink.compression = variables.parse("COMPRESSION", |text| match text {
            "none" => Ok(OtlpCompression::None),
            "gzip" => Ok(OtlpCompression::Gzip),
            "zstd" => Ok(OtlpCompression::Zstd),
            _ => Err("must be gzip, zstd or none".into()),
        })?;
    }
    if sink.timeout.is_none() {
        sink.timeout = variables.parse("TIMEOUT", |text| match text.parse() {
            Ok(0) | Err(_) => Err("must be a number of milliseconds".into()),
            Ok(timeout_ms) => Ok(Duration::from_millis(timeout_ms)),
        })?;
    }
    let has_tls = sink.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("https://"));
    if sink.tls.is_none() && has_tls {
        let file = |option| variables.get(option).map(|(_, path)| path.into());
        let [ca, cert, key] = ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"].map(file);
        let has_files = [&ca, &cert, &key].into_iter().any(Option::is_some);
        sink.tls =
            has_files.then(|| TlsClientConfig { ca, cert, key, ..TlsClientConfig::default() });
    }
    let headers = variables.parse("HEADERS", headers)?;
    for (name, value) in headers.into_iter().flatten() {
        sink.headers.entry(name).or_insert(value);
    }
    Ok(())
}

struct Variables<'a, E> {
    env: &'a E,
    signal: Option<&'static str>,
}

impl<E: Fn(&str) -> Option<String>> Variables<'_, E> {
    /// The signal's variable, or the general one, if it has a value: its name and the value.
    fn get(&self, option: &str) -> Option<(String, String)> {
        let of_signal = self.signal.map(|signal| format!("OTEL_EXPORTER_OTLP_{signal}_{option}"));
        let names = of_signal.into_iter().chain([format!("OTEL_EXPORTER_OTLP_{option}")]);
        let mut set = names.filter_map(|name| {
            let value = (self.env)(&name)?.trim().to_owned();
            (!value.is_empty()).then_some((name, value))
        });
        set.next()
    }

    fn parse<T>(
        &self,
        option: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let Some((name, value)) = self.get(option) else { return Ok(None) };
        parse(&value).map(Some).map_err(|cause| format!("{name}: {cause}"))
    }
}

/// `name=value` pairs, separated by commas; values are percent-encoded (W3C Baggage).
fn headers(text: &str) -> Result<Vec<(String, String)>, String> {
    let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
    let pairs = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').ok_or("must be `name=value` pairs")?;
        let value = percent_decoded(value.trim()).ok_or("a value isn't UTF-8")?;
        Ok((name.trim().to_ascii_lowercase(), value))
    });
    pairs.collect::<Result<_, &str>>().map_err(str::to_owned)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.first_chunk::<2>().filter(|_| *first == b'%');
        let byte = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(
        mut sink: OtlpSinkConfig,
        variables: &[(&str, &str)],
    ) -> Result<OtlpSinkConfig, String> {
        let env = |name: &str| {
            let name = name.strip_prefix("OTEL_EXPORTER_OTLP_")?;
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        };
        complete_from_env(&mut sink, env).map(|()| sink)
    }

    #[test]
    fn variables_complete_what_is_left_out() {
        let variables = [
            ("ENDPOINT", "http://general:4318"),
            ("LOGS_ENDPOINT", "http://logs:4318/ingest"),
            ("PROTOCOL", "http/protobuf"),
            ("COMPRESSION", "none"),
            ("TIMEOUT", "1500"),
            ("HEADERS", "X-Tenant=a%20b, authorization = Bearer x,"),
        ];
        let all = completed(OtlpSinkConfig::default(), &variables).unwrap();
        assert_eq!(all.endpoint(), "http://general:4318");
        assert!(!all.is_signal_endpoint);
        assert_eq!(all.protocol(), OtlpProtocol::Http);
        assert_eq!(all.compression, Some(OtlpCompression::None));
        assert_eq!(all.timeout, Some(Duration::from_millis(1500)));
        let headers: Vec<_> = all.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(headers, [("authorization", "Bearer x"), ("x-tenant", "a b")]);

        let logs = OtlpSinkConfig { signals: vec![ExportSignal::Logs], ..Default::default() };
        let logs = completed(logs, &variables).unwrap();
        assert_eq!(logs.endpoint(), "http://logs:4318/ingest");
        assert!(logs.is_signal_endpoint);

        let own = OtlpSinkConfig {
            endpoint: Some("http://own:1".into()),
            protocol: Some(OtlpProtocol::Grpc),
            headers: [("x-tenant".to_owned(), "mine".to_owned())].into(),
            ..Default::default()
        };
        let own = completed(own, &variables).unwrap();
        assert_eq!((own.endpoint().as_str(), own.protocol()), ("http://own:1", OtlpProtocol::Grpc));
        assert_eq!(own.headers["x-tenant"], "mine");
    }

    #[test]
    fn certificates_are_those_of_endpoints_with_tls() {
        let variables =
            [("CERTIFICATE", "/ca.pem"), ("CLIENT_KEY", "/k"), ("ENDPOINT", "https://a:1")];
        let tls = completed(OtlpSinkConfig::default(), &variables).unwrap().tls.unwrap();
        assert_eq!(tls.ca, Some("/ca.pem".into()));
        assert_eq!((tls.cert, tls.key), (None, Some("/k".into())));
        let plain = [("CERTIFICATE", "/ca.pem"), ("ENDPOINT", "http://a:1")];
        assert_eq!(completed(OtlpSinkConfig::default(), &plain).unwrap().tls, None);
    }

    #[test]
    fn invalid_variables_are_named() {
        for (name, value, cause) in [
            ("PROTOCOL", "http/json", "PROTOCOL: must be grpc or http/protobuf"),
            ("TIMEOUT", "10s", "TIMEOUT: must be a number of milliseconds"),
            ("COMPRESSION", "brotli", "COMPRESSION: must be gzip"),
            ("HEADERS", "secret", "HEADERS: must be `name=value` pairs"),
        ] {
            let error = completed(OtlpSinkConfig::default(), &[(name, value)]).unwrap_err();
            assert!(error.starts_with("OTEL_EXPORTER_OTLP_") && error.contains(cause), "{error}");
        }
    }
}
