//! Volumes, and that every mount has one.
//!
//! Mirrors ValidateVolumes, validateVolumeSource and ValidateVolumeMounts for the sources kapstan has.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, PodSpec, ProjectedVolumeSource, Volume,
    VolumeMount, VolumeProjection,
};

use super::environment::{FILE_FIELDS, field_selector, resource_selector};
use crate::names;
use crate::quantity::Amount;
use crate::validate::field::{Errors, Path};

const TOKEN_SECONDS_LEAST: i64 = 600;
const TOKEN_SECONDS_MOST: i64 = 1 << 32;

/// The volumes of a pod.
pub(super) fn all(errors: &mut Errors, path: &Path<'_>, volumes: &[Volume]) {
    let mut seen = BTreeSet::new();
    for (i, volume) in volumes.iter().enumerate() {
        let at = path.index(i);
        source(errors, &at, volume);
        if volume.name.is_empty() {
            errors.required(&at.child("name"), "");
        } else {
            errors.each(&at.child("name"), &volume.name, names::dns_label(&volume.name));
        }
        if !seen.insert(&volume.name) {
            errors.duplicate(&at.child("name"), volume.name.as_str());
        }
    }
}

fn source(errors: &mut Errors, path: &Path<'_>, volume: &Volume) {
    let names = source_names(volume);
    if names.is_empty() {
        return errors.required(path, "must specify a volume type");
    }
    one_source(errors, &path.child(&names[0]), &names[0], volume);
    for more in &names[1..] {
        errors.forbidden(&path.child(more), "may not specify more than 1 volume type");
    }
}

fn one_source(errors: &mut Errors, path: &Path<'_>, name: &str, volume: &Volume) {
    match name {
        "emptyDir" => empty_dir(errors, path, volume),
        "hostPath" => volume.host_path.iter().for_each(|source| host_path(errors, path, source)),
        "secret" => {
            let Some(secret) = volume.secret.as_ref() else { return };
            if secret.secret_name.as_deref().is_none_or(str::is_empty) {
                errors.required(&path.child("secretName"), "");
            }
            mode(errors, &path.child("defaultMode"), secret.default_mode);
            items(errors, &path.child("items"), secret.items.as_deref());
        }
        "configMap" => {
            let Some(config_map) = volume.config_map.as_ref() else { return };
            if config_map.name.is_empty() {
                errors.required(&path.child("name"), "");
            }
            mode(errors, &path.child("defaultMode"), config_map.default_mode);
            items(errors, &path.child("items"), config_map.items.as_deref());
        }
        "downwardAPI" => {
            let Some(downward) = volume.downward_api.as_ref() else { return };
            mode(errors, &path.child("defaultMode"), downward.default_mode);
            for file in downward.items.iter().flatten() {
                downward_file(errors, path, file);
            }
        }
        "projected" => {
            let Some(projected) = volume.projected.as_ref() else { return };
            mode(errors, &path.child("defaultMode"), projected.default_mode);
            projection(errors, path, projected);
        }
        "persistentVolumeClaim" => {
            let Some(claim) = volume.persistent_volume_claim.as_ref() else { return };
            if claim.claim_name.is_empty() {
                errors.required(&path.child("claimName"), "");
            }
        }
        _ => {}
    }
}

