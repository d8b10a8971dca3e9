#![no_main]

use fuzz::fuzz::machine::Machine;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run::<Machine>(data));
