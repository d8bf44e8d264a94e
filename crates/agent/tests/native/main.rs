//! Real containers, really run: the native runtime from outside.
//!
//! Each test is a process of its own, in a network namespace without a route out and a mount namespace of its own, once
//! as root. [`user_namespace`] runs as an ordinary user in a user namespace. When a test has ended, however it ended, the
//! runner finds what it left: a process or a control group that is left is a failure, and is removed.
//! Without root only the last can be run: the others say so and count as skipped.

#![allow(clippy::unwrap_used)]

mod room;
mod runner;
mod speed;
mod tests;
mod user_namespace;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let code = match args.first().map(String::as_str) {
        Some("shim") => agent::shim::main(&args[1..]),
        Some("--in-room") => runner::run_here(&args[1], args[2].as_ref()),
        Some("--churn") => {
            tests::churn(args[1].as_ref());
            0
        }
        Some("--in-user-namespace") => user_namespace::run_here(&args[1], args[2].as_ref()),
        _ => runner::run_all(&args),
    };
    std::process::exit(code);
}
