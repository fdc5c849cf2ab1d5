#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corelane::fuzz::slots_and_wheel(data));
