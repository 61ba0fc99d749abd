//! Export requests in JSON, as each signal: what is encoded as protobuf is a request, and every
//! record of it is emitted, or dropped and counted.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapio_collectors::otlp::Requests;
use tapio_fuzz::collected;
use tapio_wire::{OtlpSignal, otlp_from_json};

fuzz_target!(|bytes: &[u8]| {
    for signal in [OtlpSignal::Logs, OtlpSignal::Traces, OtlpSignal::Metrics] {
        let Ok(request) = otlp_from_json(signal, bytes) else { continue };
        let process = |context: &mut _| Requests::default().process(signal, &request, context);
        let (dropped, collected) = collected(process);
        assert_eq!(dropped, Some(collected.bad_inputs), "{signal:?}");
    }
});
