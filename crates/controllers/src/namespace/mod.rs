//! Empties a namespace that is being deleted: its pods first, and once they are gone all the rest; then lets it go.
//!
//! Mirrors upstream's `pkg/controller/namespace/deletion/` (namespaced_resources_deleter.go, status_condition_utils.go)
//! with ordered deletion (KEP-5080), on from 1.34. Never touches a namespace that nobody asked to delete.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use api::{Context, Kind, Object, Plan, Propagation, Snapshot, Typed, Write};
use api::{Key, limits::BURST_REPLICAS};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The finalizer in `spec.finalizers` that stands for "there may be content".
const FINALIZER: &str = "kubernetes";

/// Decides about one namespace.
pub fn reconcile(key: &Key, world: &Snapshot, context: &Context) -> Plan {
    let Some(namespace) = world.get::<Namespace>("", &key.name) else { return Plan::nothing() };
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default();
    if namespace.metadata.deletion_timestamp.is_none() || !finalizers.iter().any(|name| name == FINALIZER) {
        return Plan::nothing();
    }
    let content = Content::of(&key.name, world);
    let mut plan = Plan::nothing();
    if content.is_empty() {
        plan.writes.push(let_go(namespace));
        return plan;
    }
    let mut deletions = content.next_to_go();
    if deletions.len() > BURST_REPLICAS {
        deletions.truncate(BURST_REPLICAS);
        plan.wake_by(context.now.checked_add(SignedDuration::from_secs(1)).unwrap_or(context.now));
    }
    plan.writes = deletions;
    plan.writes.extend(report(namespace, &content, context.now));
    plan.why.push(content.remaining());
    plan
}

/// What is in a namespace, by kind.
struct Content<'a>(BTreeMap<Kind, Vec<&'a Object>>);

impl<'a> Content<'a> {
    fn of(namespace: &str, world: &'a Snapshot) -> Content<'a> {
        let mut content = BTreeMap::new();
        for kind in Kind::ALL.iter().copied().filter(|kind| kind.namespaced()) {
            let objects: Vec<&Object> = world.objects(kind, Some(namespace)).map(|object| &**object).collect();
            if !objects.is_empty() {
                content.insert(kind, objects);
            }
        }
        Content(content)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Deletions of what is not being deleted yet: pods as long as there are any, so that what they use outlives them.
    fn next_to_go(&self) -> Vec<Write> {
        let pods = self.0.get(&Kind::Pod);
        let all: Vec<&&Object> = match pods {
            Some(pods) => pods.iter().collect(),
            None => self.0.values().flatten().collect(),
        };
        all.into_iter()
            .filter(|object| object.meta().deletion_timestamp.is_none())
            .map(|object| delete(object))
            .collect()
    }

    fn remaining(&self) -> String {
        let counts: Vec<String> = self
            .0
            .iter()
            .map(|(kind, objects)| format!("{} has {} resource instances", resource(*kind), objects.len()))
            .collect();
        format!("Some resources are remaining: {}", counts.join(", "))
    }

    /// Finalizers that hold objects, with the number of objects each of them holds.
    fn finalizers(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for object in self.0.values().flatten() {
            for finalizer in object.meta().finalizers.iter().flatten() {
                *counts.entry(finalizer.as_str()).or_insert(0) += 1;
            }
        }
        counts
    }
}

/// As upstream names a resource here: the plural and the group, with a dot also for the core group.
fn resource(kind: Kind) -> String {
    format!("{}.{}", kind.info().plural, kind.info().group)
}

fn delete(object: &Object) -> Write {
    Write::Delete { key: object.key(), uid: object.uid().to_owned(), propagation: Propagation::Background }
}

fn let_go(namespace: &Namespace) -> Write {
    let mut body = namespace.clone();
    if let Some(spec) = &mut body.spec {
        spec.finalizers = spec.finalizers.take().map(|mut list| {
            list.retain(|name| name != FINALIZER);
            list
        });
    }
    Write::Finalize(body.into_body())
}

fn report(namespace: &Namespace, content: &Content, now: Timestamp) -> Option<Write> {
    let held = content.finalizers();
    let list: Vec<String> = held.iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
    let finalizing = if held.is_empty() {
        ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned())
    } else {
        let message = format!("Some content in the namespace has finalizers remaining: {}", list.join(", "));
        ("True", "SomeFinalizersRemain", message)
    };
    let told = [
        (
            "NamespaceDeletionDiscoveryFailure",
            ("False", "ResourcesDiscovered", "All resources successfully discovered".to_owned()),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            ("False", "ParsedGroupVersions", "All legacy kube types successfully parsed".to_owned()),
        ),
        (
            "NamespaceDeletionContentFailure",
            ("False", "ContentDeleted", "All content successfully deleted, may be waiting on finalization".to_owned()),
        ),
        ("NamespaceContentRemaining", ("True", "SomeResourcesRemain", content.remaining())),
        ("NamespaceFinalizersRemaining", finalizing),
    ];
    let old = namespace.status.clone().unwrap_or_default();
    let mut conditions = old.conditions.clone().unwrap_or_default();
    for (type_, (status, reason, message)) in told {
        let same = conditions.iter().find(|condition| condition.type_ == type_ && condition.status == status);
        let since = same.and_then(|condition| condition.last_transition_time.clone()).unwrap_or(Time(now));
        let condition = NamespaceCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(since),
        };
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            Some(place) => *place = condition,
            None => conditions.push(condition),
        }
    }
    let status = NamespaceStatus { phase: Some("Terminating".into()), conditions: Some(conditions) };
    let changed = status != old;
    changed.then(|| Write::Status(Namespace { status: Some(status), ..namespace.clone() }.into_body()))
}