/// The JSON names of the sources that a volume has: one, if it is right.
pub(in crate::validate) fn source_names(volume: &Volume) -> Vec<String> {
    let known = [
        ("emptyDir", volume.empty_dir.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("secret", volume.secret.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("projected", volume.projected.is_some()),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
    ];
    let mut names: Vec<String> = known.iter().filter(|(_, given)| *given).map(|(name, _)| (*name).to_owned()).collect();
    let plain = Volume {
        name: volume.name.clone(),
        empty_dir: volume.empty_dir.clone(),
        host_path: volume.host_path.clone(),
        secret: volume.secret.clone(),
        config_map: volume.config_map.clone(),
        downward_api: volume.downward_api.clone(),
        projected: volume.projected.clone(),
        persistent_volume_claim: volume.persistent_volume_claim.clone(),
        ..Volume::default()
    };
    if plain != *volume
        && let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(volume)
    {
        let others = fields.into_iter().map(|(name, _)| name);
        let is_other = |name: &String| name != "name" && !known.iter().any(|(known, _)| known == name);
        names.extend(others.filter(is_other));
    }
    names
}

fn empty_dir(errors: &mut Errors, path: &Path<'_>, volume: &Volume) {
    let Some(limit) = volume.empty_dir.as_ref().and_then(|source| source.size_limit.as_ref()) else { return };
    if Amount::parse(&limit.0).map_or(true, Amount::is_negative) {
        errors.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
}

pub(in crate::validate) fn host_path(errors: &mut Errors, path: &Path<'_>, source: &HostPathVolumeSource) {
    if source.path.is_empty() {
        return errors.required(&path.child("path"), "");
    }
    no_backsteps(errors, &path.child("path"), &source.path);
    let types = ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    errors.optional_one_of(&path.child("type"), source.type_.as_deref(), &types);
}

fn items(errors: &mut Errors, path: &Path<'_>, items: Option<&[KeyToPath]>) {
    for (i, item) in items.unwrap_or_default().iter().enumerate() {
        let at = path.index(i);
        if item.key.is_empty() {
            errors.required(&at.child("key"), "");
        }
        if item.path.is_empty() {
            errors.required(&at.child("path"), "");
        }
        local_path(errors, &at.child("path"), &item.path);
        mode(errors, &at.child("mode"), item.mode);
    }
}

fn downward_file(errors: &mut Errors, path: &Path<'_>, file: &DownwardAPIVolumeFile) {
    if file.path.is_empty() {
        errors.required(&path.child("path"), "");
    }
    local_path(errors, &path.child("path"), &file.path);
    match (file.field_ref.as_ref(), file.resource_field_ref.as_ref()) {
        (Some(field), resource) => {
            field_selector(errors, &path.child("fieldRef"), field, FILE_FIELDS);
            if resource.is_some() {
                errors.invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
            }
        }
        (None, Some(resource)) => resource_selector(errors, &path.child("resourceFieldRef"), resource, true),
        (None, None) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(errors, &path.child("mode"), file.mode);
}

fn projection(errors: &mut Errors, path: &Path<'_>, projected: &ProjectedVolumeSource) {
    let sources = path.child("sources");
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (i, source) in projected.sources.iter().flatten().enumerate() {
        let at = sources.index(i);
        projected_source(errors, path, &at, source);
        for (file, shown) in files_of(source).filter(|(file, _)| !file.is_empty()) {
            if !seen.insert(file) {
                errors.invalid(path, shown, "conflicting duplicate paths");
            }
        }
    }
}

/// The files of a source, each with what upstream shows when it clashes with another.
fn files_of(source: &VolumeProjection) -> impl Iterator<Item = (&str, &str)> {
    let secret = source
        .secret
        .iter()
        .flat_map(|secret| secret.items.iter().flatten().map(|item| (item.path.as_str(), secret.name.as_str())));
    let config_map = source.config_map.iter().flat_map(|config_map| {
        config_map.items.iter().flatten().map(|item| (item.path.as_str(), config_map.name.as_str()))
    });
    let downward = source.downward_api.iter().flat_map(|downward| downward.items.iter().flatten());
    secret.chain(config_map).chain(downward.map(|file| (file.path.as_str(), file.path.as_str())))
}

fn projected_source(errors: &mut Errors, volume: &Path<'_>, path: &Path<'_>, source: &VolumeProjection) {
    if let Some(secret) = source.secret.as_ref() {
        if secret.name.is_empty() {
            errors.required(&path.child("secret.name"), "");
        }
        items(errors, &path.child("secret.items"), secret.items.as_deref());
    }
    if let Some(config_map) = source.config_map.as_ref() {
        if config_map.name.is_empty() {
            errors.required(&path.child("configMap.name"), "");
        }
        items(errors, &path.child("configMap.items"), config_map.items.as_deref());
    }
    for file in source.downward_api.iter().flat_map(|source| source.items.iter().flatten()) {
        downward_file(errors, &path.child("downwardAPI"), file);
    }
    if let Some(token) = source.service_account_token.as_ref() {
        let at = path.child("serviceAccountToken.expirationSeconds");
        let seconds = token.expiration_seconds.unwrap_or(0);
        if seconds < TOKEN_SECONDS_LEAST {
            errors.invalid(&at, seconds, "may not specify a duration less than 10 minutes");
        }
        if seconds > TOKEN_SECONDS_MOST {
            errors.invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds");
        }
        if token.path.is_empty() {
            errors.required(&volume.child("path"), "");
        }
        local_path(errors, &volume.child("path"), &token.path);
    }
    let given = [
        source.secret.is_some(),
        source.config_map.is_some(),
        source.downward_api.is_some(),
        source.service_account_token.is_some(),
        source.cluster_trust_bundle.is_some(),
        source.pod_certificate.is_some(),
    ];
    if given.iter().filter(|given| **given).count() > 1 {
        errors.forbidden(path, "may not specify more than 1 volume type per source");
    }
}

/// A token is for a ServiceAccount.
pub(super) fn tokens_need_an_account(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    if spec.service_account_name.as_deref().is_some_and(|name| !name.is_empty()) {
        return;
    }
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        let at = path.index(i);
        let sources = at.child("projected.sources");
        let given = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        for (j, _) in given.enumerate().filter(|(_, source)| source.service_account_token.is_some()) {
            let source = sources.index(j);
            let detail = "must not be specified when serviceAccountName is not set";
            errors.forbidden(&source.child("serviceAccountToken"), detail);
        }
    }
}

/// The mounts of a container.
pub(super) fn mounts(errors: &mut Errors, path: &Path<'_>, container: &Container, spec: &PodSpec) {
    let mut seen = BTreeSet::new();
    for (i, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let at = path.index(i);
        if mount.name.is_empty() {
            errors.required(&at.child("name"), "");
        }
        if !spec.volumes.iter().flatten().any(|volume| volume.name == mount.name) {
            errors.not_found(&at.child("name"), mount.name.as_str());
        }
        if mount.mount_path.is_empty() {
            errors.required(&at.child("mountPath"), "");
        }
        if !seen.insert(&mount.mount_path) {
            errors.invalid(&at.child("mountPath"), mount.mount_path.as_str(), "must be unique");
        }
        sub_paths(errors, path, &at, mount);
        propagation(errors, path, mount, container);
    }
}

fn sub_paths(errors: &mut Errors, list: &Path<'_>, path: &Path<'_>, mount: &VolumeMount) {
    let given = |field: &Option<String>| field.clone().unwrap_or_default();
    let (plain, expanded) = (given(&mount.sub_path), given(&mount.sub_path_expr));
    if !plain.is_empty() {
        descending(errors, &list.child("subPath"), &plain);
    }
    if !expanded.is_empty() {
        if !plain.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.invalid(&path.child("subPathExpr"), expanded.as_str(), detail);
        }
        descending(errors, &list.child("subPathExpr"), &expanded);
    }
}

fn propagation(errors: &mut Errors, path: &Path<'_>, mount: &VolumeMount, container: &Container) {
    let given = mount.mount_propagation.as_deref();
    let at = path.child("mountPropagation");
    errors.optional_one_of(&at, given, &["Bidirectional", "HostToContainer", "None"]);
    let privileged = container.security_context.as_ref().is_some_and(|context| context.privileged == Some(true));
    if given == Some("Bidirectional") && !privileged {
        errors.forbidden(&at, "Bidirectional mount propagation is available only to privileged containers");
    }
    let at = path.child("recursiveReadOnly");
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errors.forbidden(&at, "may only be specified when readOnly is true");
            }
            if given.is_some_and(|given| given != "None") {
                errors.forbidden(&at, "may only be specified when mountPropagation is None or not specified");
            }
        }
        Some(other) => errors.not_supported(&at, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn mode(errors: &mut Errors, path: &Path<'_>, mode: Option<i32>) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        errors.invalid(path, mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

/// A path that stays below where it starts, and does not look like the kubelet's own files.
fn local_path(errors: &mut Errors, path: &Path<'_>, value: &str) {
    descending(errors, path, value);
    if value.starts_with("..") && !value.starts_with("../") && value != ".." {
        errors.invalid(path, value, "must not start with '..'");
    }
}

/// A relative path without `..`.
pub(super) fn descending(errors: &mut Errors, path: &Path<'_>, value: &str) {
    if value.starts_with('/') {
        errors.invalid(path, value, "must be a relative path");
    }
    no_backsteps(errors, path, value);
}

fn no_backsteps(errors: &mut Errors, path: &Path<'_>, value: &str) {
    if value.split('/').any(|part| part == "..") {
        errors.invalid(path, value, "must not contain '..'");
    }
}
