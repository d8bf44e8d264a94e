//! What an autoscaler scales: found by its reference, with the pods that are its own.
//!
//! Upstream asks the `scale` subresource and takes every pod that its selector matches (`scaleForResourceMappings`,
//! `replica_calculator.go`). Here a pod counts by its owners: one that only has the same labels is not the target's.

use std::sync::Arc;

use api::object::controller_of;
use api::selector::Selector;
use api::{Body, Kind, Member, Object, Refusal, Snapshot};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;

/// An object with replicas.
pub struct Target<'a> {
    object: &'a Arc<Object>,
    world: &'a Snapshot,
    /// Replicas asked for.
    pub replicas: i32,
}

impl<'a> Target<'a> {
    /// The object that is referred to, or why it cannot be scaled.
    pub fn find(
        world: &'a Snapshot,
        namespace: &str,
        reference: &CrossVersionObjectReference,
    ) -> Result<Target<'a>, String> {
        let version = reference.api_version.as_deref().unwrap_or("");
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let named = |kind: &&Kind| kind.info().kind == reference.kind && kind.info().group == group;
        let Some(kind) = Kind::ALL.iter().find(named) else {
            return Err(format!("no matches for kind {:?} in group {group:?}", reference.kind));
        };
        let found = world.object(*kind, namespace, &reference.name);
        let object = found.ok_or_else(|| Refusal::not_found(*kind, &reference.name).message)?;
        let replicas = match &object.body {
            Body::Deployment(it) => it.spec.as_ref().and_then(|spec| spec.replicas),
            Body::ReplicaSet(it) => it.spec.as_ref().and_then(|spec| spec.replicas),
            Body::StatefulSet(it) => it.spec.as_ref().and_then(|spec| spec.replicas),
            Body::ReplicationController(it) => it.spec.as_ref().and_then(|spec| spec.replicas),
            _ => return Err(Refusal::no_such_path().message),
        };
        Ok(Target { object, world, replicas: replicas.unwrap_or(1) })
    }

    /// The target's pods that count: those that leave or have ended do no work any more.
    pub fn pods(&self) -> Vec<Member<'a>> {
        let of = |uid: &str| self.world.members(uid).filter(|pod| pod.is_active());
        if !matches!(self.object.body, Body::Deployment(_)) {
            return of(self.object.uid()).collect();
        }
        let sets = self.world.controlled_by::<ReplicaSet>(self.object.uid());
        sets.flat_map(|set| of(set.metadata.uid.as_deref().unwrap_or(""))).collect()
    }

    /// True if one is made by the other (a Deployment's ReplicaSet), so that they have pods in common.
    pub fn overlaps(&self, other: &Target) -> bool {
        let of = |inner: &Target, outer: &Target| {
            controller_of(inner.object.meta()).is_some_and(|owner| owner.uid == outer.object.uid())
        };
        of(self, other) || of(other, self)
    }

    /// What its pods are selected by, as text.
    pub fn selector(&self) -> String {
        let selector = match &self.object.body {
            Body::Deployment(it) => it.spec.as_ref().map(|spec| &spec.selector),
            Body::ReplicaSet(it) => it.spec.as_ref().map(|spec| &spec.selector),
            Body::StatefulSet(it) => it.spec.as_ref().map(|spec| &spec.selector),
            Body::ReplicationController(it) => {
                let labels = it.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                return labels.map_or_else(Selector::nothing, Selector::from_labels).to_string();
            }
            _ => None,
        };
        Selector::from_label_selector(selector).unwrap_or_else(|_| Selector::nothing()).to_string()
    }

    /// The target with another number of replicas.
    pub fn scaled(&self, replicas: i32) -> Body {
        let mut body = self.object.body.clone();
        match &mut body {
            Body::Deployment(it) => it.spec.get_or_insert_default().replicas = Some(replicas),
            Body::ReplicaSet(it) => it.spec.get_or_insert_default().replicas = Some(replicas),
            Body::StatefulSet(it) => it.spec.get_or_insert_default().replicas = Some(replicas),
            Body::ReplicationController(it) => it.spec.get_or_insert_default().replicas = Some(replicas),
            _ => {}
        }
        body
    }
}
