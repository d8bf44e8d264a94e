//! The set with the wanted template: finding it, making it, numbering it.
//!
//! Mirrors upstream's getNewReplicaSet (`pkg/controller/deployment/sync.go`), FindNewReplicaSet and
//! SetNewReplicaSetAnnotations (`util/deployment_util.go`). Equal templates always give the same set; a name that is
//! already taken by another template counts up `collisionCount` until a free name is found.

use api::template_hash::{POD_TEMPLATE_HASH_LABEL, template_hash};
use api::{EventType, Kind};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::account;
use super::conditions::{self, PROGRESSING};
use super::same_template::same_template;
use super::sets::{DESIRED_REPLICAS, MAX_REPLICAS, Set};
use super::{Rollout, note};
use crate::refusals::namespace_is_ending;
use crate::{claim, specs};

/// The number of a set in the history of its Deployment, and of the Deployment's current template.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// The numbers a set had before it was rolled back to.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Characters of [`REVISION_HISTORY`] that are kept (upstream: maxRevHistoryLengthInChars).
const REVISION_HISTORY_CHARACTERS: usize = 2000;
/// Longest name of a ReplicaSet.
const NAME_CHARACTERS: usize = 253;
/// Names tried for a set before the rest is left to the next decision.
const COLLISIONS: i32 = 64;
/// Annotations that belong to one object and are not handed on to a set.
const OWN_ANNOTATIONS: [&str; 7] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
    api::account::ENDED,
];

/// Parts the sets (oldest first) into the one with the wanted template (the oldest of several) and all others.
pub fn split<'a>(deployment: &Deployment, sets: Vec<Set<'a>>) -> (Option<Set<'a>>, Vec<Set<'a>>) {
    let wanted = &specs::of_deployment(deployment).template;
    let (mut new, mut old) = (None, Vec::new());
    for set in sets {
        let fits = specs::of_set(set.body()).template.as_ref().is_some_and(|template| same_template(template, wanted));
        if fits && new.is_none() { new = Some(set) } else { old.push(set) }
    }
    (new, old)
}

/// The number of a set; `None` if it is not one.
pub fn revision(set: &Set) -> Option<i64> {
    set.annotation(REVISION).map_or(Some(0), |text| text.parse().ok())
}

impl<'a> Rollout<'a> {
    /// Brings number, annotations and `minReadySeconds` of the new set up to date, if there is one.
    pub(super) fn number_new_set(&mut self) {
        let next = self.next_revision();
        let (deployment, wait) = (self.deployment, specs::of_deployment(self.deployment).min_ready_seconds);
        let Some(new) = &mut self.new else { return };
        let went_back = hand_on_annotations(deployment, new, next);
        if specs::of_set(new.body()).min_ready_seconds.unwrap_or(0) != wait.unwrap_or(0) {
            new.spec_mut().min_ready_seconds = wait;
        }
        let name = new.name().to_owned();
        if went_back {
            self.end_previous(true);
        }
        let judged = self.terms.progress_deadline_seconds.is_some();
        let told = conditions::find(&self.conditions, PROGRESSING).map(|told| told.reason.as_deref());
        let found = match told {
            _ if !judged => return,
            None => conditions::progressing("FoundNewReplicaSet", format!("Found new replica set {name:?}")),
            Some(Some("ReplicaSetCreateError")) => created(&name),
            Some(_) => return,
        };
        conditions::set(&mut self.conditions, found, self.now);
    }

    /// Makes the new set unless there is one; `size` is called with it to say how many pods it begins with.
    pub(super) fn ensure_new_set(&mut self, size: impl Fn(&Self, &Set) -> i32) {
        if self.new.is_some() || self.refused.is_some_and(namespace_is_ending) {
            return;
        }
        let Some(body) = self.free_name_set() else { return };
        let mut set = Set::planned(body, self.world, self.now);
        hand_on_annotations(self.deployment, &mut set, self.next_revision());
        let replicas = size(self, &set);
        set.spec_mut().replicas = Some(replicas);
        set.stamp(&self.terms);
        self.end_previous(false);
        self.tell_of_creation(set.name().to_owned());
        self.new = Some(set);
    }

    fn tell_of_creation(&mut self, name: String) {
        if let Some(refusal) = self.refused {
            let message = format!("Failed to create new replica set {name:?}: {}", refusal.message);
            self.plan.why.push(message.clone());
            let reason = "ReplicaSetCreateError";
            self.plan.events.push(note(self.key, self.deployment, EventType::Warning, reason, message.clone()));
            if self.terms.progress_deadline_seconds.is_some() {
                let failed = conditions::new(PROGRESSING, "False", reason, message);
                conditions::set(&mut self.conditions, failed, self.now);
            }
        } else if self.terms.progress_deadline_seconds.is_some() {
            conditions::set(&mut self.conditions, created(&name), self.now);
        }
    }

