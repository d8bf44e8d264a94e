//! The chores: `cargo xtask test|bench|images`.
fn main() {}
