//! The history of a DaemonSet or a StatefulSet: its templates, recorded as ControllerRevisions.
//!
//! Mirrors upstream's `pkg/controller/history/controller_history.go`, and what `pkg/controller/daemon/update.go` and
//! `pkg/controller/statefulset/stateful_set_control.go` make of it. A template is recorded as the patch that `kubectl
//! rollout undo` sends back. Equal templates always share one revision, which gets the newest number when it is wanted
//! again; a name that something else has counts up `collisionCount`. Never changes what a revision recorded; how its
//! rollout ended (`ending`) stands beside it.

use std::collections::BTreeSet;

use api::account::{ENDED, REQUESTED};
use api::object::controller_of;
use api::selector::Selector;
use api::template_hash::template_hash;
use api::{Key, Kind, Propagation, Snapshot, Typed, Write};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use crate::{claim, ending};

/// The label by which a pod names its revision.
pub use api::pod_facts::REVISION_LABEL;
/// Longest name of a revision.
const NAME_CHARACTERS: usize = 253;
/// Names tried for a revision before the rest is left to the next decision.
const COLLISIONS: i32 = 64;
/// Old revisions kept where nothing is said.
const HISTORY_LIMIT: i32 = 10;

/// Whose history it is.
pub struct Owner<'a> {
    /// Kind of the workload.
    pub kind: Kind,
    /// Its metadata.
    pub meta: &'a ObjectMeta,
    /// What it selects.
    pub selector: &'a Selector,
    /// The template it wants now.
    pub template: &'a PodTemplateSpec,
    /// The label of a revision that holds its hash.
    pub hash_label: &'static str,
    /// `status.collisionCount`.
    pub collision_count: Option<i32>,
}

/// The recorded templates, oldest first.
pub struct History<'a> {
    revisions: Vec<&'a ControllerRevision>,
}

/// The revision of the wanted template.
pub enum Wanted<'a> {
    /// It is the newest one.
    Recorded(&'a ControllerRevision),
    /// It has to be written first.
    Unrecorded {
        /// Makes it, or makes it the newest, and notes that the rollout before it has ended.
        writes: Vec<Write>,
        /// `status.collisionCount` from then on.
        collision_count: Option<i32>,
    },
}

impl<'a> History<'a> {
    /// Finds the revisions; an error holds the adoptions and releases that have to come first.
    pub fn gather(owner: &Owner, world: &'a Snapshot) -> Result<History<'a>, Vec<Write>> {
        let claimed = claim::gather::<ControllerRevision>(owner.kind, owner.meta, owner.selector, world, |_| true);
        if !claimed.writes.is_empty() {
            return Err(claimed.writes);
        }
        let mut revisions = claimed.own;
        revisions.sort_by_key(|it| (it.revision, it.metadata.creation_timestamp.clone(), it.metadata.name.clone()));
        Ok(History { revisions })
    }

    /// All of them.
    pub fn revisions(&self) -> &[&'a ControllerRevision] {
        &self.revisions
    }

    /// The revision of the wanted template; what was the newest before has ended at `now`.
    pub fn wanted(&self, owner: &Owner, world: &'a Snapshot, now: Timestamp) -> Wanted<'a> {
        let next = self.revisions.last().map_or(1, |newest| newest.revision.saturating_add(1));
        let data = recorded(owner.template);
        let equal =
            self.revisions.iter().rev().find(|revision| template_of(revision).is_some_and(|it| recorded(&it) == data));
        match equal {
            Some(equal) if equal.revision + 1 == next => Wanted::Recorded(equal),
            Some(equal) => {
                let mut body = ControllerRevision { revision: next, ..(*equal).clone() };
                hand_on_request(owner.meta, &mut body.metadata);
                let mut writes = vec![Write::Update(body.into_body())];
                writes.extend(self.end_previous(true, now));
                Wanted::Unrecorded { writes, collision_count: owner.collision_count }
            }
            None => match record(owner, data, next, world) {
                Recorded::Lost(revision) => Wanted::Recorded(revision),
                Recorded::Anew(write, collision_count) => {
                    let writes = std::iter::once(write).chain(self.end_previous(false, now)).collect();
                    Wanted::Unrecorded { writes, collision_count }
                }
            },
        }
    }

    fn end_previous(&self, undone: bool, now: Timestamp) -> Option<Write> {
        ending::superseded(self.revisions.last()?, undone, now)
    }

    /// The revision of this name.
    pub fn named(&self, name: &str) -> Option<&'a ControllerRevision> {
        self.revisions.iter().copied().find(|revision| self::name(revision) == name)
    }

    /// Deletes the oldest revisions that are not in `live`, beyond the limit.
    pub fn clean_up(&self, limit: Option<i32>, live: &BTreeSet<&str>) -> impl Iterator<Item = Write> {
        let idle: Vec<_> = self.revisions.iter().filter(|revision| !live.contains(name(revision))).collect();
        let limit = usize::try_from(limit.unwrap_or(HISTORY_LIMIT)).unwrap_or(0);
        let surplus = idle.len().saturating_sub(limit);
        idle.into_iter().take(surplus).map(|revision| Write::Delete {
            key: Key::new(
                Kind::ControllerRevision,
                revision.metadata.namespace.clone().unwrap_or_default(),
                name(revision),
            ),
            uid: revision.metadata.uid.clone().unwrap_or_default(),
            propagation: Propagation::Background,
        })
    }
}

/// A revision that is gone back to was asked for by who asks now, and has not ended.
fn hand_on_request(workload: &ObjectMeta, revision: &mut ObjectMeta) {
    if let Some(annotations) = &mut revision.annotations {
        annotations.remove(ENDED);
    }
    if let Some(requested) = workload.annotations.as_ref().and_then(|annotations| annotations.get(REQUESTED)) {
        revision.annotations.get_or_insert_default().insert(REQUESTED.to_owned(), requested.clone());
    }
}

/// Name of a revision.
pub fn name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or("")
}

