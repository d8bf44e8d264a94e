//! What the runtime is asked for: a pod's sandbox and its containers, in the runtime's words.
//!
//! Pure. What this node cannot give (processes shared by a pod's containers, a local seccomp profile, unsafe sysctls …) is refused with a
//! sentence that names the field: it becomes `CreateContainerConfigError`, never silence. Mirrors
//! `generateContainerConfig` and `determineEffectiveSecurityContext` (`pkg/kubelet/kuberuntime`).

use std::path::{Path, PathBuf};

use api::Pod;
use k8s_openapi::{
    api::core::v1::{Container, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::{
    environment::expand,
    resources,
    runtime::{ContainerSpec, Limits, Mount, SandboxSpec, Security},
};

/// Where a container leaves its last words, unless it says otherwise.
const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

/// The sandbox of a pod that finds names by `resolv_conf`, in a cluster of this domain.
pub fn sandbox(pod: &Pod, domain: &str, resolv_conf: Vec<String>) -> SandboxSpec {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let aliases = spec.host_aliases.iter().flatten();
    let (short, full) = host_names(pod, &spec, domain);
    let hostname = full.clone().filter(|_| spec.set_hostname_as_fqdn == Some(true)).unwrap_or_else(|| short.clone());
    SandboxSpec {
        uid: part(&pod.metadata.uid),
        namespace: part(&pod.metadata.namespace),
        name: part(&pod.metadata.name),
        hostname,
        names: full.into_iter().chain([short]).collect(),
        host_network: spec.host_network == Some(true),
        host_pid: spec.host_pid == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        sysctls: sysctls(&spec).filter(|(name, _)| may_be_set(&spec, name)).collect(),
        resolv_conf,
        host_aliases: aliases.map(|alias| (alias.ip.clone(), alias.hostnames.clone().unwrap_or_default())).collect(),
    }
}

/// The pod's host name, of 63 characters at most, and the one by which its service knows it if it names that as its
/// subdomain (`GeneratePodHostNameAndDomain`, `truncatePodHostnameIfNeeded`).
fn host_names(pod: &Pod, spec: &PodSpec, domain: &str) -> (String, Option<String>) {
    if let Some(name) = &spec.hostname_override {
        return (name.clone(), None);
    }
    let name = spec.hostname.as_deref().filter(|name| !name.is_empty()).or(pod.metadata.name.as_deref());
    let short: String = name.unwrap_or_default().chars().take(63).collect();
    let short = short.trim_end_matches(['-', '.']).to_owned();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let subdomain = spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty());
    let full = subdomain.map(|subdomain| format!("{short}.{subdomain}.{namespace}.svc.{domain}"));
    (short, full)
}

/// Folder of a container's logs and last words.
pub fn container_dir(pod_dir: &Path, container: &str) -> PathBuf {
    pod_dir.join(container)
}

/// Where an instance's output goes.
pub fn log_path(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    container_dir(pod_dir, container).join(format!("{attempt}.log"))
}

/// Where an instance's last words go.
pub fn termination_path(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    container_dir(pod_dir, container).join(format!("{attempt}.termination"))
}

/// A container of a pod. `mounts` are those of its volumes.
pub fn container(
    pod: &Pod,
    container: &Container,
    attempt: u32,
    env: Vec<(String, String)>,
    mut mounts: Vec<Mount>,
    pod_dir: &Path,
) -> Result<ContainerSpec, String> {
    let spec = pod.spec.as_deref().ok_or("the pod has no spec")?;
    refuse_what_cannot_be(spec, container)?;
    let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
        let value_of = |name: &str| env.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.clone());
        words.iter().flatten().map(|word| expand(word, value_of)).collect()
    };
    mounts.push(Mount {
        source: termination_path(pod_dir, &container.name, attempt),
        target: container.termination_message_path.as_deref().unwrap_or(TERMINATION_MESSAGE_PATH).into(),
        read_only: false,
    });
    Ok(ContainerSpec {
        pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
        name: container.name.clone(),
        attempt,
        image: container.image.clone().unwrap_or_default(),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone(),
        mounts,
        limits: limits(container)?,
        security: security(spec.security_context.as_ref(), container.security_context.as_ref()),
        log_path: log_path(pod_dir, &container.name, attempt),
        stdin: container.stdin == Some(true),
        tty: container.tty == Some(true),
        stop_signal: container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone()),
        env,
    })
}

