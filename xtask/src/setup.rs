//! Everything the tests need that a machine may lack: installed or fetched only where it is missing, and said aloud.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The newest upstream client modules that the current kubectl is built from.
const KUBECTL_MODULE_VERSION: &str = "v0.36.0";
/// A kubectl of the machine's own that is at least this counts as current.
const CURRENT_MINOR: u32 = 32;

/// Paths of the tools.
pub struct Tools {
    /// kubectl 1.20, from Debian.
    pub kubectl_old: Option<PathBuf>,
    /// kubectl 1.32 or newer.
    pub kubectl_current: Option<PathBuf>,
    /// A static busybox, from Debian: what runs in the containers of the agent's tests.
    pub busybox: Option<PathBuf>,
    /// What is missing, for the tests that are skipped for it.
    pub missing: Vec<String>,
}

impl Tools {
    /// Tells the tests where the tools are.
    pub fn tell(&self, tests: &mut Command) {
        let all = [
            ("KAPSTAN_KUBECTL_OLD", &self.kubectl_old),
            ("KAPSTAN_KUBECTL", &self.kubectl_current),
            ("KAPSTAN_BUSYBOX", &self.busybox),
        ];
        tests.envs(all.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?))));
    }
}

/// Finds or makes the tools; `target` is the build folder.
pub fn tools(target: &Path) -> Tools {
    let folder = target.join("tools");
    let mut missing = Vec::new();
    let mut keep = |name: &str, found: Result<PathBuf, String>| match found {
        Ok(path) => Some(path),
        Err(why) => {
            missing.push(format!("{name}: {why}"));
            None
        }
    };
    let kubectl_old = keep("kubectl 1.20", debian_kubectl(&folder));
    let kubectl_current = keep("kubectl 1.32 or newer", current_kubectl(&folder));
    let busybox = keep("busybox-static", busybox(&folder));
    Tools { kubectl_old, kubectl_current, busybox, missing }
}

/// Runs a command and gives what it printed; its standard error goes with the failure.
pub fn capture(command: &mut Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    let output = command.output().map_err(|error| format!("{shown}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{shown}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn debian_kubectl(folder: &Path) -> Result<PathBuf, String> {
    packaged(folder, "kubernetes-client", &["usr/bin/kubectl"])
}

fn busybox(folder: &Path) -> Result<PathBuf, String> {
    packaged(folder, "busybox-static", &["usr/bin/busybox", "bin/busybox"])
}

/// A program of a Debian package, unpacked beside the build and not installed; at the first of `places` that is there.
fn packaged(folder: &Path, package: &str, places: &[&str]) -> Result<PathBuf, String> {
    let root = folder.join(package);
    let program = || places.iter().map(|place| root.join(place)).find(|path| path.exists());
    if let Some(program) = program() {
        return Ok(program);
    }
    println!("setup: fetching Debian's package {package} (unpacked below the build folder, not installed)");
    fetch_package(package, &root)?;
    program().ok_or_else(|| format!("the package holds no {}", places[0]))
}

/// Downloads a Debian package and unpacks it into `into`.
pub fn fetch_package(package: &str, into: &Path) -> Result<(), String> {
    let scratch = into.with_extension("download");
    std::fs::create_dir_all(&scratch)
        .and_then(|()| std::fs::create_dir_all(into))
        .map_err(|error| error.to_string())?;
    let download = || capture(Command::new("apt-get").args(["download", "-q", package]).current_dir(&scratch));
    if download().is_err() {
        println!("setup: apt-get update");
        capture(Command::new("apt-get").args(["update", "-q"]))?;
        download()?;
    }
    let mut archives = std::fs::read_dir(&scratch).map_err(|error| error.to_string())?;
    let archive = archives.next().ok_or("nothing was downloaded")?.map_err(|error| error.to_string())?.path();
    capture(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(into))?;
    std::fs::remove_dir_all(&scratch).map_err(|error| error.to_string())
}

/// The machine's kubectl if it is new enough, else one built from upstream's modules.
fn current_kubectl(folder: &Path) -> Result<PathBuf, String> {
    if let Some(own) = own_kubectl() {
        return Ok(own);
    }
    let kubectl = folder.join("kubectl-current");
    if kubectl.exists() {
        return Ok(kubectl);
    }
    println!("setup: building a current kubectl ({KUBECTL_MODULE_VERSION}) with Go; this takes some minutes once");
    build_kubectl(folder, &kubectl)?;
    Ok(kubectl)
}

fn own_kubectl() -> Option<PathBuf> {
    let path = capture(Command::new("sh").args(["-c", "command -v kubectl"])).ok()?;
    let path = PathBuf::from(path.trim());
    let text = capture(Command::new(&path).args(["version", "--client"])).ok()?;
    let minor = text.lines().find_map(|line| line.strip_prefix("Client Version: v1.")?.split('.').next()?.parse().ok());
    minor.filter(|minor: &u32| CURRENT_MINOR <= *minor).map(|_| path)
}

const KUBECTL_MAIN: &str = r#"package main

import (
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
)

func main() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}
"#;

fn build_kubectl(folder: &Path, kubectl: &Path) -> Result<(), String> {
    let source = folder.join("kubectl-source");
    std::fs::create_dir_all(&source).map_err(|error| error.to_string())?;
    std::fs::write(source.join("main.go"), KUBECTL_MAIN).map_err(|error| error.to_string())?;
    let go = |arguments: &[&str]| {
        let mut command = Command::new("go");
        command.args(arguments).current_dir(&source).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod");
        capture(&mut command).map(drop)
    };
    if !source.join("go.mod").exists() {
        go(&["mod", "init", "kubectl"])?;
    }
    go(&["get", &format!("k8s.io/kubectl@{KUBECTL_MODULE_VERSION}")])?;
    go(&["mod", "tidy"])?;
    let version = format!("-s -w -X k8s.io/component-base/version.gitVersion=v1{}", &KUBECTL_MODULE_VERSION[2..]);
    let output = kubectl.to_string_lossy().into_owned();
    go(&["build", "-p", "2", "-trimpath", "-ldflags", &version, "-o", &output, "."])
}
