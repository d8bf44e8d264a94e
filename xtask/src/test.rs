//! `cargo xtask test`: sets the machine up, then formatting, lints, documentation and every test.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::setup;

/// All code, that of the tests against Kubernetes itself too.
const LINTS: [&str; 9] =
    ["clippy", "--workspace", "--all-targets", "--features", "kapstan/upstream", "--quiet", "--", "-D", "warnings"];

/// Runs everything; arguments go to `cargo test`.
pub fn run(arguments: &[String]) -> Result<(), String> {
    let target = crate::target_folder();
    let tools = setup::tools(&target);
    for missing in &tools.missing {
        println!("setup: missing, so the tests that need it are skipped: {missing}");
    }
    let images = crate::images::archives(&target);
    if let Err(why) = &images {
        println!("setup: missing, so the tests that need it are skipped: nginx images: {why}");
    }
    if arguments.is_empty() {
        step("formatting", cargo(&["fmt", "--all", "--", "--check"]))?;
        step("lints", cargo(&LINTS))?;
        let mut documentation = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]);
        documentation.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
        step("documentation", documentation)?;
    }
    let mut tests = cargo(&["test", "--workspace", "--no-fail-fast"]);
    tests.args(arguments);
    tools.tell(&mut tests);
    if let Ok(images) = images {
        tests.env("KAPSTAN_NGINX_IMAGES", images);
    }
    println!("== tests");
    count(tests)
}

pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

fn step(name: &str, mut command: Command) -> Result<(), String> {
    println!("== {name}");
    let status = command.status().map_err(|error| format!("{name}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name} failed: {command:?}")) }
}

/// Runs the tests, passes on what they print, and closes with the sum. A test that lacks something says so in a line of its own and
/// passes: it counts as skipped all the same.
pub fn count(mut tests: Command) -> Result<(), String> {
    let mut child = tests.stdout(Stdio::piped()).spawn().map_err(|error| format!("cargo test: {error}"))?;
    let output = child.stdout.take().ok_or("cargo test has no output")?;
    let mut sums = [0u64; 3];
    let mut failed = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line.map_err(|error| format!("cargo test: {error}"))?;
        println!("{line}");
        if let Some(numbers) = line.strip_prefix("test result: ") {
            let words: Vec<&str> = numbers.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
            for pair in words.windows(2) {
                let index = match pair[1] {
                    "passed" => 0,
                    "failed" => 1,
                    "ignored" => 2,
                    _ => continue,
                };
                sums[index] += pair[0].parse::<u64>().unwrap_or(0);
            }
        }
        if line.trim_start().starts_with("skipped: ") {
            sums[0] = sums[0].saturating_sub(1);
            sums[2] += 1;
        }
        if line.starts_with("test ") && line.ends_with("FAILED") {
            failed.push(line);
        }
    }
    let status = child.wait().map_err(|error| format!("cargo test: {error}"))?;
    failed.iter().for_each(|line| println!("{line}"));
    println!("\n{} passed, {} failed, {} skipped", sums[0], sums[1], sums[2]);
    if status.success() { Ok(()) } else { Err("there were failures".into()) }
}