/// Whether a container is to have a label of SELinux, its own or its pod's.
pub fn asks_for_labels(pod: &Pod, container: &Container) -> bool {
    let of_pod = pod.spec.as_deref().and_then(|spec| spec.security_context.as_ref());
    of_pod.is_some_and(|of_pod| of_pod.se_linux_options.is_some())
        || container.security_context.as_ref().is_some_and(|own| own.se_linux_options.is_some())
}

fn refuse_what_cannot_be(spec: &PodSpec, container: &Container) -> Result<(), String> {
    let of_pod = spec.security_context.as_ref();
    let own = container.security_context.as_ref();
    let local = |profile: Option<&SeccompProfile>| profile.is_some_and(|profile| profile.type_ == "Localhost");
    let armour = |profile: Option<&k8s_openapi::api::core::v1::AppArmorProfile>| {
        profile.is_some_and(|profile| profile.type_ == "Localhost")
    };
    // One row each: what is asked for, and the field it is asked with.
    let rows = [
        (spec.share_process_namespace == Some(true), "spec.shareProcessNamespace"),
        (spec.host_users == Some(false), "spec.hostUsers: false"),
        (spec.runtime_class_name.is_some(), "spec.runtimeClassName"),
        (spec.resource_claims.iter().flatten().next().is_some(), "spec.resourceClaims"),
        (local(of_pod.and_then(|of_pod| of_pod.seccomp_profile.as_ref())), "seccompProfile of type Localhost"),
        (local(own.and_then(|own| own.seccomp_profile.as_ref())), "seccompProfile of type Localhost"),
        (armour(of_pod.and_then(|of_pod| of_pod.app_armor_profile.as_ref())), "appArmorProfile of type Localhost"),
        (armour(own.and_then(|own| own.app_armor_profile.as_ref())), "appArmorProfile of type Localhost"),
        (own.is_some_and(|own| own.proc_mount.as_deref() == Some("Unmasked")), "securityContext.procMount: Unmasked"),
        (container.volume_devices.iter().flatten().next().is_some(), "volumeDevices"),
    ];
    if let Some((_, field)) = rows.iter().find(|(asked, _)| *asked) {
        return Err(format!("{field} is not supported on this node"));
    }
    match sysctls(spec).find(|(name, _)| !may_be_set(spec, name)) {
        Some((name, _)) => Err(format!("forbidden sysctl: \"{name}\" not allowlisted")),
        None => Ok(()),
    }
}

/// What the kernel keeps apart for every network namespace, or for every IPC namespace, and no pod can do harm with (upstream:
/// `pkg/kubelet/sysctl: SafeSysctlAllowlist`).
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// The parameters that a pod asks for, with dots between their parts (upstream: `sysctl.NormalizeName`).
fn sysctls(spec: &PodSpec) -> impl Iterator<Item = (String, String)> {
    let asked = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    asked.map(|sysctl| (sysctl.name.replace('/', "."), sysctl.value.clone()))
}

fn may_be_set(spec: &PodSpec, name: &str) -> bool {
    SAFE_SYSCTLS.contains(&name) && !(spec.host_network == Some(true) && name.starts_with("net."))
}

