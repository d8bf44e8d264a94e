//! PersistentVolumes, PersistentVolumeClaims and StorageClasses.
//!
//! Mirrors ValidatePersistentVolume, ValidatePersistentVolumeClaim and their updates
//! (`pkg/apis/core/validation/validation.go`), and ValidateStorageClass (`pkg/apis/storage/validation/validation.go`).
//! Where upstream dumps the difference of two specs, here the sentence stands alone.

use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;

use super::field::{Errors, Fault, Path};
use super::pod::{host_path, node_selector};
use super::{meta, pod};
use crate::names;
use crate::quantity::Amount;
use crate::volumes::{self, BETA_CLASS};

const SPEC: Path<'static> = Path::root("spec");
const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
/// Bounds of a StorageClass's parameters.
const PARAMETERS: usize = 512;
const PARAMETER_BYTES: usize = 256 * 1024;

/// A new or changed claim; `old` is none for a new one.
pub fn claim(claim: &PersistentVolumeClaim, old: Option<&PersistentVolumeClaim>) -> Errors {
    let mut errors = Errors::default();
    match old {
        None => meta::create(&mut errors, &claim.metadata, true, names::dns_subdomain),
        Some(old) => meta::update(&mut errors, &claim.metadata, &old.metadata),
    }
    let spec = claim.spec.clone().unwrap_or_default();
    claim_spec(&mut errors, &spec);
    if let Some(old) = old {
        changed_claim(&mut errors, claim, old);
    }
    errors
}

fn claim_spec(errors: &mut Errors, spec: &PersistentVolumeClaimSpec) {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errors.required(&SPEC.child("accessModes"), "at least 1 access mode is required");
    }
    if let Some(selector) = &spec.selector {
        meta::label_selector(errors, &SPEC.child("selector"), selector);
    }
    access_modes(errors, modes);
    let resources = SPEC.child("resources");
    let path = resources.key("storage");
    match spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get("storage")) {
        None => errors.required(&path, ""),
        Some(quantity) => positive(errors, &path, "storage", quantity),
    }
    class_name(errors, spec.storage_class_name.as_deref());
    errors.optional_one_of(&SPEC.child("volumeMode"), spec.volume_mode.as_deref(), &VOLUME_MODES);
}

fn access_modes(errors: &mut Errors, modes: &[String]) {
    let path = SPEC.child("accessModes");
    for mode in modes {
        errors.optional_one_of(&path, Some(mode), &ACCESS_MODES);
    }
    let others = modes.iter().any(|mode| mode != "ReadWriteOncePod" && ACCESS_MODES.contains(&mode.as_str()));
    if others && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        errors.forbidden(&path, "may not use ReadWriteOncePod with other access modes");
    }
}

fn positive(
    errors: &mut Errors,
    path: &Path<'_>,
    name: &str,
    quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity,
) {
    match Amount::parse(&quantity.0) {
        Ok(amount) if amount <= Amount::ZERO => errors.invalid(path, amount.to_string(), "must be greater than zero"),
        _ => drop(pod::amount_of(errors, path, name, quantity)),
    }
}

fn class_name(errors: &mut Errors, name: Option<&str>) {
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        errors.each(&SPEC.child("storageClassName"), name, names::dns_subdomain(name));
    }
}

/// A claim stays what it is, but for the volume that it is given once, a class where it had none, and its size.
fn changed_claim(errors: &mut Errors, new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) {
    let beta = |claim: &PersistentVolumeClaim| volumes::annotation(&claim.metadata, BETA_CLASS).map(str::to_owned);
    let (mut now, mut before) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    if before.volume_name.as_deref().unwrap_or("").is_empty() {
        before.volume_name.clone_from(&now.volume_name);
    }
    let moved = before.storage_class_name.is_none() && now.storage_class_name.is_some();
    if moved && beta(old).is_none_or(|class| now.storage_class_name.as_ref() == Some(&class)) {
        now.storage_class_name.clone_from(&before.storage_class_name);
    } else if beta(new) != beta(old) {
        let annotations = Path::root("metadata.annotations");
        errors.invalid(&annotations.key(BETA_CLASS), beta(new).unwrap_or_default(), "field is immutable");
    }
    let bound = new.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    if let (true, Some(resources)) = (bound, now.resources.as_mut()) {
        resources.requests = before.resources.as_ref().and_then(|resources| resources.requests.clone());
    }
    if now != before {
        let detail =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.forbidden(&SPEC, detail);
    }
    if volumes::requested(new) < volumes::requested(old) {
        let detail = "field can not be less than status.capacity";
        errors.forbidden(&SPEC.child("resources.requests.storage"), detail);
    }
    errors.immutable(&Path::root("volumeMode"), &now.volume_mode, &before.volume_mode);
}

