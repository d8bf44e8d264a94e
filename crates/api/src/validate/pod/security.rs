//! Users, groups and privileges.
//!
//! Mirrors validatePodSpecSecurityContext, ValidateSecurityContext, validateSeccompProfileField, validateSysctls.

use k8s_openapi::api::core::v1::{PodSpec, SeccompProfile, SecurityContext, Sysctl};

use super::volumes::descending;
use crate::names;
use crate::validate::field::{Errors, Path};

const SYSCTL_LENGTH: usize = 253;

/// The security context of a pod.
pub(super) fn pod(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    let Some(context) = spec.security_context.as_ref() else { return };
    let ids = [("fsGroup", context.fs_group), ("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)];
    for (field, id) in ids {
        user(errors, &path.child(field), id);
    }
    let groups = path.child("supplementalGroups");
    for (i, group) in context.supplemental_groups.iter().flatten().enumerate() {
        user(errors, &groups.index(i), Some(*group));
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("shareProcessNamespace"), true, detail);
    }
    sysctls(errors, &path.child("sysctls"), context.sysctls.as_deref().unwrap_or_default(), spec);
    let change = context.fs_group_change_policy.as_deref();
    errors.optional_one_of(&path.child("fsGroupChangePolicy"), change, &["Always", "OnRootMismatch"]);
    let groups_policy = context.supplemental_groups_policy.as_deref();
    errors.optional_one_of(&path.child("supplementalGroupsPolicy"), groups_policy, &["Merge", "Strict"]);
    let labels_policy = context.se_linux_change_policy.as_deref();
    errors.optional_one_of(&path.child("seLinuxChangePolicy"), labels_policy, &["Recursive"]);
    seccomp(errors, &path.child("seccompProfile"), context.seccomp_profile.as_ref());
}

/// The security context of a container.
pub(super) fn container(errors: &mut Errors, path: &Path<'_>, context: &SecurityContext, spec: &PodSpec) {
    user(errors, &path.child("runAsUser"), context.run_as_user);
    user(errors, &path.child("runAsGroup"), context.run_as_group);
    if let Some(mount) = context.proc_mount.as_deref() {
        errors.optional_one_of(&path.child("procMount"), Some(mount), &["Default", "Unmasked"]);
        if mount == "Unmasked" && spec.host_users != Some(false) {
            errors.invalid(&path.child("procMount"), mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(errors, &path.child("seccompProfile"), context.seccomp_profile.as_ref());
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid_object(path, context, detail);
        }
        let added = context.capabilities.as_ref().and_then(|capabilities| capabilities.add.as_ref());
        if added.into_iter().flatten().any(|capability| capability == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid_object(path, context, detail);
        }
    }
}

fn user(errors: &mut Errors, path: &Path<'_>, id: Option<i64>) {
    if let Some(id) = id {
        errors.each_number(path, id, names::user_id(id));
    }
}

fn seccomp(errors: &mut Errors, path: &Path<'_>, profile: Option<&SeccompProfile>) {
    let Some(profile) = profile else { return };
    if profile.type_.is_empty() {
        errors.required(&path.child("type"), "type is required when seccompProfile is set");
    } else {
        let types = ["Localhost", "RuntimeDefault", "Unconfined"];
        errors.optional_one_of(&path.child("type"), Some(profile.type_.as_str()), &types);
    }
    let at = path.child("localhostProfile");
    match profile.localhost_profile.as_deref() {
        None if profile.type_ == "Localhost" => errors.required(&at, "must be set when seccomp type is Localhost"),
        Some(file) if profile.type_ == "Localhost" => descending(errors, &at, file),
        Some(_) => errors.invalid_object(&at, profile, "can only be set when seccomp type is Localhost"),
        None => {}
    }
}

fn sysctls(errors: &mut Errors, path: &Path<'_>, sysctls: &[Sysctl], spec: &PodSpec) {
    const PATTERN: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    for (i, sysctl) in sysctls.iter().enumerate() {
        let item = path.index(i);
        let at = item.child("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            errors.required(&at, "");
        } else if name.len() > SYSCTL_LENGTH || !name.split(['.', '/']).all(is_sysctl_part) {
            let detail = format!("must have at most {SYSCTL_LENGTH} characters and match regex {PATTERN}");
            errors.invalid(&at, name, detail);
        } else if sysctls[..i].iter().any(|other| other.name == name) {
            errors.duplicate(&at, name);
        }
        let dotted = name.replace('/', ".");
        if spec.host_network == Some(true) && dotted.starts_with("net.") {
            errors.invalid(&at, name, "may not be specified when 'hostNetwork' is true");
        }
        let ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."].iter().any(|p| dotted.starts_with(p));
        if spec.host_ipc == Some(true) && ipc {
            errors.invalid(&at, name, "may not be specified when 'hostIPC' is true");
        }
    }
}

fn is_sysctl_part(part: &str) -> bool {
    let end = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    end(part.bytes().next()) && end(part.bytes().last()) && part.bytes().all(inner)
}
