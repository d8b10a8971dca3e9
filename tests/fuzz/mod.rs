//! What is fuzzed, and the operations that bytes are decoded to. tests/fuzz.rs runs it with seeded bytes, tools/fuzz with
//! those that libFuzzer finds.

pub mod boot;
pub mod machine;
pub mod op;
pub mod states;
pub mod virtio;
