//! The volume that is made for a claim: a folder on the node that the scheduler chose, or somebody else's work.
//!
//! Mirrors upstream's provisionClaim and, for folders, what external provisioners write. The folder itself is made by
//! the node's agent when a pod first needs it.

use std::collections::BTreeMap;

use api::volumes::{
    self, FOLDER_FINALIZER, HOSTNAME, LOCAL_DRIVER, LOCAL_PROVISIONER, PROVISIONED_BY, SELECTED_NODE,
    STORAGE_PROVISIONER,
};
use api::{EventType, Key, Kind, Plan, Snapshot, Typed, Write};
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
    PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::note;

/// Makes a volume for a claim of this class, has it made, or says why not.
pub(super) fn volume(claim: &PersistentVolumeClaim, class: &str, world: &Snapshot, plan: &mut Plan) {
    let meta = &claim.metadata;
    let key = || {
        let namespace = meta.namespace.clone().unwrap_or_default();
        Key::new(Kind::PersistentVolumeClaim, namespace, meta.name.clone().unwrap_or_default())
    };
    let mut tell = |plan: &mut Plan, kind: EventType, reason: &'static str, message: String| {
        plan.why.push(message.clone());
        plan.events.push(note(key(), meta, kind, reason, message));
    };
    let Some(class) = world.get::<StorageClass>("", class) else {
        let message = format!("storageclass.storage.k8s.io \"{class}\" not found");
        return tell(plan, EventType::Warning, "ProvisioningFailed", message);
    };
    if class.provisioner != LOCAL_PROVISIONER {
        return await_other(claim, class, plan, &mut tell);
    }
    if meta.deletion_timestamp.is_some() && volumes::users(meta, world).next().is_none() {
        return;
    }
    let selected = volumes::annotation(meta, SELECTED_NODE);
    if selected.is_some_and(|node| world.get::<Node>("", node).is_none()) {
        // The scheduler has to choose again.
        let mut claim = claim.clone();
        claim.metadata.annotations.iter_mut().for_each(|annotations| drop(annotations.remove(SELECTED_NODE)));
        return plan.writes.push(Write::Update(claim.into_body()));
    }
    let made = volumes::suits_folder(claim).and_then(|()| folder(claim, class, world));
    match made {
        Err(why) => {
            let message = format!("failed to provision volume with StorageClass \"{}\": {why}", name(&class.metadata));
            tell(plan, EventType::Warning, "ProvisioningFailed", message);
        }
        Ok(volume) => {
            let message = format!("Successfully provisioned volume {}", name(&volume.metadata));
            plan.writes.push(Write::Create(volume.into_body()));
            plan.writes.push(Write::Event(note(key(), meta, EventType::Normal, "ProvisioningSucceeded", message)));
        }
    }
}

/// Leaves the claim to the provisioner that its class names.
fn await_other(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    plan: &mut Plan,
    tell: &mut impl FnMut(&mut Plan, EventType, &'static str, String),
) {
    let provisioner = &class.provisioner;
    if provisioner.starts_with("kubernetes.io/") {
        let message = format!("no volume plugin matched name: {provisioner}");
        return tell(plan, EventType::Warning, "ProvisioningFailed", message);
    }
    if volumes::annotation(&claim.metadata, STORAGE_PROVISIONER) != Some(provisioner) {
        let mut claim = claim.clone();
        let annotations = claim.metadata.annotations.get_or_insert_default();
        annotations.insert(STORAGE_PROVISIONER.into(), provisioner.clone());
        annotations.insert("volume.beta.kubernetes.io/storage-provisioner".into(), provisioner.clone());
        return plan.writes.push(Write::Update(claim.into_body()));
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
         system administrator. If volume creation is delayed, please verify that the provisioner is running and \
         correctly registered."
    );
    tell(plan, EventType::Normal, "ExternalProvisioning", message);
}

fn folder(claim: &PersistentVolumeClaim, class: &StorageClass, world: &Snapshot) -> Result<PersistentVolume, String> {
    let selected = volumes::annotation(&claim.metadata, SELECTED_NODE).unwrap_or("");
    let Some(node) = world.get::<Node>("", selected) else {
        return Err("no node was chosen for the claim's first pod".into());
    };
    let host = node.metadata.labels.as_ref().and_then(|labels| labels.get(HOSTNAME));
    let demand = NodeSelectorRequirement {
        key: HOSTNAME.into(),
        operator: "In".into(),
        values: Some(vec![host.cloned().unwrap_or_else(|| selected.to_owned())]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![demand]), match_fields: None };
    let name = volumes::made_name(claim);
    let wanted = claim.spec.clone().unwrap_or_default();
    Ok(PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            annotations: Some(BTreeMap::from([(PROVISIONED_BY.into(), LOCAL_PROVISIONER.into())])),
            finalizers: Some(vec![FOLDER_FINALIZER.into()]),
            ..Default::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: wanted.access_modes,
            capacity: wanted.resources.and_then(|resources| resources.requests),
            claim_ref: Some(volumes::reference(claim)),
            csi: Some(CSIPersistentVolumeSource {
                driver: LOCAL_DRIVER.into(),
                volume_handle: name,
                ..Default::default()
            }),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector { node_selector_terms: vec![term] }),
            }),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone(),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: wanted.volume_mode,
            ..Default::default()
        }),
        status: None,
    })
}

fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or("")
}
