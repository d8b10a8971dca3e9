//! tophalf
fn main(){}
