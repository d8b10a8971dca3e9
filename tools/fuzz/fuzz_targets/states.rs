#![no_main]

use fuzz::fuzz::states::States;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run::<States>(data));
