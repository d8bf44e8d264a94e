//! `cargo xtask upstream`: our commands against Kubernetes' own API server, controllers and scheduler, with an etcd.
//!
//! Built once with Go from the modules `k8s.io/*` into `target/upstream`, which takes half an hour on a small machine. etcd comes from
//! Debian's package, unpacked and not installed. Then the tests are run that compare with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::setup::{self, capture, fetch_package};
use crate::test;

/// The version of Kubernetes, and of the modules that it is made of.
const KUBERNETES: &str = "1.36.0";
const MODULES: &str = "0.36.0";
/// What is built.
const PROGRAMS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// The tests, and what they are in.
const TESTS: [&str; 7] = ["test", "--workspace", "--features", "kapstan/upstream", "--test", "runner", "upstream::"];

/// Builds what is missing and runs the tests.
pub fn run(arguments: &[String]) -> Result<(), String> {
    if !arguments.is_empty() {
        return Err("usage: cargo xtask upstream".into());
    }
    let folder = crate::target_folder().join("upstream");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    if !folder.join("etcd").is_file() {
        println!("upstream: Debian's package etcd-server (unpacked, not installed)");
        let unpacked = folder.join("etcd-server");
        fetch_package("etcd-server", &unpacked)?;
        fs::copy(unpacked.join("usr/bin/etcd"), folder.join("etcd")).map_err(|error| format!("etcd: {error}"))?;
    }
    let missing: Vec<&str> = PROGRAMS.into_iter().filter(|program| !folder.join(program).is_file()).collect();
    if !missing.is_empty() {
        let source = source(&folder)?;
        for program in missing {
            println!("upstream: building {program} {KUBERNETES} with Go");
            build(&source, &["build"], &format!("./cmd/{program}"), &folder.join(program))?;
        }
    }
    let mut tests = test::cargo(&TESTS);
    setup::tools(&crate::target_folder()).tell(&mut tests);
    tests.env("KAPSTAN_UPSTREAM", &folder);
    test::count(tests)
}

/// Kubernetes' module as the main one: it names its parts by folders that a module does not hold, so they become versions.
pub fn source(folder: &Path) -> Result<PathBuf, String> {
    let source = folder.join("source");
    let go = |arguments: &[&str]| capture(go(&source).args(arguments));
    if source.join("ready").exists() {
        return Ok(source);
    }
    println!("upstream: fetching Kubernetes {KUBERNETES} and the modules that it needs");
    let _ = fs::remove_dir_all(&source);
    fs::create_dir_all(&source).map_err(|error| error.to_string())?;
    go(&["mod", "init", "upstream"])?;
    let told = go(&["mod", "download", "-json", &format!("k8s.io/kubernetes@v{KUBERNETES}")])?;
    let told: Value = serde_json::from_str(&told).map_err(|error| error.to_string())?;
    let module = told["Dir"].as_str().ok_or("go named no folder of the module")?;
    fs::remove_dir_all(&source).map_err(|error| error.to_string())?;
    capture(Command::new("cp").arg("-r").arg(module).arg(&source))?;
    capture(Command::new("chmod").arg("-R").arg("u+w").arg(&source))?;
    for name in ["vendor", "go.work", "go.work.sum"] {
        let path = source.join(name);
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
    let parts: Value = serde_json::from_str(&go(&["mod", "edit", "-json"])?).map_err(|error| error.to_string())?;
    for part in parts["Replace"].as_array().into_iter().flatten() {
        let name = part["Old"]["Path"].as_str().unwrap_or_default();
        go(&["mod", "edit", &format!("-replace={name}={name}@v{MODULES}")])?;
    }
    go(&["mod", "download"])?;
    fs::write(source.join("ready"), "").map_err(|error| error.to_string())?;
    Ok(source)
}

/// Builds a package of the source: `command` is Go's.
pub fn build(source: &Path, command: &[&str], package: &str, program: &Path) -> Result<(), String> {
    let stamps = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"].map(|package| {
        let minor = KUBERNETES.split('.').nth(1).unwrap_or_default();
        format!(
            "-X {package}.gitVersion=v{KUBERNETES} -X {package}.gitMajor=1 -X {package}.gitMinor={minor} \
             -X {package}.gitTreeState=clean"
        )
    });
    let mut building = go(source);
    building.args(command).args(["-p", "2", "-trimpath", "-ldflags", &format!("-s -w {}", stamps.join(" ")), "-o"]);
    building.arg(program).arg(package);
    capture(&mut building).map(drop)
}

fn go(folder: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(folder).env("GOFLAGS", "-mod=mod").env("GOWORK", "off").env("CGO_ENABLED", "0");
    command
}
