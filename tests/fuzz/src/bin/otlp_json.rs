//! Export requests in JSON, as each signal: what is encoded as protobuf is a request, and every
//! record of it is emitted, or dropped and counted.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapio_collectors::otlp::process_request;
use tapio_fuzz::collected;
use tapio_wire::{OtlpSignal, otlp_from_json};

fuzz_target!(|bytes: &[u8]| {
    for signal in [OtlpSignal::Logs, OtlpSignal::Traces, OtlpSignal::Metrics] {
        let Ok(request) = otlp_from_json(signal, bytes) else { continue };
        let (dropped, collected) = collected(|context| process_request(signal, &request, context));
        assert_eq!(dropped, Some(collected.bad_inputs), "{signal:?}");
    }
});
