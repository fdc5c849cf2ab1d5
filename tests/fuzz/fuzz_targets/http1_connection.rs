#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corelane::fuzz::http1_connection(data));
