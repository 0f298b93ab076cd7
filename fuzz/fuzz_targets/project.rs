#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wcompose_fuzz::targets::project(data));