/// A new or changed volume; `old` is none for a new one.
pub fn volume(volume: &PersistentVolume, old: Option<&PersistentVolume>) -> Errors {
    let mut errors = Errors::default();
    match old {
        None => meta::create(&mut errors, &volume.metadata, false, names::dns_subdomain),
        Some(old) => meta::update(&mut errors, &volume.metadata, &old.metadata),
    }
    let spec = volume.spec.clone().unwrap_or_default();
    volume_spec(&mut errors, &spec);
    if let Some(old) = old {
        let before = old.spec.clone().unwrap_or_default();
        if source(&spec) != source(&before) {
            let detail = "spec.persistentvolumesource is immutable after creation";
            errors.forbidden(&SPEC.child("persistentvolumesource"), detail);
        }
        errors.immutable(&Path::root("volumeMode"), &spec.volume_mode, &before.volume_mode);
        if before.node_affinity.is_some() {
            errors.immutable(&Path::root("nodeAffinity"), &spec.node_affinity, &before.node_affinity);
        }
    }
    errors
}

fn volume_spec(errors: &mut Errors, spec: &PersistentVolumeSpec) {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errors.required(&SPEC.child("accessModes"), "");
    }
    access_modes(errors, modes);
    let (path, capacity) = (SPEC.child("capacity"), spec.capacity.clone().unwrap_or_default());
    if capacity.is_empty() {
        errors.required(&path, "");
    }
    if !capacity.contains_key("storage") || capacity.len() > 1 {
        errors.not_supported(&path, serde_json::to_value(&capacity).unwrap_or_default(), &["storage"]);
    }
    for (name, quantity) in &capacity {
        positive(errors, &path.key(name), name, quantity);
    }
    let policy = spec.persistent_volume_reclaim_policy.as_deref().filter(|policy| !policy.is_empty());
    let policies = ["Delete", "Recycle", "Retain"];
    errors.optional_one_of(&SPEC.child("persistentVolumeReclaimPolicy"), policy, &policies);
    if let Some(affinity) = &spec.node_affinity {
        node_affinity(errors, affinity);
    }
    sources(errors, spec);
    class_name(errors, spec.storage_class_name.as_deref());
    errors.optional_one_of(&SPEC.child("volumeMode"), spec.volume_mode.as_deref(), &VOLUME_MODES);
}

fn node_affinity(errors: &mut Errors, affinity: &VolumeNodeAffinity) {
    let path = SPEC.child("nodeAffinity.required");
    match &affinity.required {
        Some(selector) => node_selector(errors, &path, selector),
        None => errors.required(&path, "must specify required node constraints"),
    }
}

/// The JSON names of the sources that a volume has: one, if it is right.
pub(super) fn source_names(spec: &PersistentVolumeSpec) -> Vec<String> {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(source(spec)) else { return Vec::new() };
    fields.into_iter().map(|(name, _)| name).collect()
}

/// The spec without all that is not its source.
fn source(spec: &PersistentVolumeSpec) -> PersistentVolumeSpec {
    PersistentVolumeSpec {
        access_modes: None,
        capacity: None,
        claim_ref: None,
        mount_options: None,
        node_affinity: None,
        persistent_volume_reclaim_policy: None,
        storage_class_name: None,
        volume_attributes_class_name: None,
        volume_mode: None,
        ..spec.clone()
    }
}

