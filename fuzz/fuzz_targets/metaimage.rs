#![no_main]

#[path = "../../tests/it/hostile/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run("metaimage", bytes));
