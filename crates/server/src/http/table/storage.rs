//! The cells of claims, volumes and their classes.

use api::volumes::{self, IS_DEFAULT_CLASS};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

pub(super) fn claim(claim: &PersistentVolumeClaim, name: Value, age: Value) -> Vec<Value> {
    let (spec, status) = (claim.spec.clone().unwrap_or_default(), claim.status.clone().unwrap_or_default());
    let volume = volumes::volume_name(claim);
    let bound = !volume.is_empty();
    let capacity = status.capacity.as_ref().and_then(|capacity| capacity.get("storage"));
    let capacity = capacity.map_or_else(|| "0".to_owned(), |quantity| quantity.0.clone());
    vec![
        name,
        json!(phase(&claim.metadata, status.phase.as_deref())),
        json!(volume),
        json!(if bound { capacity } else { String::new() }),
        json!(if bound { short(status.access_modes.as_deref()) } else { String::new() }),
        json!(volumes::class_of_claim(claim).unwrap_or("")),
        json!(spec.volume_attributes_class_name.unwrap_or_else(|| "<unset>".into())),
        age,
        json!(spec.volume_mode.unwrap_or_else(|| "<unset>".into())),
    ]
}

pub(super) fn volume(volume: &PersistentVolume, name: Value, age: Value) -> Vec<Value> {
    let (spec, status) = (volume.spec.clone().unwrap_or_default(), volume.status.clone().unwrap_or_default());
    let capacity = spec.capacity.as_ref().and_then(|capacity| capacity.get("storage"));
    let claim = spec
        .claim_ref
        .map(|claim| format!("{}/{}", claim.namespace.unwrap_or_default(), claim.name.unwrap_or_default()));
    vec![
        name,
        json!(capacity.map_or("0", |quantity| &quantity.0)),
        json!(short(spec.access_modes.as_deref())),
        json!(spec.persistent_volume_reclaim_policy.unwrap_or_default()),
        json!(phase(&volume.metadata, status.phase.as_deref())),
        json!(claim.unwrap_or_default()),
        json!(volumes::class_of_volume(volume)),
        json!(spec.volume_attributes_class_name.unwrap_or_else(|| "<unset>".into())),
        json!(status.reason.unwrap_or_default()),
        age,
        json!(spec.volume_mode.unwrap_or_else(|| "<unset>".into())),
    ]
}

pub(super) fn class(class: &StorageClass, age: Value) -> Vec<Value> {
    let name = class.metadata.name.clone().unwrap_or_default();
    let default = volumes::annotation(&class.metadata, IS_DEFAULT_CLASS) == Some("true");
    vec![
        json!(if default { format!("{name} (default)") } else { name }),
        json!(class.provisioner),
        json!(class.reclaim_policy.as_deref().unwrap_or("Delete")),
        json!(class.volume_binding_mode.as_deref().unwrap_or("Immediate")),
        json!(class.allow_volume_expansion.unwrap_or(false)),
        age,
    ]
}

fn phase<'a>(meta: &ObjectMeta, phase: Option<&'a str>) -> &'a str {
    if meta.deletion_timestamp.is_some() { "Terminating" } else { phase.unwrap_or("") }
}

/// `RWO,RWX` (upstream: GetAccessModesAsString).
fn short(modes: Option<&[String]>) -> String {
    let known =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |mode: &str| modes.unwrap_or_default().iter().any(|given| given == mode);
    known.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}