fn sources(errors: &mut Errors, spec: &PersistentVolumeSpec) {
    let names = source_names(spec);
    if names.is_empty() {
        return errors.required(&SPEC, "must specify a volume type");
    }
    for more in &names[1..] {
        errors.forbidden(&SPEC.child(more), "may not specify more than 1 volume type");
    }
    if let Some(source) = &spec.host_path {
        host_path(errors, &SPEC.child("hostPath"), source);
    }
    if let Some(local) = &spec.local {
        let path = SPEC.child("local.path");
        if local.path.is_empty() {
            errors.required(&path, "");
        } else if local.path.split('/').any(|part| part == "..") {
            errors.invalid(&path, local.path.as_str(), "must not contain '..'");
        }
        if spec.node_affinity.is_none() {
            errors.required(&SPEC.child("nodeAffinity"), "Local volume requires node affinity");
        }
    }
    if let Some(csi) = &spec.csi {
        let path = SPEC.child("csi");
        if csi.driver.is_empty() {
            errors.required(&path.child("driver"), "");
        }
        if csi.volume_handle.is_empty() {
            errors.required(&path.child("volumeHandle"), "");
        }
    }
}

/// A new or changed StorageClass; `old` is none for a new one.
pub fn storage_class(class: &StorageClass, old: Option<&StorageClass>) -> Errors {
    let mut errors = Errors::default();
    match old {
        None => meta::create(&mut errors, &class.metadata, false, names::dns_subdomain),
        Some(old) => {
            meta::update(&mut errors, &class.metadata, &old.metadata);
            if class.parameters != old.parameters {
                errors.forbidden(&Path::root("parameters"), "updates to parameters are forbidden.");
            }
            if class.provisioner != old.provisioner {
                errors.forbidden(&Path::root("provisioner"), "updates to provisioner are forbidden.");
            }
            if class.reclaim_policy != old.reclaim_policy {
                errors.forbidden(&Path::root("reclaimPolicy"), "updates to reclaimPolicy are forbidden.");
            }
            let path = Path::root("volumeBindingMode");
            errors.immutable(&path, &class.volume_binding_mode, &old.volume_binding_mode);
        }
    }
    if class.provisioner.is_empty() {
        errors.required(&Path::root("provisioner"), "");
    } else {
        let lower = class.provisioner.to_lowercase();
        errors.each(&Path::root("provisioner"), &class.provisioner, names::qualified_name(&lower));
    }
    parameters(&mut errors, class);
    let policies = ["Delete", "Retain"];
    errors.optional_one_of(&Path::root("reclaimPolicy"), class.reclaim_policy.as_deref(), &policies);
    let modes = ["Immediate", "WaitForFirstConsumer"];
    errors.one_of(&Path::root("volumeBindingMode"), class.volume_binding_mode.as_deref(), &modes);
    errors
}

