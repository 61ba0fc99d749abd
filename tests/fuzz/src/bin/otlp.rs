//! Export requests, each as one of logs and as one of traces: told, or left out and said so.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapio_collectors::otlp::look;
use tapio_wire::OtlpSignal;
use tapio_fuzz::collected;

fuzz_target!(|bytes: &[u8]| {
    for signal in [OtlpSignal::Logs, OtlpSignal::Traces] {
        let (broken, said) = collected(|context| look(signal, bytes, context));
        assert_eq!(broken.unwrap_or(1), said.bad_inputs, "what is left out is counted");
    }
});
