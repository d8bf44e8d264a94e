//! Keeps the replicas of a target at what its pods' work asks for.
//!
//! Mirrors `reconcileAutoscaler` and `computeReplicasForMetrics` (`pkg/controller/podautoscaler/horizontal.go`): the same
//! numbers, conditions, reasons and events. Woken by time, not by pods. Better than upstream on purpose: a rollout does
//! not fool it (docs/decisions/0010-autoscaling.md), what it has recommended outlives a restart, and a failure that
//! stays the same is told once. Never makes or deletes a pod.

mod bounds;
mod calculate;
mod custom;
mod memory;
mod metrics;
mod target;

#[cfg(test)]
mod tests;

use api::{Body, Context, EventNote, EventType, Key, Plan, Refusal, Snapshot, Write};
use jiff::SignedDuration;
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus,
    MetricStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use custom::queries;

use crate::refusals::is_outdated;
use bounds::Numbers;
use memory::Memory;
use metrics::{Failure, Scene};
use target::Target;

/// How often it is decided (upstream: `--horizontal-pod-autoscaler-sync-period`).
const PERIOD: SignedDuration = SignedDuration::from_secs(15);
/// How soon it is looked again whether a metrics API has answered.
const SOON: SignedDuration = SignedDuration::from_secs(1);

/// Decides about one autoscaler.
pub fn reconcile(key: &Key, world: &Snapshot, context: &Context) -> Plan {
    let Some(autoscaler) = world.get::<HorizontalPodAutoscaler>(&key.namespace, &key.name) else {
        return Plan::nothing();
    };
    if autoscaler.metadata.deletion_timestamp.is_some() {
        return Plan::nothing();
    }
    let annotation = autoscaler.metadata.annotations.as_ref().and_then(|all| all.get(memory::ANNOTATION));
    let mut turn = Turn {
        key,
        autoscaler,
        world,
        context,
        status: autoscaler.status.clone().unwrap_or_default(),
        memory: Memory::read(annotation.map(String::as_str)),
        waits: None,
        plan: Plan::nothing(),
    };
    turn.decide();
    // What was so before the answer is still so.
    if turn.waits.is_none() || !turn.has_decided_before() {
        turn.write_status();
    }
    let pause = turn.waits.unwrap_or(PERIOD);
    turn.plan.wake_by(context.now.saturating_add(pause).unwrap_or(context.now));
    turn.plan
}

/// One decision in the making.
struct Turn<'a> {
    key: &'a Key,
    autoscaler: &'a HorizontalPodAutoscaler,
    world: &'a Snapshot,
    context: &'a Context<'a>,
    status: HorizontalPodAutoscalerStatus,
    memory: Memory,
    /// What the metrics are judged by has not been told yet: how soon it is looked again.
    waits: Option<SignedDuration>,
    plan: Plan,
}

/// What the metrics together ask for.
struct Asked {
    replicas: i32,
    name: String,
}

