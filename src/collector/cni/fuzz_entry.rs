//! Entry point of the fuzz target: passes a packet to each of the parsers, without sockets.

use super::attachments::Attachments;
use super::links::State;
use super::netlink;
use super::to_event::parse;
use crate::cni_report::PodNames;

/// Parses bytes as a report of the plugin, as CNI_ARGS and as a netlink packet. Returns whether
/// they are a report.
///
/// # Panics
/// If an attachment doesn't end, or a repeated netlink message is a change.
pub fn process_packet(packet: &[u8]) -> bool {
    let mut state = State::default();
    netlink::parse(packet, |message| {
        state.apply(message);
        assert!(state.apply(message).is_none(), "a repeated message is no change");
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
    fn report_is_recognised() {
        assert!(process_packet(br#"{"command":"ADD","addresses":["10.0.0.1"],"pod":{"uid":"u"}}"#));
        assert!(!process_packet(br#"{"command":"STATUS"}"#));
    }

    proptest! {
        #[test]
        fn any_packet_is_parsed_without_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            process_packet(&bytes);
        }

        #[test]
        fn any_json_shaped_like_a_report_is_parsed_without_panic(
            command in "ADD|DEL|CHECK|X",
            text in ".{0,40}",
            number in any::<u64>(),
            address in "[0-9a-f.:]{0,12}",
        ) {
            let json = serde_json::json!({
                "command": command, "network": text, "container_id": text, "ifname": address,
                "netns_inode": number, "time_ns": number, "duration_ns": number,
                "host_interface": text, "addresses": [address, text],
                "error": {"code": number, "message": text},
            });
            prop_assert_eq!(process_packet(json.to_string().as_bytes()), command != "X");
        }
    }
}
