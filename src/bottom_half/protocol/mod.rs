//! The lock-free protocols, each a word or two with its transitions as methods, and nothing else.
//!
//! They are modelled with loom: `RUSTFLAGS="--cfg loom" cargo test --release -p bottom_half --lib loom`. Each
//! ordering and fence has a name in `strength`; a test takes it away, and loom must find what that loses.

pub mod activation;
pub mod inbox;
pub mod item;
pub mod park;
pub mod serving;
pub(crate) mod strength;
pub mod wait;
