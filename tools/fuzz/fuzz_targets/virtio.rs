#![no_main]

use fuzz::fuzz::virtio::Virtio;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run::<Virtio>(data));
