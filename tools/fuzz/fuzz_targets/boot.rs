#![no_main]

use fuzz::fuzz::boot::Boot;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run::<Boot>(data));
