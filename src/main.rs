//! tophalf
fn main() {}
