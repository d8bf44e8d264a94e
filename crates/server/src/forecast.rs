//! What a rollout will do, before it starts: the same door and the same decisions over a copy of the state, on nodes where every new pod
//! that gets a place becomes ready at once and every pod that is to end does.
//!
//! Nothing of the copy comes back: nothing is stored, nobody is told. What the nodes will really make of it cannot be known, but for an
//! image that they fail to pull right now. Upstream has nothing like it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::account::Ended;
use api::selector::Selector;
use api::{Body, Key, Kind, Pod, Refusal, Snapshot, Typed, Usage, limits};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{PodCondition, PodStatus, PodTemplateSpec};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::door::{DeleteOptions, Ids, Part, Requester};
use crate::turn::{Action, Request, Writer};
use crate::why::Whys;

/// Where Deployments number their ReplicaSets.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// Labels by which a pod names the template that it was made from.
const TEMPLATE_LABELS: [&str; 2] = ["pod-template-hash", "controller-revision-hash"];
/// What was refused is tried so often before it counts as refused for good: only what else happens could help it.
const RETRIES: usize = 4;
/// What a container waits for whose image cannot be had.
const UNPULLABLE: [&str; 4] = ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"];

/// The course of a rollout.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// The revision that pods have before, and the one they are to have; 0 where there is none.
    pub from_revision: i64,
    /// See [`Forecast::from_revision`].
    pub to_revision: i64,
    /// The revision as which the wanted template was known before, 0 if it is new.
    pub back_to: i64,
    /// How the rollout of [`Forecast::back_to`] ended then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_then: Option<Ended>,
    /// Pods there are before.
    pub pods: usize,
    /// Available ones of them.
    pub available: usize,
    /// What happens, step by step: between two steps the nodes start and end pods.
    pub steps: Vec<Step>,
    /// Whether it gets to its end.
    pub completes: bool,
    /// What it waits for where it does not, in the decisions' own words.
    pub why: Vec<String>,
    /// Images of the template that nodes fail to pull right now.
    pub unpullable: Vec<String>,
    /// Budgets that want more pods than there are at times.
    pub budgets: Vec<String>,
}

/// What is done at once.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Seconds from the beginning, pods' own times aside: what `minReadySeconds` takes.
    pub seconds: i64,
    /// Pods that are made.
    pub started: usize,
    /// Pods that are asked to end.
    pub stopped: usize,
    /// Pods of other templates after it, those that are ending aside.
    pub old: usize,
    /// Pods of the wanted template after it, those that are ending aside.
    pub new: usize,
    /// Available pods after it.
    pub available: usize,
    /// Pods that are ending after it.
    pub ending: usize,
}

/// Says what would happen if the workload `wanted` were written now.
pub fn forecast(world: &Snapshot, mut wanted: Body, now: Timestamp) -> Result<Forecast, Refusal> {
    wanted.meta_mut().resource_version = None;
    let key = wanted.key();
    let action = match world.at(&key) {
        Some(_) => Action::Update(key.clone(), Part::Main, wanted),
        None => Action::Create(key.namespace.clone(), wanted),
    };
    let mut course = Course::new(world.clone(), key, now);
    let mut forecast = course.beginning();
    course.ask(vec![action])?;
    course.unpullable = course.unpullable_images();
    course.look(&mut forecast);
    forecast.unpullable = course.unpullable.iter().cloned().collect();
    let mut retries = 0;
    for _ in 0..limits::FORECAST_STEPS {
        let acts = course.acts_of_nodes();
        if !acts.is_empty() {
            retries = 0;
        } else if course.waits_for_time() {
            course.wait();
        } else if retries < RETRIES && course.skip_to_retry() {
            retries += 1;
        } else {
            break;
        }
        course.ask(acts)?;
        course.look(&mut forecast);
    }
    course.ending(&mut forecast);
    Ok(forecast)
}

/// A copy of the cluster on its way.
struct Course {
    writer: Writer,
    why: Arc<Whys>,
    key: Key,
    now: Timestamp,
    /// Seconds that pods had to stay ready for.
    waited: i64,
    /// Pods of the workload at the last look, and whether they were to end.
    seen: BTreeMap<String, bool>,
    unpullable: BTreeSet<String>,
    /// How the rollouts of the sets ended, by their uids.
    ended: BTreeMap<String, Ended>,
}

