//! What a plugin's result or error says.

use serde::Deserialize;

use tapio_collectors::cni::report::{PluginError, Report};

/// Addresses a report names.
const MAX_ADDRESSES: usize = 16;
/// How much of a plugin's complaint is told.
const MAX_MESSAGE_BYTES: usize = 2048;

/// A result; before 0.3.0 addresses stood elsewhere, which no runtime asks for any more.
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
    /// The namespace it lies in; empty for the host's.
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

/// Takes addresses and the host's end of the link out of a result. One that can't be read says nothing.
pub(crate) fn take_result(text: &str, report: &mut Report) {
    // A list would be read as a result whose every field is missing.
    if !text.trim_start().starts_with('{') {
        return;
    }
    let Ok(result) = serde_json::from_str::<CniResult>(text) else {
        return;
    };
    // A bridge comes before the link that was plugged into it.
    if let Some(host) = result.interfaces.iter().rfind(|i| i.sandbox.is_empty()) {
        report.host_interface.clone_from(&host.name);
    }
    let inside = |ip: &Ip| {
        ip.interface.and_then(|i| result.interfaces.get(i)).is_none_or(|i| !i.sandbox.is_empty())
    };
    report.addresses = result
        .ips
        .iter()
        .filter(|ip| inside(ip))
        .map(|ip| ip.address.split('/').next().unwrap_or_default().to_owned())
        .filter(|a| !a.is_empty())
        .take(MAX_ADDRESSES)
        .collect();
}

/// What a plugin that ended with `status` says of it on standard output.
pub(crate) fn error(output: &str, status: &str) -> PluginError {
    let mut error = serde_json::from_str::<CniError>(output).unwrap_or_default();
    if error.msg.is_empty() {
        // A plugin that dies prints what it likes, which may be anything.
        error.msg = format!("it ended with {status} and said nothing");
    }
    let mut message = error.msg;
    if !error.details.is_empty() {
        message = format!("{message}: {}", error.details);
    }
    let whole = |end: &usize| message.is_char_boundary(*end);
    let end = (0..=MAX_MESSAGE_BYTES.min(message.len())).rev().find(whole).unwrap_or_default();
    message.truncate(end);
    PluginError { code: error.code, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_tells_the_pods_addresses_and_the_hosts_end() {
        let result = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"cni0","mac":"a"},{"name":"veth1","mac":"b"},
            {"name":"eth0","sandbox":"/run/netns/p"}],"ips":[{"interface":2,"address":"10.88.0.5/16","gateway":"10.88.0.1"},
            {"interface":0,"address":"10.88.0.1/16"},{"address":"fd00::5/64"}],"routes":[],"dns":{}}"#;
        let mut report = Report::default();
        take_result(result, &mut report);
        assert_eq!(report.addresses, ["10.88.0.5", "fd00::5"]);
        assert_eq!(report.host_interface, "veth1");
        take_result("[]", &mut report);
        take_result(r#"{"ips":7}"#, &mut report);
        assert_eq!(report.addresses.len(), 2);
    }

    #[test]
    fn a_plugins_complaint_is_told_and_silence_as_well() {
        let said =
            r#"{"cniVersion":"0.4.0","code":11,"msg":"no IP addresses","details":"in range"}"#;
        assert_eq!(
            error(said, "exit status: 1"),
            PluginError { code: 11, message: "no IP addresses: in range".into() }
        );
        assert!(error("panic: …", "exit status: 2").message.contains("exit status: 2"));
        let long = format!(r#"{{"msg":"{}"}}"#, "é".repeat(4000));
        assert!(error(&long, "").message.len() <= MAX_MESSAGE_BYTES);
    }
}
