//! What a pod's containers share: `hosts`, `hostname`, `resolv.conf` and `/dev/shm`; contents as the kubelet writes them
//! (`pkg/kubelet/kubelet_pods.go`, `managedHostsFileContent`).

use crate::{
    runtime::SandboxSpec,
    shim::rootfs::{mount_shared_memory, unmount_shared_memory},
};
use std::{
    fmt::Write,
    fs, io,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Folder of the pod in which they are.
const SHARED: &str = "shared";
/// Name and place inside a container.
pub const FILES: [(&str, &str); 4] =
    [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf"), (MEMORY, "/dev/shm")];
const MEMORY: &str = "shm";

/// Where `name` is: among the pod's own, or, of the memory it shares with the node, the node's.
pub fn source(pod: &Path, spec: &SandboxSpec, name: &str) -> PathBuf {
    if spec.host_ipc && name == MEMORY { PathBuf::from("/dev/shm") } else { path(pod, name) }
}

fn path(pod: &Path, name: &str) -> PathBuf {
    pod.join(SHARED).join(name)
}

/// Writes them all.
pub fn write(pod: &Path, spec: &SandboxSpec, address: IpAddr) -> io::Result<()> {
    fs::create_dir_all(path(pod, MEMORY))?;
    if !spec.host_ipc {
        mount_shared_memory(&path(pod, MEMORY))?;
    }
    let of_node = || fs::read_to_string("/etc/hosts").unwrap_or_default();
    let hosts = if spec.host_network { of_node() } else { own_hosts(&spec.names, address) };
    let resolv_conf: String = spec.resolv_conf.iter().flat_map(|line| [line, "\n"]).collect();
    write_public(&path(pod, "hosts"), &(hosts + &aliases(&spec.host_aliases)))?;
    write_public(&path(pod, "hostname"), &format!("{}\n", spec.hostname))?;
    write_public(&path(pod, "resolv.conf"), &resolv_conf)
}

/// Readable for whatever user a container runs as.
fn write_public(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// Removes them.
pub fn remove(pod: &Path) -> io::Result<()> {
    unmount_shared_memory(&path(pod, MEMORY));
    let _ = fs::remove_file(pod.join("shim.log"));
    match fs::remove_dir_all(pod.join(SHARED)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn own_hosts(names: &[String], address: IpAddr) -> String {
    let names = names.join("\t");
    format!(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n{address}\t{names}\n"
    )
}

fn aliases(aliases: &[(String, Vec<String>)]) -> String {
    let mut text = String::new();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for (address, names) in aliases {
        let _ = writeln!(text, "{address}\t{}", names.join("\t"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let text = own_hosts(&["web-0.web.ns.svc.cluster.local".into(), "web-0".into()], "10.244.0.9".parse().unwrap())
            + &aliases(&[("1.2.3.4".into(), vec!["a".into(), "b.c".into()])]);
        expect![[r#"
            # Kubernetes-managed hosts file.
            127.0.0.1	localhost
            ::1	localhost ip6-localhost ip6-loopback
            fe00::	ip6-localnet
            fe00::	ip6-mcastprefix
            fe00::1	ip6-allnodes
            fe00::2	ip6-allrouters
            10.244.0.9	web-0.web.ns.svc.cluster.local	web-0

            # Entries added by HostAliases.
            1.2.3.4	a	b.c
        "#]]
        .assert_eq(&text);
    }
}