fn limits(container: &Container) -> Result<Limits, String> {
    let bounds = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    for (name, _) in bounds.into_iter().flatten() {
        if !matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            return Err(format!("resources.limits.{name} is not supported on this node"));
        }
    }
    let read = |quantity: Option<&Quantity>, scale: fn(&Quantity) -> Option<i64>, field: &str| match quantity {
        None => Ok(None),
        Some(quantity) => {
            let value = scale(quantity).and_then(|value| u64::try_from(value).ok());
            value.map(Some).ok_or_else(|| format!("resources.{field} is not a quantity: {}", quantity.0))
        }
    };
    let shares = read(resources::request(container, "cpu"), resources::milli, "requests.cpu")?;
    Ok(Limits {
        cpu_shares: shares.map(|milli| (milli * 1024 / 1000).clamp(2, 262_144)),
        cpu_milli: read(resources::limit(container, "cpu"), resources::milli, "limits.cpu")?,
        memory_bytes: read(resources::limit(container, "memory"), resources::whole, "limits.memory")?,
        pids: None,
    })
}

/// What the container says counts, then what its pod says.
fn security(of_pod: Option<&PodSecurityContext>, own: Option<&SecurityContext>) -> Security {
    let mut groups: Vec<i64> = of_pod.and_then(|of_pod| of_pod.supplemental_groups.clone()).unwrap_or_default();
    groups.extend(of_pod.and_then(|of_pod| of_pod.fs_group));
    let capabilities = own.and_then(|own| own.capabilities.as_ref());
    let profile = own.and_then(|own| own.seccomp_profile.as_ref());
    let profile = profile.or_else(|| of_pod.and_then(|of_pod| of_pod.seccomp_profile.as_ref()));
    let non_root = own.and_then(|own| own.run_as_non_root).or_else(|| of_pod.and_then(|of_pod| of_pod.run_as_non_root));
    Security {
        run_as_user: own.and_then(|own| own.run_as_user).or_else(|| of_pod.and_then(|of_pod| of_pod.run_as_user)),
        run_as_group: own.and_then(|own| own.run_as_group).or_else(|| of_pod.and_then(|of_pod| of_pod.run_as_group)),
        run_as_non_root: non_root == Some(true),
        supplemental_groups: groups,
        read_only_root: own.and_then(|own| own.read_only_root_filesystem) == Some(true),
        privileged: own.and_then(|own| own.privileged) == Some(true),
        allow_privilege_escalation: own.and_then(|own| own.allow_privilege_escalation) != Some(false),
        add_capabilities: capabilities.and_then(|one| one.add.clone()).unwrap_or_default(),
        drop_capabilities: capabilities.and_then(|one| one.drop.clone()).unwrap_or_default(),
        seccomp_default: profile.is_some_and(|profile| profile.type_ == "RuntimeDefault"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn pod(yaml: &str) -> Pod {
        serde_yaml::from_str(yaml).unwrap()
    }

    fn built(pod: &Pod) -> Result<ContainerSpec, String> {
        let one = &pod.spec.as_deref().unwrap().containers[0];
        container(pod, one, 1, vec![("A".into(), "b".into())], Vec::new(), Path::new("/pods/u"))
    }

    #[test]
    fn a_container_is_asked_for_in_the_runtimes_words() {
        let pod = pod("
metadata: {name: p, namespace: ns, uid: u}
spec:
  securityContext: {runAsUser: 7, fsGroup: 9, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: c
    image: web:v1
    command: [serve, '$(A)']
    resources: {limits: {cpu: 500m, memory: 64Mi}}
    securityContext: {runAsUser: 8, capabilities: {drop: [ALL]}, allowPrivilegeEscalation: false}
");
        let spec = built(&pod).unwrap();
        expect![[r#"
            ["serve", "b"] Limits { cpu_shares: Some(512), cpu_milli: Some(500), memory_bytes: Some(67108864), pids: None }
            Security { run_as_user: Some(8), run_as_group: None, run_as_non_root: false, supplemental_groups: [9], read_only_root: false, privileged: false, allow_privilege_escalation: false, add_capabilities: [], drop_capabilities: ["ALL"], seccomp_default: true }
            [Mount { source: "/pods/u/c/1.termination", target: "/dev/termination-log", read_only: false }] "/pods/u/c/1.log"
        "#]]
        .assert_eq(&format!(
            "{:?} {:?}\n{:?}\n{:?} {:?}\n",
            spec.command, spec.limits, spec.security, spec.mounts, spec.log_path
        ));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let pod = pod("{metadata: {name: p}, spec: {shareProcessNamespace: true, containers: [{name: c}]}}");
        assert_eq!(built(&pod).unwrap_err(), "spec.shareProcessNamespace is not supported on this node");
    }

    #[test]
    fn a_pod_may_share_what_the_node_has() {
        let shares = |spec: &str| {
            let pod = pod(&format!("{{metadata: {{name: p}}, spec: {spec}}}"));
            built(&pod).unwrap();
            let sandbox = sandbox(&pod, "cluster.local", Vec::new());
            [sandbox.host_network, sandbox.host_pid, sandbox.host_ipc]
        };
        assert_eq!(shares("{containers: [{name: c}]}"), [false; 3]);
        assert_eq!(shares("{hostPID: true, containers: [{name: c}]}"), [false, true, false]);
        assert_eq!(shares("{hostNetwork: true, hostIPC: true, containers: [{name: c}]}"), [true, false, true]);
    }

    #[test]
    fn safe_parameters_of_the_kernel_are_set() {
        let check = |sysctls: &str, host_network: bool| {
            let pod = pod(&format!(
                "{{metadata: {{name: p}}, spec: {{hostNetwork: {host_network}, securityContext: {{sysctls: {sysctls}}}, containers: [{{name: c}}]}}}}"
            ));
            match built(&pod) {
                Ok(_) => format!("{:?}", sandbox(&pod, "cluster.local", Vec::new()).sysctls),
                Err(why) => why,
            }
        };
        let safe = "[{name: kernel.shm_rmid_forced, value: '1'}, {name: net/ipv4/tcp_rmem, value: 4096 87380 6291456}]";
        let set = r#"[("kernel.shm_rmid_forced", "1"), ("net.ipv4.tcp_rmem", "4096 87380 6291456")]"#;
        assert_eq!(check(safe, false), set);
        assert_eq!(check(safe, true), r#"forbidden sysctl: "net.ipv4.tcp_rmem" not allowlisted"#);
        let unsafe_one = "[{name: kernel.msgmax, value: '1'}]";
        assert_eq!(check(unsafe_one, false), r#"forbidden sysctl: "kernel.msgmax" not allowlisted"#);
    }

    #[test]
    fn labels_are_asked_for_by_the_pod_or_the_container() {
        let check = |spec: &str| {
            let pod = pod(&format!("{{metadata: {{name: p}}, spec: {spec}}}"));
            asks_for_labels(&pod, &pod.spec.as_deref().unwrap().containers[0])
        };
        assert!(check("{securityContext: {seLinuxOptions: {level: 's0:c0,c1'}}, containers: [{name: c}]}"));
        assert!(check("{containers: [{name: c, securityContext: {seLinuxOptions: {level: s0}}}]}"));
        assert!(!check("{securityContext: {runAsUser: 7}, containers: [{name: c}]}"));
    }

    #[test]
    fn a_pod_of_a_service_knows_its_full_name() {
        let check = |spec: &str, hostname: &str, names: &[&str]| {
            let pod = pod(&format!("{{metadata: {{name: web-0, namespace: ns}}, spec: {spec}}}"));
            let sandbox = sandbox(&pod, "cluster.local", Vec::new());
            assert_eq!(
                (sandbox.hostname.as_str(), sandbox.names.as_slice()),
                (hostname, &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()[..])
            );
        };
        let full = "h.web.ns.svc.cluster.local";
        check("{containers: []}", "web-0", &["web-0"]);
        check("{containers: [], hostname: h, subdomain: web}", "h", &[full, "h"]);
        check("{containers: [], hostname: h, subdomain: web, setHostnameAsFQDN: true}", full, &[full, "h"]);
        check(
            "{containers: [], hostname: h, subdomain: web, hostnameOverride: o.example}",
            "o.example",
            &["o.example"],
        );
    }
}
