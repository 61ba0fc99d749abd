//! Export requests, each as logs, as traces and as metrics: every record is emitted, or dropped and
//! counted.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapio_collectors::otlp::Requests;
use tapio_fuzz::collected;
use tapio_wire::OtlpSignal;

fuzz_target!(|bytes: &[u8]| {
    for signal in [OtlpSignal::Logs, OtlpSignal::Traces, OtlpSignal::Metrics] {
        let process = |context: &mut _| Requests::default().process(signal, bytes, context);
        let (dropped, collected) = collected(process);
        assert_eq!(dropped.unwrap_or(1), collected.bad_inputs, "dropped records are counted");
    }
});