fn parameters(errors: &mut Errors, class: &StorageClass) {
    let (path, mut bytes) = (Path::root("parameters"), 0);
    let all = class.parameters.iter().flatten();
    if all.clone().count() > PARAMETERS {
        errors.add(&path, Fault::TooLong, "", format!("may not be more than {PARAMETERS} bytes"));
    }
    for (name, value) in all {
        if name.is_empty() {
            errors.invalid(&path, name.as_str(), "field can not be empty.");
        }
        bytes += name.len() + value.len();
    }
    if bytes > PARAMETER_BYTES {
        errors.too_long(&path, PARAMETER_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{Body, Kind};
    use crate::validate;
    use expect_test::expect;
    use serde_json::{Value, json};

    fn merge(value: &mut Value, more: &Value) {
        match (value, more) {
            (Value::Object(value), Value::Object(more)) => {
                more.iter().for_each(|(key, more)| merge(value.entry(key).or_insert(Value::Null), more));
            }
            (value, more) => *value = more.clone(),
        }
    }

    fn body(kind: Kind, more: &Value) -> Body {
        let mut object = match kind {
            Kind::PersistentVolumeClaim => json!({
                "metadata": { "name": "c", "namespace": "ns" },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
            }),
            Kind::PersistentVolume => json!({
                "metadata": { "name": "v" },
                "spec": { "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" }, "hostPath": { "path": "/x" } },
            }),
            _ => json!({ "metadata": { "name": "s" }, "provisioner": "somebody.example/disks" }),
        };
        merge(&mut object, more);
        let mut body = kind.decode(object).unwrap();
        crate::defaults::apply(&mut body);
        body
    }

    fn told(errors: Errors, body: &Body) -> String {
        errors.refuse(body).map_or_else(|refusal| refusal.message, |()| "fine".into()) + "\n"
    }

    fn created(kind: Kind, cases: &[Value]) -> String {
        let told_of = |more: &Value| {
            let body = body(kind, more);
            told(validate::create(&body), &body)
        };
        cases.iter().map(told_of).collect()
    }

    fn changed(kind: Kind, cases: &[(Value, Value)]) -> String {
        let told_of = |(before, after): &(Value, Value)| {
            let (before, after) = (body(kind, before), body(kind, after));
            told(validate::update(&after, &before), &before)
        };
        cases.iter().map(told_of).collect()
    }

    #[test]
    fn claims() {
        let spec = |spec: Value| json!({ "spec": spec });
        let table = created(
            Kind::PersistentVolumeClaim,
            &[
                json!({}),
                spec(json!({ "accessModes": [] })),
                spec(json!({ "accessModes": ["ReadWriteOnce", "Sometimes", "ReadWriteOncePod"] })),
                spec(json!({ "resources": null })),
                spec(json!({ "resources": { "requests": { "storage": "0" } } })),
                spec(json!({ "storageClassName": "A_B", "volumeMode": "Tape" })),
                spec(json!({ "volumeMode": "Block", "dataSource": { "kind": "PersistentVolumeClaim", "name": "x" } })),
            ],
        );
        expect![[r#"
            fine
            PersistentVolumeClaim "c" is invalid: spec.accessModes: Required value: at least 1 access mode is required
            PersistentVolumeClaim "c" is invalid: [spec.accessModes: Unsupported value: "Sometimes": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod", spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes]
            PersistentVolumeClaim "c" is invalid: spec.resources[storage]: Required value
            PersistentVolumeClaim "c" is invalid: spec.resources[storage]: Invalid value: "0": must be greater than zero
            PersistentVolumeClaim "c" is invalid: [spec.storageClassName: Invalid value: "A_B": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'), spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem"]
            PersistentVolumeClaim "c" is invalid: [spec.dataSource: Forbidden: not supported by kapstan: volumes filled from others, spec.volumeMode: Forbidden: not supported by kapstan: block devices]
        "#]].assert_eq(&table);
    }

    #[test]
    fn changes_of_claims() {
        let spec = |spec: Value| json!({ "spec": spec });
        let bound = |spec: Value| json!({ "spec": spec, "status": { "phase": "Bound" } });
        let size = |size: &str| json!({ "resources": { "requests": { "storage": size } } });
        let table = changed(
            Kind::PersistentVolumeClaim,
            &[
                (json!({}), spec(json!({ "volumeName": "v" }))),
                (spec(json!({ "volumeName": "v" })), spec(json!({ "volumeName": "w" }))),
                (json!({}), spec(json!({ "storageClassName": "local" }))),
                (spec(json!({ "storageClassName": "local" })), spec(json!({ "storageClassName": "other" }))),
                (json!({}), spec(size("2Gi"))),
                (bound(json!({})), bound(size("2Gi"))),
                (bound(json!({})), bound(size("500Mi"))),
            ],
        );
        expect![[r#"
            fine
            PersistentVolumeClaim "c" is invalid: spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims
            fine
            PersistentVolumeClaim "c" is invalid: spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims
            PersistentVolumeClaim "c" is invalid: spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims
            fine
            PersistentVolumeClaim "c" is invalid: spec.resources.requests.storage: Forbidden: field can not be less than status.capacity
        "#]].assert_eq(&table);
    }

    #[test]
    fn volumes() {
        let spec = |spec: Value| json!({ "spec": spec });
        let csi = |source: Value| json!({ "spec": { "hostPath": null, "csi": source } });
        let mut table = created(
            Kind::PersistentVolume,
            &[
                json!({}),
                spec(json!({ "hostPath": null })),
                spec(json!({ "local": { "path": "/d" } })),
                spec(json!({ "hostPath": null, "local": { "path": "../d" }, "nodeAffinity": {} })),
                spec(json!({ "hostPath": null, "nfs": { "server": "s", "path": "/" }, "mountOptions": ["ro"] })),
                spec(
                    json!({ "capacity": { "storage": "-1", "iops": "3" }, "persistentVolumeReclaimPolicy": "Recycle" }),
                ),
                spec(json!({ "accessModes": null, "capacity": null, "persistentVolumeReclaimPolicy": "Burn" })),
                csi(json!({ "driver": "local.kapstan.dev", "volumeHandle": "a" })),
                csi(json!({ "driver": "local.kapstan.dev", "volumeHandle": "../a", "fsType": "ext4" })),
                csi(json!({ "driver": "disks.example", "volumeHandle": "a" })),
            ],
        );
        table += &changed(
            Kind::PersistentVolume,
            &[
                (json!({}), spec(json!({ "hostPath": { "path": "/y" } }))),
                (
                    json!({}),
                    spec(json!({ "capacity": { "storage": "2Gi" }, "claimRef": { "name": "c", "namespace": "ns" } })),
                ),
            ],
        );
        expect![[r#"
            fine
            PersistentVolume "v" is invalid: spec: Required value: must specify a volume type
            PersistentVolume "v" is invalid: [spec.local: Forbidden: may not specify more than 1 volume type, spec.nodeAffinity: Required value: Local volume requires node affinity]
            PersistentVolume "v" is invalid: [spec.nodeAffinity.required: Required value: must specify required node constraints, spec.local.path: Invalid value: "../d": must not contain '..']
            PersistentVolume "v" is invalid: [spec.nfs: Forbidden: not supported by kapstan: this source of volumes (it has hostPath, local and folders of its own), spec.mountOptions: Forbidden: not supported by kapstan: folders are not mounted with options]
            PersistentVolume "v" is invalid: [spec.capacity: Unsupported value: {"iops":"3","storage":"-1"}: supported values: "storage", spec.capacity[storage]: Invalid value: "-1": must be greater than zero, spec.persistentVolumeReclaimPolicy: Forbidden: not supported by kapstan: Recycle (use Retain or Delete)]
            PersistentVolume "v" is invalid: [spec.accessModes: Required value, spec.capacity: Required value, spec.capacity: Unsupported value: {}: supported values: "storage", spec.persistentVolumeReclaimPolicy: Unsupported value: "Burn": supported values: "Delete", "Recycle", "Retain"]
            fine
            PersistentVolume "v" is invalid: [spec.csi: Forbidden: not supported by kapstan: a folder has nothing but its name (volumeHandle), spec.csi.volumeHandle: Invalid value: "../a": is the name of a folder]
            PersistentVolume "v" is invalid: spec.csi.driver: Forbidden: not supported by kapstan: drivers other than local.kapstan.dev
            PersistentVolume "v" is invalid: spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation
            fine
        "#]].assert_eq(&table);
    }

    #[test]
    fn classes() {
        let ours = |more: Value| {
            let mut class = json!({ "provisioner": "kapstan.dev/local", "volumeBindingMode": "WaitForFirstConsumer" });
            merge(&mut class, &more);
            class
        };
        let mut table = created(
            Kind::StorageClass,
            &[
                json!({}),
                json!({ "provisioner": "" }),
                json!({ "provisioner": "a b", "reclaimPolicy": "Recycle", "volumeBindingMode": "Later" }),
                ours(json!({})),
                ours(
                    json!({ "volumeBindingMode": "Immediate", "parameters": { "a": "b" }, "allowVolumeExpansion": true }),
                ),
            ],
        );
        table += &changed(
            Kind::StorageClass,
            &[
                (
                    json!({}),
                    json!({ "parameters": { "a": "b" }, "provisioner": "x", "reclaimPolicy": "Retain", "volumeBindingMode": "WaitForFirstConsumer" }),
                ),
                (json!({}), json!({ "allowVolumeExpansion": true })),
            ],
        );
        expect![[r#"
            fine
            StorageClass.storage.k8s.io "s" is invalid: provisioner: Required value
            StorageClass.storage.k8s.io "s" is invalid: [provisioner: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]'), reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain", volumeBindingMode: Unsupported value: "Later": supported values: "Immediate", "WaitForFirstConsumer"]
            fine
            StorageClass.storage.k8s.io "s" is invalid: [allowVolumeExpansion: Forbidden: not supported by kapstan: a folder has no size of its own, parameters: Forbidden: not supported by kapstan: folders have no parameters, volumeBindingMode: Forbidden: not supported by kapstan: a folder is on a node, so it has to be WaitForFirstConsumer]
            StorageClass.storage.k8s.io "s" is invalid: [parameters: Forbidden: updates to parameters are forbidden., provisioner: Forbidden: updates to provisioner are forbidden., reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden., volumeBindingMode: Invalid value: "WaitForFirstConsumer": field is immutable]
            fine
        "#]].assert_eq(&table);
    }
}
