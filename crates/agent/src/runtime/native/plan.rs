//! From what a pod asks for and what its image says to what the shim runs: nothing is left to decide after this.
//!
//! Mirrors containerd's CRI (`internal/cri/server/container_create.go`): how command, args, entrypoint and cmd meet, the
//! environment, the default capabilities. It reads the image's account files and nothing else.

use super::{
    files,
    users::{self, Accounts},
};
use crate::{
    images::RootFs,
    runtime::{ContainerSpec, Mount, RuntimeError, SandboxSpec, Security},
    shim::{
        DEFAULT_PATH,
        rootfs::open_inside,
        wire::{ContainerPlan, Process},
    },
};
use nix::sys::signal::Signal;
use oci_spec::image::{Config, ImageConfiguration};
use std::{
    io::Read,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Open files a process may have; what container engines grant.
const OPEN_FILES: u64 = 1 << 20;
/// An image's account file is not read further.
const ACCOUNT_FILE_MAX: u64 = 1 << 20;

/// Names of the capabilities, in the kernel's order.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
/// What a container may do unless told otherwise; the engines' default set.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Resolves a container.
pub fn resolve(
    spec: &ContainerSpec,
    id: String,
    root: &RootFs,
    sandbox: &SandboxSpec,
    pod: &Path,
) -> Result<ContainerPlan, RuntimeError> {
    let accounts = Accounts {
        passwd: read_account_file(&root.path, "/etc/passwd"),
        group: read_account_file(&root.path, "/etc/group"),
    };
    let process = process(spec, &root.config, &accounts, &sandbox.hostname, groups_can_be_set())?;
    let image = root.config.config().as_ref();
    let stop_signal = spec.stop_signal.as_ref().or_else(|| image.and_then(|config| config.stop_signal().as_ref()));
    Ok(ContainerPlan {
        name: spec.name.clone(),
        id,
        attempt: spec.attempt,
        image: spec.image.clone(),
        image_id: root.image_id.clone(),
        rootfs: root.path.clone(),
        process,
        mounts: mounts(spec, sandbox, pod),
        limits: spec.limits.clone(),
        read_only_root: spec.security.read_only_root,
        privileged: spec.security.privileged,
        host_pid: sandbox.host_pid,
        log_path: spec.log_path.clone(),
        stdin: spec.stdin,
        tty: spec.tty,
        stop_signal: stop_signal.map_or(Ok(libc::SIGTERM), |name| signal_number(name))?,
    })
}

fn process(
    spec: &ContainerSpec,
    image: &ImageConfiguration,
    accounts: &Accounts,
    hostname: &str,
    implicit_groups: bool,
) -> Result<Process, RuntimeError> {
    let empty = Config::default();
    let image = image.config().as_ref().unwrap_or(&empty);
    let identity = users::resolve(&spec.security, image.user().as_deref().unwrap_or(""), accounts, implicit_groups)?;
    let cwd = spec
        .working_dir
        .as_deref()
        .filter(|dir| !dir.is_empty())
        .or(image.working_dir().as_deref())
        .filter(|dir| !dir.is_empty());
    let cwd = PathBuf::from(cwd.unwrap_or("/"));
    if !cwd.is_absolute() {
        return Err(RuntimeError::ContainerConfig(format!(
            "the working directory {} is not an absolute path",
            cwd.display()
        )));
    }
    Ok(Process {
        argv: command_line(spec, image)?,
        env: environment(spec, image, hostname, &identity.home),
        cwd,
        uid: identity.uid,
        gid: identity.gid,
        groups: identity.groups,
        capabilities: capabilities(&spec.security)?,
        no_new_privileges: !spec.security.allow_privilege_escalation && !spec.security.privileged,
        seccomp: spec.security.seccomp_default && !spec.security.privileged,
        open_files: OPEN_FILES,
    })
}

/// A pod's command replaces the image's entrypoint and cmd; its args replace the image's cmd.
fn command_line(spec: &ContainerSpec, image: &Config) -> Result<Vec<String>, RuntimeError> {
    let image_entrypoint = image.entrypoint().clone().unwrap_or_default();
    let image_cmd = image.cmd().clone().unwrap_or_default();
    let (mut command, args) = match (spec.command.is_empty(), spec.args.is_empty()) {
        (true, true) => (image_entrypoint, image_cmd),
        (true, false) => (image_entrypoint, spec.args.clone()),
        (false, _) => (spec.command.clone(), spec.args.clone()),
    };
    command.extend(args);
    if command.is_empty() {
        return Err(RuntimeError::ContainerConfig(
            "no command specified: neither the container nor its image has one".into(),
        ));
    }
    Ok(command)
}

/// The image's variables, then the pod's; a later one of the same name replaces the earlier in its place.
fn environment(spec: &ContainerSpec, image: &Config, hostname: &str, home: &str) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> =
        vec![("PATH".into(), DEFAULT_PATH.into()), ("HOSTNAME".into(), hostname.into())];
    if spec.tty {
        variables.push(("TERM".into(), "xterm".into()));
    }
    variables.push(("HOME".into(), home.into()));
    let of_image =
        image.env().iter().flatten().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned()));
    for (key, value) in of_image.chain(spec.env.iter().cloned()) {
        match variables.iter_mut().find(|(known, _)| *known == key) {
            Some(variable) => variable.1 = value,
            None => variables.push((key, value)),
        }
    }
    variables
}