impl Course {
    fn new(world: Snapshot, key: Key, now: Timestamp) -> Course {
        let why = Arc::new(Whys::default());
        // Names and uids of the copy are seen by nobody.
        let writer = Writer::at_rest(world, Ids::from_seed(0), why.clone());
        let mut course = Course {
            writer,
            why,
            key,
            now,
            waited: 0,
            seen: BTreeMap::new(),
            unpullable: BTreeSet::new(),
            ended: BTreeMap::new(),
        };
        course.ended = course.sets().filter_map(|set| Some((uid(&set.metadata), Ended::of(&set.metadata)?))).collect();
        course.seen = course.pods().map(|pod| (uid(&pod.metadata), is_ending(pod))).collect();
        course
    }

    fn beginning(&self) -> Forecast {
        let available = self.pods().filter(|pod| self.is_available(pod)).count();
        let pods = self.pods().filter(|pod| !is_ending(pod)).count();
        Forecast { from_revision: self.revision(), pods, available, ..Forecast::default() }
    }

    /// Takes turns until every decision rests; the first refusal is the answer.
    fn ask(&mut self, actions: Vec<Action>) -> Result<(), Refusal> {
        let requester = Requester::new("", "");
        let mut requests = actions.into_iter().map(|action| Request {
            action,
            requester: requester.clone(),
            dry_run: false,
            reply: oneshot::channel().0,
        });
        for _ in 0..limits::FORECAST_TURNS {
            let turn = self.writer.take_turn(&mut || requests.next(), self.now);
            for (_, answer) in turn.answers {
                answer?;
            }
            if !self.writer.has_decisions() && requests.len() == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Notes what has changed since the last look.
    fn look(&mut self, forecast: &mut Forecast) {
        let newest = self.newest_template();
        let mut step = Step { seconds: self.waited, ..Step::default() };
        let mut seen = BTreeMap::new();
        for pod in self.pods() {
            let (uid, ending) = (uid(&pod.metadata), is_ending(pod));
            let before = self.seen.get(&uid);
            step.started += usize::from(before.is_none());
            step.stopped += usize::from(ending && before != Some(&true));
            step.ending += usize::from(ending);
            step.available += usize::from(self.is_available(pod));
            let is_new = newest.is_some() && template_of(&pod.metadata) == newest;
            *if is_new { &mut step.new } else { &mut step.old } += usize::from(!ending);
            seen.insert(uid, ending);
        }
        // Pods that no node knew of are gone as soon as they are to end.
        step.stopped += self.seen.iter().filter(|(uid, ending)| !**ending && !seen.contains_key(*uid)).count();
        self.seen = seen;
        if step.started + step.stopped > 0 {
            forecast.steps.push(step);
        }
    }

    fn ending(&self, forecast: &mut Forecast) {
        let newest = self.newest_template();
        let (key, world, usage) = (&self.key, self.writer.world(), Usage::default());
        let done = self.pods().all(|pod| self.is_available(pod) && template_of(&pod.metadata) == newest);
        forecast.to_revision = self.revision();
        forecast.why = self.why.about(key, world, &usage, self.now);
        if let Some(set) = self.newest_set() {
            let name = set.metadata.name.clone().unwrap_or_default();
            forecast.why.extend(self.why.about(
                &Key::new(Kind::ReplicaSet, key.namespace.clone(), name),
                world,
                &usage,
                self.now,
            ));
            let history =
                set.metadata.annotations.as_ref().and_then(|it| it.get("deployment.kubernetes.io/revision-history"));
            let last = history.and_then(|history| history.rsplit(',').next()?.parse().ok());
            forecast.ended_then = self.ended.get(&uid(&set.metadata)).filter(|_| last.is_some()).cloned();
            forecast.back_to = last.filter(|_| forecast.from_revision != forecast.to_revision).unwrap_or(0);
        }
        let fewest = forecast.steps.iter().map(|step| step.available).chain([forecast.available]).min().unwrap_or(0);
        // A first rollout only adds pods.
        forecast.budgets = if forecast.pods > 0 { self.budgets(fewest) } else { Vec::new() };
        forecast.completes = done && forecast.why.is_empty() && world.at(key).is_some();
    }

    /// What the nodes do: pods that are to end do, pods of the wanted template that have a place become ready.
    fn acts_of_nodes(&self) -> Vec<Action> {
        let newest = self.newest_template();
        let is_new = |pod: &Pod| newest.is_some() && template_of(&pod.metadata) == newest;
        let mut acts = Vec::new();
        for pod in self.pods() {
            let key = Key::new(Kind::Pod, self.key.namespace.clone(), pod.metadata.name.clone().unwrap_or_default());
            if is_ending(pod) {
                acts.push(Action::Delete(key, DeleteOptions { grace_period_seconds: Some(0), ..Default::default() }));
            } else if is_new(pod) && is_placed(pod) && !is_ready(pod) && !self.is_stuck(pod) {
                acts.push(Action::Update(key, Part::Status, self.started(pod).into_body()));
            }
            if acts.len() >= limits::TURN_REQUESTS {
                break;
            }
        }
        acts
    }

    fn started(&self, pod: &Pod) -> Pod {
        let condition = |type_: &str| PodCondition {
            type_: type_.into(),
            status: "True".into(),
            last_transition_time: Some(Time(self.now)),
            ..Default::default()
        };
        let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        conditions.retain(|old| old.type_ != "Ready" && old.type_ != "ContainersReady");
        conditions.extend([condition("ContainersReady"), condition("Ready")]);
        let status = PodStatus {
            phase: Some("Running".into()),
            conditions: Some(conditions),
            ..pod.status.clone().unwrap_or_default()
        };
        let mut pod = Pod { status: Some(status), ..pod.clone() };
        pod.metadata.resource_version = None;
        pod
    }

    /// True if a pod of the workload only has to stay ready for a while.
    fn waits_for_time(&self) -> bool {
        self.min_ready_seconds() > 0
            && self.pods().any(|pod| !is_ending(pod) && is_ready(pod) && !self.is_available(pod))
    }

    fn wait(&mut self) {
        let seconds = self.min_ready_seconds();
        self.waited += seconds;
        self.now = self.now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(self.now);
    }

    /// Goes to when what was refused is tried again: a quota may have room by then.
    fn skip_to_retry(&mut self) -> bool {
        let retry = self.writer.next_retry();
        self.now = retry.map_or(self.now, |time| time.max(self.now));
        retry.is_some()
    }

    /// Budgets that want more pods than there are at times.
    fn budgets(&self, fewest: usize) -> Vec<String> {
        let Some(labels) = self.template().and_then(|template| template.metadata.as_ref()?.labels.as_ref()) else {
            return Vec::new();
        };
        let budgets = self.writer.world().list::<PodDisruptionBudget>(Some(&self.key.namespace));
        let told = budgets.filter_map(|budget| {
            let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            let selects = Selector::from_label_selector(selector).is_ok_and(|it| it.matches(Some(labels)));
            let wanted = budget.status.as_ref().and_then(|status| status.desired_healthy).unwrap_or(0);
            let is_broken = selects && usize::try_from(wanted).is_ok_and(|wanted| fewest < wanted);
            is_broken.then(|| {
                let name = budget.metadata.name.as_deref().unwrap_or_default();
                format!(
                    "the budget {name} wants {wanted} healthy pods, at times there are {fewest}: budgets hold back evictions, not rollouts"
                )
            })
        });
        told.collect()
    }

    fn is_available(&self, pod: &Pod) -> bool {
        let since = ready_condition(pod).and_then(|ready| ready.last_transition_time.as_ref());
        let long_enough = |since: &Time| self.now.duration_since(since.0).as_secs() >= self.min_ready_seconds();
        !is_ending(pod) && is_ready(pod) && since.is_none_or(long_enough)
    }

    /// True if a node has failed at the pod already, or would by all that is known.
    fn is_stuck(&self, pod: &Pod) -> bool {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let unpullable = |image: &String| self.unpullable.contains(image);
        containers.into_iter().any(|container| container.image.as_ref().is_some_and(unpullable))
    }

    /// Images of the wanted template that some pod of the namespace waits for in vain.
    fn unpullable_images(&self) -> BTreeSet<String> {
        let mut failing = BTreeSet::new();
        for pod in self.writer.world().list::<Pod>(Some(&self.key.namespace)).filter(|pod| !is_ending(pod)) {
            let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            let waiting = statuses.filter(|status| {
                let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
                waiting.and_then(|waiting| waiting.reason.as_deref()).is_some_and(|reason| UNPULLABLE.contains(&reason))
            });
            let spec =
                |name: &str| pod.spec.iter().flat_map(|spec| &spec.containers).find(|container| container.name == name);
            failing.extend(waiting.filter_map(|status| spec(&status.name)?.image.clone()));
        }
        let containers =
            self.template().and_then(|template| template.spec.as_ref()).into_iter().flat_map(|spec| &spec.containers);
        let wanted: BTreeSet<&str> = containers.filter_map(|container| container.image.as_deref()).collect();
        failing.into_iter().filter(|image| wanted.contains(image.as_str())).collect()
    }

    /// The template that the workload wants.
    fn template(&self) -> Option<&PodTemplateSpec> {
        match self.writer.world().at(&self.key).map(|object| &object.body) {
            Some(Body::Deployment(it)) => it.spec.as_ref().map(|spec| &spec.template),
            Some(Body::DaemonSet(it)) => it.spec.as_ref().map(|spec| &spec.template),
            Some(Body::StatefulSet(it)) => it.spec.as_ref().map(|spec| &spec.template),
            _ => None,
        }
    }

    fn min_ready_seconds(&self) -> i64 {
        let seconds = match self.writer.world().at(&self.key).map(|object| &object.body) {
            Some(Body::Deployment(it)) => it.spec.as_ref().and_then(|spec| spec.min_ready_seconds),
            Some(Body::DaemonSet(it)) => it.spec.as_ref().and_then(|spec| spec.min_ready_seconds),
            Some(Body::StatefulSet(it)) => it.spec.as_ref().and_then(|spec| spec.min_ready_seconds),
            _ => None,
        };
        seconds.unwrap_or(0).max(0).into()
    }

    fn uid(&self) -> String {
        self.writer.world().at(&self.key).map(|object| object.uid().to_owned()).unwrap_or_default()
    }

    fn sets(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.writer.world().controlled_by::<ReplicaSet>(&self.uid())
    }

    /// Pods of the workload that have not ended.
    fn pods(&self) -> impl Iterator<Item = &Pod> {
        let world = self.writer.world();
        let mut owners: Vec<String> = self.sets().map(|set| uid(&set.metadata)).collect();
        owners.push(self.uid());
        owners
            .into_iter()
            .filter(|uid| !uid.is_empty())
            .flat_map(|uid| world.controlled_by::<Pod>(&uid).collect::<Vec<_>>())
            .filter(|pod| {
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                !matches!(phase, Some("Succeeded" | "Failed"))
            })
    }

    /// The set with the largest number, once the Deployment has it.
    fn newest_set(&self) -> Option<&ReplicaSet> {
        self.sets().max_by_key(|set| number(&set.metadata)).filter(|set| number(&set.metadata) == self.revision())
    }

    fn newest_revision(&self) -> Option<&ControllerRevision> {
        let kept = self.writer.world().controlled_by::<ControllerRevision>(&self.uid());
        kept.max_by_key(|revision| revision.revision)
    }

    /// The number of the newest template.
    fn revision(&self) -> i64 {
        match self.key.kind {
            Kind::Deployment => self
                .writer
                .world()
                .get::<Deployment>(&self.key.namespace, &self.key.name)
                .map_or(0, |deployment| number(&deployment.metadata)),
            _ => self.newest_revision().map_or(0, |revision| revision.revision),
        }
    }

    /// The label value of pods that are made from the newest template.
    fn newest_template(&self) -> Option<&str> {
        match self.key.kind {
            Kind::Deployment => template_of(&self.newest_set()?.metadata),
            Kind::StatefulSet => self.newest_revision()?.metadata.name.as_deref(),
            _ => template_of(&self.newest_revision()?.metadata),
        }
    }
}

fn number(meta: &ObjectMeta) -> i64 {
    let text = meta.annotations.as_ref().and_then(|annotations| annotations.get(REVISION));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn template_of(meta: &ObjectMeta) -> Option<&str> {
    let labels = meta.labels.as_ref()?;
    TEMPLATE_LABELS.iter().find_map(|name| labels.get(*name)).map(String::as_str)
}

fn uid(meta: &ObjectMeta) -> String {
    meta.uid.clone().unwrap_or_default()
}

fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn is_placed(pod: &Pod) -> bool {
    pod.spec.as_deref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty())
}

fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some()
}
