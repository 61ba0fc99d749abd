//! JSON lines, as `tapio replay` reads them: one shard and three print the same, and every line is
//! accounted for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapio_fuzz::{builtin_sets, replay_agrees};

fuzz_target!(|bytes: &[u8]| replay_agrees(bytes, builtin_sets()));