impl Turn<'_> {
    fn decide(&mut self) {
        let spec = &self.autoscaler.spec;
        let target = match Target::find(self.world, &self.key.namespace, &spec.scale_target_ref) {
            Ok(target) => target,
            Err(error) => {
                let message = format!("the HPA controller was unable to get the target's current scale: {error}");
                return self.fail("AbleToScale", "FailedGetScale", message, vec![("FailedGetScale", error)]);
            }
        };
        let message = "the HPA controller was able to get the target's current scale";
        self.set("AbleToScale", true, "SucceededGetScale", message);
        let (current, least, most) = (target.replicas, spec.min_replicas.unwrap_or(1), spec.max_replicas);
        if current == 0 && least != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            self.set("ScalingActive", false, "ScalingDisabled", message);
            self.show(current, current, Vec::new());
        } else if current > most {
            self.scale(&target, most, "Current number of replicas above Spec.MaxReplicas", Vec::new());
        } else if current < least {
            self.scale(&target, least, "Current number of replicas below Spec.MinReplicas", Vec::new());
        } else {
            self.follow_metrics(&target, least, most);
        }
    }

    fn follow_metrics(&mut self, target: &Target, least: i32, most: i32) {
        let current = target.replicas;
        if let Some(others) = self.rivals(target) {
            return self.tell_rivals(target, &others);
        }
        if let Some((why, pause)) = self.untold(target) {
            self.waits = Some(pause);
            self.plan.why.push(why);
            self.status.current_replicas = Some(current);
            return;
        }
        let (asked, statuses) = self.ask(target);
        let Some(asked) = asked else {
            let desired = self.status.desired_replicas;
            return self.show(current, desired, statuses);
        };
        let now = self.context.now;
        let behavior = self.autoscaler.spec.behavior.as_ref();
        let wanted = asked.replicas.max(0);
        let mut before = self.memory.clone();
        before.recommend(wanted, current, now);
        let bounded = bounds::bounded(Numbers { current, wanted, least, most }, &before, behavior, now);
        self.memory = before;
        self.set("AbleToScale", true, bounded.stabilized.0, bounded.stabilized.1);
        let (limited, (reason, message)) = bounded.limited;
        self.set("ScalingLimited", limited, reason, message);
        let replicas = bounded.replicas;
        self.plan.why.push(format!("{} asks for {wanted} replicas; {replicas} it shall be: {message}", asked.name));
        if replicas == current {
            return self.show(current, current, statuses);
        }
        let reason =
            if wanted > current { format!("{} above target", asked.name) } else { "All metrics below target".into() };
        self.scale(target, replicas, &reason, statuses);
    }

    /// What has not been told yet, and how soon it may be. After a restart the nodes' reports are awaited: an autoscaler
    /// that has decided before does not take that for a failure.
    fn untold(&self, target: &Target) -> Option<(String, SignedDuration)> {
        if let Some(why) = custom::awaited(self.autoscaler, &target.selector(), self.context) {
            return Some((why, SOON));
        }
        let metrics = self.autoscaler.spec.metrics.as_deref().unwrap_or_default();
        let by_usage = !metrics.iter().all(custom::is_custom);
        let unheard = self.has_decided_before() && by_usage && self.context.usage.nodes() == 0;
        unheard.then(|| ("no node has reported yet what its pods use".into(), PERIOD))
    }

    fn has_decided_before(&self) -> bool {
        self.autoscaler.status.as_ref().is_some_and(|status| status.conditions.is_some())
    }

    /// Asks every metric. The largest number counts; a metric without a value only stands in the way of scaling down.
    fn ask(&mut self, target: &Target) -> (Option<Asked>, Vec<MetricStatus>) {
        let (pods, behavior) = (target.pods(), self.autoscaler.spec.behavior.as_ref());
        let (namespace, context) = (self.key.namespace.as_str(), self.context);
        let selector = &target.selector();
        let scene = Scene { namespace, selector, pods: &pods, replicas: target.replicas, behavior, context };
        let specs = self.autoscaler.spec.metrics.as_deref().unwrap_or_default();
        let (mut asked, mut statuses, mut failures) = (None::<Asked>, Vec::new(), Vec::new());
        for (index, spec) in specs.iter().enumerate() {
            match metrics::look(spec, &scene) {
                Ok(found) => {
                    statuses.push(found.status);
                    if asked.as_ref().is_none_or(|asked| asked.replicas < found.replicas) {
                        asked = Some(Asked { replicas: found.replicas, name: found.name });
                    }
                }
                Err(failure) => {
                    statuses.push(metrics::unknown());
                    failures.push((index, failure));
                }
            }
        }
        let lowers = asked.as_ref().is_none_or(|asked| asked.replicas < target.replicas);
        let hinders = lowers && !failures.is_empty();
        self.tell_failures(&failures, specs.len(), hinders);
        if hinders {
            return (None, statuses);
        }
        if let Some(asked) = &asked {
            let message = format!("the HPA was able to successfully calculate a replica count from {}", asked.name);
            self.set("ScalingActive", true, "ValidMetricFound", &message);
        }
        (asked, statuses)
    }

    /// Records the failures that are new. Where they stand in the way of a decision, the first is the condition's.
    fn tell_failures(&mut self, failures: &[(usize, Failure)], of: usize, hinders: bool) {
        let Some(((_, first), others)) = failures.split_first() else { return };
        if hinders {
            let Failure { reason, error, prefix } = first;
            let message = format!("the HPA was unable to compute the replica count: {error}");
            let failed = failures.len();
            let whole = format!("invalid metrics ({failed} invalid out of {of}), first error is: {prefix}{error}");
            let events = vec![(*reason, error.clone()), ("FailedComputeMetricsReplicas", whole)];
            self.fail("ScalingActive", reason, message, events);
        }
        let beside = if hinders { others } else { failures };
        for (index, failure) in beside {
            let known = self.autoscaler.status.as_ref().and_then(|status| status.current_metrics.as_ref());
            let had_value = known.and_then(|known| known.get(*index)).is_none_or(|it| *it != metrics::unknown());
            if had_value {
                self.plan.events.push(self.note(EventType::Warning, failure.reason, failure.error.clone()));
            }
        }
    }

    /// All the autoscalers of the same pods, when there are several.
    fn rivals(&self, target: &Target) -> Option<String> {
        let (namespace, own) = (self.key.namespace.as_str(), &self.autoscaler.spec.scale_target_ref);
        let same = |it: &&HorizontalPodAutoscaler| {
            let its = &it.spec.scale_target_ref;
            if its.kind == own.kind {
                return its.name == own.name;
            }
            Target::find(self.world, namespace, its).is_ok_and(|other| other.overlaps(target))
        };
        let all = self.world.list::<HorizontalPodAutoscaler>(Some(namespace)).filter(same);
        let names: Vec<String> =
            all.map(|it| format!("{namespace}/{}", it.metadata.name.as_deref().unwrap_or(""))).collect();
        (names.len() > 1).then(|| format!("[{}]", names.join(" ")))
    }

    fn tell_rivals(&mut self, target: &Target, others: &str) {
        let message = format!("pods by selector {} are controlled by multiple HPAs: {others}", target.selector());
        let events = ["AmbiguousSelector", "FailedComputeMetricsReplicas"].map(|reason| (reason, message.clone()));
        self.fail("ScalingActive", "AmbiguousSelector", message, events.into());
        let desired = self.status.desired_replicas;
        self.show(target.replicas, desired, Vec::new());
    }

    fn scale(&mut self, target: &Target, replicas: i32, reason: &str, statuses: Vec<MetricStatus>) {
        let current = target.replicas;
        if let Some(refusal) = self.refused() {
            let error = refusal.message.clone();
            let message = format!("the HPA controller was unable to update the target scale: {error}");
            let told = format!("New size: {replicas}; reason: {reason}; error: {error}");
            self.fail("AbleToScale", "FailedUpdateScale", message, vec![("FailedRescale", told)]);
            let desired = self.status.desired_replicas;
            self.show(current, desired, statuses);
            // First told, then tried again.
            self.write_status();
            return self.plan.writes.push(Write::Update(target.scaled(replicas)));
        }
        self.plan.writes.push(Write::Update(target.scaled(replicas)));
        let message = format!("New size: {replicas}; reason: {reason}");
        self.plan.writes.push(Write::Event(self.note(EventType::Normal, "SuccessfulRescale", message)));
        let message = format!("the HPA controller was able to update the target scale to {replicas}");
        self.set("AbleToScale", true, "SucceededRescale", &message);
        if self.autoscaler.spec.behavior.is_some() {
            self.memory.scale(replicas - current, self.context.now);
        }
        self.show(current, replicas, statuses);
        self.status.last_scale_time = Some(Time(self.context.now));
    }

    /// Why the target would not be scaled the last time.
    fn refused(&self) -> Option<&Refusal> {
        self.context.refused.filter(|refusal| !is_outdated(refusal) && refusal.kind != "horizontalpodautoscalers")
    }

    fn show(&mut self, current: i32, desired: i32, statuses: Vec<MetricStatus>) {
        self.status.current_replicas = Some(current);
        self.status.desired_replicas = desired;
        self.status.current_metrics = (!statuses.is_empty()).then_some(statuses);
    }

    fn set(&mut self, type_: &str, holds: bool, reason: &str, message: &str) {
        let conditions = self.status.conditions.get_or_insert_default();
        let status = if holds { "True" } else { "False" };
        let (reason, message) = (Some(reason.to_owned()), Some(message.to_owned()));
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            Some(condition) => {
                if condition.status != status {
                    condition.last_transition_time = Some(Time(self.context.now));
                }
                (condition.status, condition.reason, condition.message) = (status.into(), reason, message);
            }
            None => conditions.push(HorizontalPodAutoscalerCondition {
                type_: type_.into(),
                status: status.into(),
                reason,
                message,
                last_transition_time: Some(Time(self.context.now)),
            }),
        }
    }

    /// Sets a condition to False, and records the events of it if it was not so before.
    fn fail(&mut self, type_: &str, reason: &'static str, message: String, events: Vec<(&'static str, String)>) {
        let before = self.autoscaler.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let told = before.into_iter().any(|it| {
            it.type_ == type_ && it.reason.as_deref() == Some(reason) && it.message.as_deref() == Some(&message)
        });
        if !told {
            let notes = events.into_iter().map(|(reason, text)| self.note(EventType::Warning, reason, text));
            self.plan.events.extend(notes.collect::<Vec<_>>());
        }
        self.plan.why.push(message.clone());
        self.set(type_, false, reason, &message);
    }

    fn note(&self, kind: EventType, reason: &'static str, message: String) -> EventNote {
        EventNote {
            regarding: self.key.clone(),
            uid: self.autoscaler.metadata.uid.clone().unwrap_or_default(),
            kind,
            reason,
            message,
            source: "horizontal-pod-autoscaler",
        }
    }

    /// Writes status and memory down, once, if they changed.
    fn write_status(&mut self) {
        let written = |write: &Write| matches!(write, Write::Status(_));
        let behavior = self.autoscaler.spec.behavior.as_ref();
        let (up, down) = bounds::windows(behavior);
        let rules = behavior.into_iter().flat_map(|it| [it.scale_up.as_ref(), it.scale_down.as_ref()]).flatten();
        let periods = rules.flat_map(|rules: &HPAScalingRules| rules.policies.iter().flatten());
        let longest = periods.map(|policy| policy.period_seconds).max().unwrap_or(0);
        self.memory.forget(up.max(down), longest, self.context.now);
        let mut next = self.autoscaler.clone();
        next.status = Some(self.status.clone());
        if self.memory != Memory::default() {
            next.metadata.annotations.get_or_insert_default().insert(memory::ANNOTATION.into(), self.memory.write());
        }
        if next != *self.autoscaler && !self.plan.writes.iter().any(written) {
            self.plan.writes.push(Write::Status(Body::HorizontalPodAutoscaler(Box::new(next))));
        }
    }
}