/// The template that a revision recorded; `None` if it holds something else.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The patch that brings a template back.
fn recorded(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).expect("a pod template is always representable as JSON");
    template["$patch"] = "replace".into();
    json!({ "spec": { "template": template } })
}

/// How a template that is in no revision of its owner is recorded.
enum Recorded<'a> {
    /// It is, in a revision that has lost its owner.
    Lost(&'a ControllerRevision),
    /// By this write; `status.collisionCount` from then on.
    Anew(Write, Option<i32>),
}

/// Records the wanted template under the first name that nothing else has. A revision of it that somebody gave to an owner
/// who is not there is no collision (upstream: CreateControllerRevision compares the data): it is collected and made again
/// under its name, and the pods that name it stay.
fn record<'a>(owner: &Owner, data: Value, revision: i64, world: &'a Snapshot) -> Recorded<'a> {
    let namespace = owner.meta.namespace.clone().unwrap_or_default();
    let mut collision_count = owner.collision_count;
    let mut hash = template_hash(owner.template, collision_count);
    for _ in 0..COLLISIONS {
        let taken = world.get::<ControllerRevision>(&namespace, &revision_name(owner, &hash));
        let Some(taken) = taken else { break };
        if is_lost(taken, world) && template_of(taken).is_some_and(|it| recorded(&it) == data) {
            return Recorded::Lost(taken);
        }
        collision_count = Some(collision_count.unwrap_or(0) + 1);
        hash = template_hash(owner.template, collision_count);
    }
    let labels = owner.template.metadata.as_ref().and_then(|meta| meta.labels.clone());
    let mut labels = labels.unwrap_or_default();
    labels.insert(owner.hash_label.to_owned(), hash.clone());
    let body = ControllerRevision {
        metadata: ObjectMeta {
            name: Some(revision_name(owner, &hash)),
            namespace: Some(namespace),
            labels: Some(labels),
            annotations: owner.meta.annotations.clone(),
            owner_references: Some(vec![claim::controller_reference(owner.kind, owner.meta)]),
            ..Default::default()
        },
        data: Some(RawExtension(data)),
        revision,
    };
    Recorded::Anew(Write::Create(body.into_body()), collision_count)
}

/// True if the controller of a revision is not there.
fn is_lost(revision: &ControllerRevision, world: &Snapshot) -> bool {
    let namespace = revision.metadata.namespace.as_deref().unwrap_or("");
    let Some(controller) = controller_of(&revision.metadata) else { return true };
    let there = Kind::by_name(&controller.api_version, &controller.kind)
        .and_then(|kind| world.object(kind, namespace, &controller.name));
    there.is_none_or(|there| there.uid() != controller.uid)
}

/// `<workload>-<hash>`, the workload's part cut where the whole would be too long.
fn revision_name(owner: &Owner, hash: &str) -> String {
    let workload = owner.meta.name.as_deref().unwrap_or("");
    let room = NAME_CHARACTERS.saturating_sub(1 + hash.len());
    format!("{}-{hash}", &workload[..workload.len().min(room)])
}
