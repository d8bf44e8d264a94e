//! The histories of DaemonSets and StatefulSets: their templates, recorded as ControllerRevisions.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::{Kind, Object, Pod, Snapshot};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::{Moment, Verdict};
use crate::facts;

/// The label by which a pod names its revision, and a DaemonSet's revision itself.
const REVISION: &str = "controller-revision-hash";

/// Both sides of a change as revisions.
fn sides<'a>(moment: &'a Moment) -> (Option<&'a ControllerRevision>, Option<&'a ControllerRevision>) {
    let revision = |object: Option<&'a Arc<Object>>| object.and_then(|object| object.get());
    (revision(moment.change.before.as_ref()), revision(moment.change.after.as_ref()))
}

/// The workload that controls a revision, if it stays and so does its namespace.
fn owner_of<'a>(revision: &ControllerRevision, world: &'a Snapshot) -> Option<&'a Arc<Object>> {
    let owner = facts::controller(&revision.metadata, world)?;
    let rolls = matches!(owner.kind(), Kind::DaemonSet | Kind::StatefulSet);
    let stays = !facts::is_deleted(owner.meta()) && facts::namespace_stays(owner.namespace(), world);
    (rolls && stays).then_some(owner)
}

/// The template that a revision brings back.
fn recorded(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

fn records(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    recorded(revision).is_some_and(|recorded| facts::same_template(&recorded, template))
}

/// Revisions of a workload that stay.
fn revisions<'a>(owner: &Object, world: &'a Snapshot) -> Vec<&'a ControllerRevision> {
    world.controlled_by(owner.uid()).filter(|it: &&ControllerRevision| !facts::is_deleted(&it.metadata)).collect()
}

/// I7: a template has one revision, which is as its workload wants it.
pub fn one_revision_per_template(moment: &Moment) -> Verdict {
    let (None, Some(revision)) = sides(moment) else { return Ok(()) };
    let Some(owner) = owner_of(revision, moment.before).filter(|_| !moment.asked) else { return Ok(()) };
    let template = facts::template_of(owner).unwrap_or_default();
    if !records(revision, &template) {
        return Err(format!("has not the template that {} wants", owner.key()));
    }
    match revisions(owner, moment.before).into_iter().find(|other| records(other, &template)) {
        Some(twin) => Err(format!("has the template of {}", facts::name(&twin.metadata))),
        None => Ok(()),
    }
}

/// I10: what a revision recorded stays as it is, and its number only grows, beyond all others of its workload.
pub fn numbers_grow(moment: &Moment) -> Verdict {
    let (before, Some(after)) = sides(moment) else { return Ok(()) };
    if moment.asked {
        return Ok(());
    }
    if before.is_some_and(|before| before.data != after.data) {
        return Err("has recorded something else before".into());
    }
    let (old, new) = (before.map_or(0, |before| before.revision), after.revision);
    if new < old {
        return Err(format!("goes back from {old} to {new}"));
    }
    let Some(owner) = owner_of(after, moment.before).filter(|_| new != old) else { return Ok(()) };
    let others = revisions(owner, moment.before).into_iter().filter(|other| other.metadata.uid != after.metadata.uid);
    let highest = others.map(|other| other.revision).max().unwrap_or(0);
    if new > highest { Ok(()) } else { Err(format!("gets number {new}, but there is {highest} already")) }
}

/// Names by which pods and a status name the revisions that a workload cannot do without.
fn named(owner: &Object, world: &Snapshot) -> BTreeSet<String> {
    let label = |pod: &Pod| pod.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION).cloned());
    let mut names: BTreeSet<String> = world.controlled_by::<Pod>(owner.uid()).filter_map(label).collect();
    let told = owner.get::<StatefulSet>().and_then(|set| set.status.as_ref());
    names.extend(told.and_then(|status| status.current_revision.clone()));
    names
}

/// The name by which pods name this revision: its own for a StatefulSet, its hash for a DaemonSet.
fn name_for_pods(revision: &ControllerRevision, owner: &Object) -> String {
    match owner.get::<DaemonSet>() {
        Some(_) => revision.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION)).cloned(),
        None => revision.metadata.name.clone(),
    }
    .unwrap_or_default()
}

/// The revisions that are not the wanted template's, nor of any pod.
fn idle<'a>(owner: &Object, world: &'a Snapshot) -> Vec<&'a ControllerRevision> {
    let (template, named) = (facts::template_of(owner).unwrap_or_default(), named(owner, world));
    let all = revisions(owner, world);
    let wanted = all.iter().filter(|it| records(it, &template)).max_by_key(|it| it.revision).copied();
    let is_idle = |it: &&ControllerRevision| {
        wanted.is_none_or(|wanted| wanted.metadata.uid != it.metadata.uid) && !named.contains(&name_for_pods(it, owner))
    };
    all.into_iter().filter(is_idle).collect()
}

fn limit(owner: &Object) -> i32 {
    let said = match owner.get::<DaemonSet>() {
        Some(set) => set.spec.as_ref().and_then(|spec| spec.revision_history_limit),
        None => owner.get::<StatefulSet>().and_then(|set| set.spec.as_ref()?.revision_history_limit),
    };
    said.unwrap_or(10)
}

/// I10: the history limit takes only revisions that are not in use, and no more than it says.
pub fn history_is_kept(moment: &Moment) -> Verdict {
    let (Some(_), after) = sides(moment) else { return Ok(()) };
    let Some(revision) = moment.was.and_then(|object| object.get::<ControllerRevision>()) else { return Ok(()) };
    let ends = after.is_none_or(|after| facts::is_deleted(&after.metadata));
    if !ends || facts::is_deleted(&revision.metadata) || moment.asked {
        return Ok(());
    }
    let Some(owner) = owner_of(revision, moment.before) else { return Ok(()) };
    let (idle, limit) = (idle(owner, moment.before), limit(owner));
    if !idle.iter().any(|it| it.metadata.uid == revision.metadata.uid) {
        return Err(format!("was forgotten though {} is in need of it", owner.key()));
    }
    let kept = idle.len() as i32;
    if kept > limit { Ok(()) } else { Err(format!("was forgotten though only {kept} old ones of {limit} are kept")) }
}

/// When all is healed: no more old revisions than the limit says, and none twice.
pub fn are_cut(world: &Snapshot) -> Verdict {
    for owner in [Kind::DaemonSet, Kind::StatefulSet].into_iter().flat_map(|kind| world.objects(kind, None)) {
        let (old, limit) = (idle(owner, world).len() as i32, limit(owner));
        if old > limit {
            return Err(format!("{} keeps {old} old revisions, not {limit}", owner.key()));
        }
        let all = revisions(owner, world);
        let twin = all.iter().enumerate().find_map(|(number, one)| {
            let template = recorded(one)?;
            all[..number].iter().find(|other| records(other, &template)).map(|other| (one, other))
        });
        if let Some((one, other)) = twin {
            let (one, other) = (facts::name(&one.metadata), facts::name(&other.metadata));
            return Err(format!("{one} and {other} of {} record the same template", owner.key()));
        }
    }
    Ok(())
}
