//! A packet to each of the parsers, without sockets: what the fuzz target looks at.

use super::attachments::Attachments;
use super::events::parse;
use super::links::State;
use super::netlink;
use super::report::PodNames;

/// Takes bytes as a report of the plugin, as CNI_ARGS and as a packet of the kernel's. Returns whether they are a report.
///
/// # Panics
/// When an attachment that ended isn't known to have ended.
#[doc(hidden)]
pub fn look(packet: &[u8]) -> bool {
    let mut state = State::default();
    netlink::parse(packet, |said| {
        state.take(said);
        assert!(state.take(said).is_none(), "the same twice is no news");
    });
    if let Ok(text) = std::str::from_utf8(packet) {
        let _ = PodNames::from_args(text);
    }
    let Ok((report, _)) = parse(packet) else {
        return false;
    };
    let mut attachments = Attachments::default();
    attachments.begin(&report);
    let ended = attachments.end(&report);
    assert!(attachments.has_ended(&report), "it has ended");
    assert!(ended.addresses.len() <= report.addresses.len(), "addresses come from the report");
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_report_is_one() {
        assert!(look(br#"{"command":"ADD","addresses":["10.0.0.1"],"pod":{"uid":"u"}}"#));
        assert!(!look(br#"{"command":"STATUS"}"#));
    }

    proptest! {
        #[test]
        fn any_packet_is_looked_at_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            look(&bytes);
        }

        #[test]
        fn any_json_of_a_reports_shape_is_looked_at_without_a_panic(
            command in "ADD|DEL|CHECK|X", text in ".{0,40}", number in any::<u64>(), address in "[0-9a-f.:]{0,12}",
        ) {
            let json = serde_json::json!({
                "command": command, "network": text, "container_id": text, "ifname": address,
                "netns_inode": number, "time_ns": number, "duration_ns": number, "host_interface": text,
                "addresses": [address, text], "error": {"code": number, "message": text},
            });
            prop_assert_eq!(look(json.to_string().as_bytes()), command != "X");
        }
    }
}
