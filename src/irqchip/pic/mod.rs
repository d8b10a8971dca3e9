//! 8259A pair
