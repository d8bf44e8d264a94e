//! One binary: wiring only.
fn main() {}