fn capabilities(security: &Security) -> Result<u64, RuntimeError> {
    const ALL: u64 = (1 << CAPABILITIES.len()) - 1;
    if security.privileged {
        return Ok(ALL);
    }
    let bits = |names: &[String]| {
        names.iter().try_fold(0, |bits, name| {
            let upper = name.to_ascii_uppercase();
            let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
            match CAPABILITIES.iter().position(|known| *known == short) {
                _ if short == "ALL" => Ok(bits | ALL),
                Some(bit) => Ok(bits | 1 << bit),
                None => Err(RuntimeError::ContainerConfig(format!("unknown capability {name:?}"))),
            }
        })
    };
    let (added, dropped) = (bits(&security.add_capabilities)?, bits(&security.drop_capabilities)?);
    let default = bits(&DEFAULT_CAPABILITIES.map(String::from))?;
    // ALL is a whole set to start from; a name of its own outweighs it on the other side.
    Ok(match (added == ALL, dropped == ALL) {
        (true, true) => ALL,
        (true, false) => ALL & !dropped,
        (false, true) => added,
        (false, false) => (default & !dropped) | added,
    })
}

/// `SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3`.
fn signal_number(name: &str) -> Result<i32, RuntimeError> {
    let unknown = || RuntimeError::ContainerConfig(format!("unknown stop signal {name:?}"));
    let upper = name.to_ascii_uppercase();
    let long = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let real_time = |offset: &str| {
        offset.parse::<i32>().ok().map(|offset| libc::SIGRTMIN() + offset).filter(|n| *n <= libc::SIGRTMAX())
    };
    if let Ok(number) = name.parse::<i32>() {
        return if (1..=libc::SIGRTMAX()).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    match long.strip_prefix("SIGRTMIN+") {
        Some(offset) => real_time(offset).ok_or_else(unknown),
        None => Signal::from_str(&long).map(|signal| signal as i32).map_err(|_| unknown()),
    }
}

/// Volumes, and the pod's own files where no volume takes their place.
fn mounts(spec: &ContainerSpec, sandbox: &SandboxSpec, pod: &Path) -> Vec<Mount> {
    let taken = |target: &str| spec.mounts.iter().any(|mount| mount.target == Path::new(target));
    let own = files::FILES.iter().filter(|(_, target)| !taken(target)).map(|(name, target)| Mount {
        source: files::source(pod, sandbox, name),
        target: target.into(),
        read_only: spec.security.read_only_root && target.starts_with("/etc/"),
    });
    own.chain(spec.mounts.iter().cloned()).collect()
}

fn read_account_file(root: &Path, path: &str) -> String {
    let mut text = Vec::new();
    // An image without accounts has only numbers.
    if let Ok(file) = open_inside(root, Path::new(path)) {
        let _ = file.take(ACCOUNT_FILE_MAX).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// False in a user namespace of one user.
fn groups_can_be_set() -> bool {
    std::fs::read_to_string("/proc/self/setgroups").map_or(true, |text| text.trim() != "deny")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Limits;

    fn spec() -> ContainerSpec {
        ContainerSpec {
            pod_uid: "u".into(),
            name: "c".into(),
            attempt: 0,
            image: "i".into(),
            command: vec![],
            args: vec![],
            env: vec![],
            working_dir: None,
            mounts: vec![],
            limits: Limits::default(),
            security: Security::default(),
            log_path: "l".into(),
            stdin: false,
            tty: false,
            stop_signal: None,
        }
    }

    fn sandbox() -> SandboxSpec {
        serde_json::from_value(serde_json::json!({
            "uid": "u", "namespace": "ns", "name": "p", "hostname": "p", "host_network": false, "resolv_conf": [],
            "host_aliases": []
        }))
        .unwrap()
    }

    fn image(text: &str) -> Config {
        serde_json::from_str(text).unwrap()
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn command_and_args_meet_entrypoint_and_cmd() {
        let both = image(r#"{"Entrypoint":["ep"],"Cmd":["cmd"]}"#);
        let line = |command: &str, args: &str| {
            let spec = ContainerSpec { command: words(command), args: words(args), ..spec() };
            command_line(&spec, &both).unwrap().join(" ")
        };
        assert_eq!([line("", ""), line("", "a b"), line("c", ""), line("c", "a")], ["ep cmd", "ep a b", "c", "c a"]);
        assert!(command_line(&spec(), &image("{}")).is_err());
    }

    #[test]
    fn the_pods_variables_win_in_place() {
        let image = image(r#"{"Env":["PATH=/x","A=1","EQ=a=b"]}"#);
        let env = [("A", "2"), ("B", "3"), ("B", "4")].map(|(k, v)| (k.to_string(), v.to_string())).to_vec();
        let env = environment(&ContainerSpec { env, ..spec() }, &image, "host", "/root");
        let text: Vec<String> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(text, ["PATH=/x", "HOSTNAME=host", "HOME=/root", "A=2", "EQ=a=b", "B=4"]);
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let set = |add: &str, drop: &str| {
            let security =
                Security { add_capabilities: words(add), drop_capabilities: words(drop), ..Security::default() };
            capabilities(&security).map(|bits| format!("{bits:x}")).map_err(|e| e.to_string())
        };
        assert_eq!(set("", ""), Ok("a80425fb".into()), "the engines' default set");
        assert_eq!(set("", "ALL"), Ok("0".into()));
        assert_eq!(set("NET_BIND_SERVICE", "all"), Ok("400".into()));
        assert_eq!(set("ALL", "CAP_CHOWN"), Ok("1fffffffffe".into()));
        assert_eq!(set("SYS_TIME", ""), Ok("aa0425fb".into()));
        assert_eq!(set("FLY", ""), Err(r#"unknown capability "FLY""#.into()));
    }

    #[test]
    fn stop_signals_have_many_names() {
        let numbers = ["SIGQUIT", "quit", "3", "SIGRTMIN+3"].map(|name| signal_number(name).unwrap());
        assert_eq!(numbers, [3, 3, 3, libc::SIGRTMIN() + 3]);
        for wrong in ["", "0", "65", "SIGNOPE", "SIGRTMIN+99"] {
            assert!(signal_number(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_volume_takes_the_place_of_the_pods_own_file() {
        let volume = Mount { source: "/v".into(), target: "/etc/hosts".into(), read_only: false };
        let mounts = |host_ipc: bool| -> Vec<String> {
            let spec = ContainerSpec { mounts: vec![volume.clone()], ..spec() };
            let sandbox = SandboxSpec { host_ipc, ..sandbox() };
            let mounts = mounts(&spec, &sandbox, Path::new("/pod"));
            mounts.iter().map(|m| format!("{} {}", m.source.display(), m.target.display())).collect()
        };
        let own = [
            "/pod/shared/hostname /etc/hostname",
            "/pod/shared/resolv.conf /etc/resolv.conf",
            "/pod/shared/shm /dev/shm",
            "/v /etc/hosts",
        ];
        assert_eq!(mounts(false), own);
        assert_eq!(mounts(true)[2], "/dev/shm /dev/shm");
    }
}