    /// A set for the wanted template, under the first name that nothing else has.
    fn free_name_set(&mut self) -> Option<ReplicaSet> {
        for _ in 0..COLLISIONS {
            let set = new_set(self.deployment, self.collision_count);
            let name = set.metadata.name.as_deref().unwrap_or("");
            if self.world.get::<ReplicaSet>(&self.key.namespace, name).is_none() {
                return Some(set);
            }
            self.collision_count = Some(self.collision_count.unwrap_or(0) + 1);
        }
        None
    }

    /// One more than the largest number of an old set.
    fn next_revision(&self) -> i64 {
        self.old.iter().filter_map(revision).max().unwrap_or(0) + 1
    }

    /// The Deployment with the number of its new set.
    pub(super) fn renumbered(&self) -> Deployment {
        let mut body = self.deployment.clone();
        if let Some(number) = self.new.as_ref().and_then(|new| new.annotation(REVISION)) {
            body.metadata.annotations.get_or_insert_default().insert(REVISION.into(), number.to_owned());
        }
        body
    }
}

fn created(name: &str) -> k8s_openapi::api::apps::v1::DeploymentCondition {
    conditions::progressing("NewReplicaSetCreated", format!("Created new replica set {name:?}"))
}

/// Copies the Deployment's annotations to its new set and numbers it. A set that had a smaller number is being rolled
/// back to, and gives true; its old number goes into its history.
fn hand_on_annotations(deployment: &Deployment, set: &mut Set, next: i64) -> bool {
    for (name, value) in deployment.metadata.annotations.iter().flatten() {
        if !OWN_ANNOTATIONS.contains(&name.as_str()) {
            account::hand_on(set, name, value);
        }
    }
    let old = set.annotation(REVISION).map(str::to_owned);
    let Some(old_number) = old.as_deref().map_or(Some(0), |text| text.parse::<i64>().ok()) else { return false };
    if old_number >= next {
        return false;
    }
    set.annotate(REVISION, next.to_string());
    let Some(old) = old else { return false };
    let history = set.annotation(REVISION_HISTORY).unwrap_or("").to_owned();
    if let Some(history) = longer_history(&history, &old) {
        set.annotate(REVISION_HISTORY, history);
    }
    true
}

/// The history with one more number; the oldest are forgotten when it gets too long. `None` if even that is too long.
fn longer_history(history: &str, number: &str) -> Option<String> {
    let mut numbers: Vec<&str> = history.split(',').filter(|number| !number.is_empty()).collect();
    numbers.push(number);
    let mut length = numbers.iter().map(|number| number.len() + 1).sum::<usize>() - 1;
    let mut first = 0;
    while length > REVISION_HISTORY_CHARACTERS && first + 1 < numbers.len() {
        length -= numbers[first].len() + 1;
        first += 1;
    }
    (length <= REVISION_HISTORY_CHARACTERS).then(|| numbers[first..].join(","))
}

fn new_set(deployment: &Deployment, collision_count: Option<i32>) -> ReplicaSet {
    let spec = specs::of_deployment(deployment);
    let hash = template_hash(&spec.template, collision_count);
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(POD_TEMPLATE_HASH_LABEL.into(), hash.clone());
    let labels = labels.clone();
    let mut selector: LabelSelector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(POD_TEMPLATE_HASH_LABEL.into(), hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(set_name(deployment.metadata.name.as_deref().unwrap_or(""), &hash)),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![claim::controller_reference(Kind::Deployment, &deployment.metadata)]),
            ..Default::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// `<deployment>-<hash>`, the Deployment's part cut where the whole would be too long.
fn set_name(deployment: &str, hash: &str) -> String {
    let room = NAME_CHARACTERS.saturating_sub(1 + hash.len());
    format!("{}-{hash}", &deployment[..deployment.len().min(room)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_forgets_the_oldest() {
        assert_eq!(longer_history("", "1").as_deref(), Some("1"));
        assert_eq!(longer_history("1,3", "5").as_deref(), Some("1,3,5"));
        let long = vec!["1234"; 400].join(",");
        let longer = longer_history(&long, "99999").unwrap();
        assert!(longer.len() <= REVISION_HISTORY_CHARACTERS && longer.ends_with(",1234,99999"));
        assert_eq!(longer_history("1", &"9".repeat(2001)), None);
    }

    #[test]
    fn names_are_cut() {
        assert_eq!(set_name("web", "abc"), "web-abc");
        assert_eq!(set_name(&"x".repeat(300), "abc").len(), NAME_CHARACTERS);
    }
}
