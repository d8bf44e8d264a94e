//! Claims and volumes: the class of a claim that names none, what holds both while they are used, and who may grow.
//!
//! Mirrors upstream's admission plugins DefaultStorageClass, StorageObjectInUseProtection and
//! PersistentVolumeClaimResize (`plugin/pkg/admission/storage`).

use api::volumes::{self, CLAIM_PROTECTION, VOLUME_PROTECTION};
use api::{Kind, Refusal, Snapshot};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// A new claim.
pub(super) fn admit_claim(world: &Snapshot, claim: &mut PersistentVolumeClaim) {
    protect(&mut claim.metadata, CLAIM_PROTECTION);
    if volumes::class_of_claim(claim).is_none()
        && let Some(class) = volumes::default_class(world)
    {
        claim.spec.get_or_insert_default().storage_class_name.clone_from(&class.metadata.name);
    }
}

/// A new volume.
pub(super) fn admit_volume(meta: &mut ObjectMeta) {
    protect(meta, VOLUME_PROTECTION);
}

fn protect(meta: &mut ObjectMeta, finalizer: &str) {
    if !volumes::has_finalizer(meta, finalizer) {
        meta.finalizers.get_or_insert_default().push(finalizer.to_owned());
    }
}

/// A claim may grow where its class says so.
pub(super) fn check_growth(
    world: &Snapshot,
    old: &PersistentVolumeClaim,
    new: &PersistentVolumeClaim,
) -> Result<(), Refusal> {
    if volumes::requested(new) <= volumes::requested(old) || !volumes::is_bound(old) {
        return Ok(());
    }
    let class = volumes::class_of_claim(old).and_then(|name| world.get::<StorageClass>("", name));
    if class.is_some_and(|class| class.allow_volume_expansion == Some(true)) {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
    Err(Refusal::forbidden(Kind::PersistentVolumeClaim, new.metadata.name.as_deref().unwrap_or(""), why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Object;
    use expect_test::expect;
    use serde_json::{Value, json};

    fn world(classes: &[Value]) -> Snapshot {
        let mut world = Snapshot::default();
        for class in classes {
            world.put(Object::written(Kind::StorageClass.decode(class.clone()).unwrap(), world.revision() + 1));
        }
        world
    }

    fn class(name: &str, made: &str, default: bool, grows: bool) -> Value {
        json!({
            "metadata": { "name": name, "creationTimestamp": made,
                "annotations": { "storageclass.kubernetes.io/is-default-class": default.to_string() } },
            "provisioner": "x", "allowVolumeExpansion": grows,
        })
    }

    fn claim(class: Option<&str>, size: &str) -> PersistentVolumeClaim {
        let claim = json!({
            "metadata": { "name": "c", "annotations": { "pv.kubernetes.io/bind-completed": "yes" } },
            "spec": { "storageClassName": class, "volumeName": "v", "resources": { "requests": { "storage": size } } },
        });
        serde_json::from_value(claim).unwrap()
    }

    #[test]
    fn a_claim_gets_the_newest_default_class_unless_it_wants_none() {
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let several = world(&[
            class("a", old, true, false),
            class("b", new, true, false),
            class("c", new, true, false),
            class("d", new, false, false),
        ]);
        let given = |world: &Snapshot, name: Option<&str>| {
            let mut claim = claim(name, "1Gi");
            admit_claim(world, &mut claim);
            format!("{:?} {:?}\n", volumes::class_of_claim(&claim), claim.metadata.finalizers)
        };
        let table = given(&several, None) + &given(&several, Some("")) + &given(&world(&[]), None);
        expect![[r#"
            Some("b") Some(["kubernetes.io/pvc-protection"])
            Some("") Some(["kubernetes.io/pvc-protection"])
            None Some(["kubernetes.io/pvc-protection"])
        "#]]
        .assert_eq(&table);
    }

    #[test]
    fn a_claim_grows_where_its_class_lets_it() {
        let made = "2026-01-01T00:00:00Z";
        let world = world(&[class("fixed", made, false, false), class("elastic", made, false, true)]);
        let grown = |name: &str| {
            let (old, new) = (claim(Some(name), "1Gi"), claim(Some(name), "2Gi"));
            check_growth(&world, &old, &new).map_or_else(|refusal| refusal.message, |()| "fine".into()) + "\n"
        };
        expect![[r#"
            persistentvolumeclaims "c" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize
            fine
        "#]]
        .assert_eq(&(grown("fixed") + &grown("elastic")));
    }
}
