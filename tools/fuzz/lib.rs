//! The operations of tests/fuzz.rs, from bytes that libFuzzer finds.
//!
//! `cargo +nightly fuzz run --fuzz-dir tools/fuzz machine` (or `boot`, `states`, `virtio`).

#[path = "../../tests/fuzz/mod.rs"]
pub mod fuzz;

use fuzz::op::{BYTES, Op, Target};

/// Does to a new target what `data` says, [`BYTES`] bytes an operation, the rest of less than that left out.
///
/// # Panics
///
/// When something is wrong with what came of it.
pub fn run<T: Target>(data: &[u8]) {
    let mut target = T::new();
    for (at, bytes) in data.chunks_exact(BYTES).enumerate() {
        let op = Op(std::array::from_fn(|byte| bytes[byte]));
        target.step(&op).unwrap_or_else(|what| panic!("operation {at}, {op:?}: {what}"));
    }
}
