//! Decodes the result and the error of a plugin.

use serde::Deserialize;

use tapio_collectors::cni_report::{PluginError, Report};

/// Maximum number of addresses in a report.
const MAX_ADDRESSES: usize = 16;
/// Size limit of an error message in a report.
const MAX_MESSAGE_BYTES: usize = 2048;

/// A result. Before 0.3.0 it had another format, which no runtime requests any more.
#[derive(Deserialize, Default)]
#[serde(default)]
struct CniResult {
    interfaces: Vec<Interface>,
    ips: Vec<Ip>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Interface {
    name: String,
    /// The network namespace that it is in; empty for the host's.
    sandbox: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Ip {
    address: String,
    interface: Option<usize>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CniError {
    code: u64,
    msg: String,
    details: String,
}

/// Adds the addresses and the host end of the link from a result. Ignores an invalid result.
pub(crate) fn read_result(text: &str, report: &mut Report) {
    // A list would be deserialized as a result without any field.
    if !text.trim_start().starts_with('{') {
        return;
    }
    let Ok(result) = serde_json::from_str::<CniResult>(text) else {
        return;
    };
    // A bridge comes before the link that is attached to it.
    if let Some(host) = result.interfaces.iter().rfind(|i| i.sandbox.is_empty()) {
        report.host_interface.clone_from(&host.name);
    }
    let is_pods = |ip: &Ip| {
        ip.interface.and_then(|i| result.interfaces.get(i)).is_none_or(|i| !i.sandbox.is_empty())
    };
    report.addresses = result
        .ips
        .iter()
        .filter(|ip| is_pods(ip))
        .map(|ip| ip.address.split('/').next().unwrap_or_default().to_owned())
        .filter(|a| !a.is_empty())
        .take(MAX_ADDRESSES)
        .collect();
}

/// The error of a plugin that ended with `status`, from its standard output.
pub(crate) fn error(output: &str, status: &str) -> PluginError {
    let mut error = serde_json::from_str::<CniError>(output).unwrap_or_default();
    if error.msg.is_empty() {
        // A plugin that crashes may print anything.
        error.msg = format!("ended with {status} without an error message");
    }
    let mut message = error.msg;
    if !error.details.is_empty() {
        message = format!("{message}: {}", error.details);
    }
    let is_boundary = |end: &usize| message.is_char_boundary(*end);
    let end =
        (0..=MAX_MESSAGE_BYTES.min(message.len())).rev().find(is_boundary).unwrap_or_default();
    message.truncate(end);
    PluginError { code: error.code, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_has_pod_addresses_and_host_interface() {
        let result = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"cni0","mac":"a"},
            {"name":"veth1","mac":"b"},{"name":"eth0","sandbox":"/run/netns/p"}],
            "ips":[{"interface":2,"address":"10.88.0.5/16","gateway":"10.88.0.1"},
            {"interface":0,"address":"10.88.0.1/16"},{"address":"fd00::5/64"}],"routes":[],"dns":{}}"#;
        let mut report = Report::default();
        read_result(result, &mut report);
        assert_eq!(report.addresses, ["10.88.0.5", "fd00::5"]);
        assert_eq!(report.host_interface, "veth1");
        read_result("[]", &mut report);
        read_result(r#"{"ips":7}"#, &mut report);
        assert_eq!(report.addresses.len(), 2);
    }

    #[test]
    fn error_message_is_read_and_missing_one_is_replaced() {
        let output =
            r#"{"cniVersion":"0.4.0","code":11,"msg":"no IP addresses","details":"in range"}"#;
        assert_eq!(
            error(output, "exit status: 1"),
            PluginError { code: 11, message: "no IP addresses: in range".into() }
        );
        assert!(error("panic: …", "exit status: 2").message.contains("exit status: 2"));
        let long = format!(r#"{{"msg":"{}"}}"#, "é".repeat(4000));
        assert!(error(&long, "").message.len() <= MAX_MESSAGE_BYTES);
    }
}
