//! HorizontalPodAutoscalers: within their bounds, at the pace they were told, and for no other reason than work.

use api::quantity::Amount;
use api::{Kind, Object, Pod, Snapshot, Usage};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscaler};

use super::{Moment, Verdict};
use crate::facts;

/// Upstream's tolerance: nothing is done for less.
const TOLERANCE_PERCENT: i64 = 10;
/// How long the highest recommendation holds where no rule says so.
const STABILIZATION: i32 = 300;

/// Without rules the number at most doubles at once, or grows to this.
const GROWTH_LEAST: i32 = 4;

/// What an autoscaler did to a target.
#[derive(Clone, Copy)]
pub struct Scaling {
    /// When.
    pub at: Timestamp,
    /// Replicas before.
    pub from: i32,
    /// Replicas after.
    pub to: i32,
    /// False where nothing but the bounds called for it.
    pub wanted: bool,
}

/// A Deployment that a decision gave another size, and its autoscaler.
struct Scaled<'a> {
    deployment: &'a Deployment,
    by: &'a str,
    autoscaler: &'a HorizontalPodAutoscaler,
    scaling: Scaling,
}

/// The autoscaler of a Deployment.
fn autoscaler_of<'a>(deployment: &Object, world: &'a Snapshot) -> Option<&'a HorizontalPodAutoscaler> {
    let refers = |it: &&HorizontalPodAutoscaler| {
        let target = &it.spec.scale_target_ref;
        target.kind == "Deployment" && target.name == deployment.name()
    };
    world.list::<HorizontalPodAutoscaler>(Some(deployment.namespace())).find(refers)
}

/// Reads a change as a scaling; an error if a decision scaled what has no autoscaler.
fn scaled<'a>(moment: &'a Moment) -> Result<Option<Scaled<'a>>, String> {
    let (Some(before), Some(after)) = moment.deployment() else { return Ok(None) };
    let (from, to) = (facts::replicas(before), facts::replicas(after));
    if from == to || moment.asked {
        return Ok(None);
    }
    let Some(autoscaler) = autoscaler_of(moment.change.object(), moment.before) else {
        return Err(format!("goes from {from} to {to} though nobody asked and it has no autoscaler"));
    };
    let (least, most) = (autoscaler.spec.min_replicas.unwrap_or(1), autoscaler.spec.max_replicas);
    let scaling = Scaling { at: moment.now, from, to, wanted: (least..=most).contains(&from) };
    Ok(Some(Scaled { deployment: after, by: facts::uid(&autoscaler.metadata), autoscaler, scaling }))
}

/// What is to be remembered of a change: the uid of an autoscaler, and what it did.
pub fn noted(moment: &Moment) -> Option<(String, Scaling)> {
    scaled(moment).ok().flatten().map(|scaled| (scaled.by.to_owned(), scaled.scaling))
}

/// An autoscaler never goes beyond its bounds, nor wakes what was scaled to nothing.
pub fn bounds_are_kept(moment: &Moment) -> Verdict {
    let Some(Scaled { autoscaler, scaling: Scaling { from, to, .. }, .. }) = scaled(moment)? else { return Ok(()) };
    let (least, most) = (autoscaler.spec.min_replicas.unwrap_or(1), autoscaler.spec.max_replicas);
    if from == 0 {
        return Err(format!("goes from 0 to {to}, where an autoscaler has nothing to say"));
    }
    if (least..=most).contains(&to) {
        Ok(())
    } else {
        Err(format!("goes to {to}, which is not within {least}..={most}"))
    }
}

/// Active pods of a Deployment.
fn pods<'a>(deployment: &Deployment, world: &'a Snapshot) -> Vec<&'a Pod> {
    let sets = facts::sets(deployment, world);
    sets.into_iter().flat_map(|set| facts::pods(set, world)).filter(|pod| facts::is_active(pod)).collect()
}

/// The work of pods as far as it is known, and what each of them is to do, in thousandths of a core. `None` where pods
/// ask for different amounts.
fn work(
    deployment: &Deployment,
    autoscaler: &HorizontalPodAutoscaler,
    world: &Snapshot,
    usage: &Usage,
    now: Timestamp,
) -> Option<(i64, i64)> {
    let pods = pods(deployment, world);
    let asked = |pod: &Pod| {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let asked = containers.filter_map(|it| it.resources.as_ref()?.requests.as_ref()?.get("cpu"));
        asked.map(|quantity| Amount::of(quantity).milli()).sum::<i64>()
    };
    let each = pods.first().map(|pod| asked(pod)).filter(|each| pods.iter().all(|pod| asked(pod) == *each))?;
    let metric = autoscaler.spec.metrics.iter().flatten().next()?;
    let resource = metric.resource.as_ref().map(|it| &it.target);
    let target = resource.or(metric.container_resource.as_ref().map(|it| &it.target))?;
    let each = match target.average_utilization {
        Some(percent) => each * i64::from(percent),
        None => Amount::of(target.average_value.as_ref()?).milli() * 100,
    };
    let used = |pod: &&Pod| {
        let (_, pod) = usage.of_pod(facts::node(pod), facts::uid(&pod.metadata), now)?;
        Some(pod.containers.iter().map(|it| it.used.cpu_nano).sum::<u64>())
    };
    // Rounded up for each pod, as thousandths are.
    let all: u64 = pods.iter().filter_map(used).map(|nano| nano.div_ceil(1_000_000)).sum();
    Some((i64::try_from(all).ok()?, each))
}

/// More pods only for more work: what the pods do together is beyond the tolerance for the replicas asked for, and
/// asks for as many as there shall be. That a rollout has more pods than replicas is no reason.
pub fn scales_up_for_work_only(moment: &Moment) -> Verdict {
    let Some(Scaled { deployment, autoscaler, scaling: Scaling { from, to, .. }, .. }) = scaled(moment)? else {
        return Ok(());
    };
    if to < from || from < autoscaler.spec.min_replicas.unwrap_or(1) {
        return Ok(());
    }
    let Some((work, each)) = work(deployment, autoscaler, moment.before, moment.usage, moment.now) else {
        return Ok(());
    };
    // Where fewer pods than replicas are there, the work is that of those (upstream: replica_calculator.go).
    let doing = i64::from(from).min(pods(deployment, moment.before).len() as i64);
    // `each` is in hundredths of thousandths, for the percent.
    let (work, from, to) = (work * 100, i64::from(from), i64::from(to));
    if work * 100 <= doing * each * (100 + TOLERANCE_PERCENT) {
        return Err(format!("goes from {from} to {to} though its pods do {}m, {}m each", work / 100, each / 100));
    }
    let asked = (work + each - 1) / each;
    if to <= asked { Ok(()) } else { Err(format!("goes from {from} to {to} where the work asks for {asked}")) }
}

fn rules(autoscaler: &HorizontalPodAutoscaler, up: bool) -> Option<&HPAScalingRules> {
    let behavior = autoscaler.spec.behavior.as_ref()?;
    if up { behavior.scale_up.as_ref() } else { behavior.scale_down.as_ref() }
}

/// Behaviour: never faster than a policy says, not at all where that is disabled, and down only to what was not wanted
/// for long enough.
pub fn behaviour_is_respected(moment: &Moment) -> Verdict {
    let Some(Scaled { autoscaler, by, scaling: Scaling { from, to, .. }, .. }) = scaled(moment)? else { return Ok(()) };
    let (least, most) = (autoscaler.spec.min_replicas.unwrap_or(1), autoscaler.spec.max_replicas);
    // What is out of bounds comes within them at once.
    if from < least || from > most {
        return Ok(());
    }
    let up = to > from;
    let rules = rules(autoscaler, up);
    if rules.and_then(|rules| rules.select_policy.as_deref()) == Some("Disabled") {
        return Err(format!("goes from {from} to {to}, which is disabled"));
    }
    let past = |seconds: i32| {
        let since = moment.now - SignedDuration::from_secs(seconds.into());
        moment.tally.scalings(by).iter().filter(move |scaling| scaling.at > since)
    };
    for policy in rules.into_iter().flat_map(|rules| rules.policies.iter().flatten()) {
        let before = from - past(policy.period_seconds).map(|it| it.to - it.from).sum::<i32>();
        let step = match policy.type_.as_str() {
            "Pods" => policy.value,
            _ => (f64::from(before) * f64::from(policy.value) / 100.0).ceil() as i32,
        };
        if (if up { to - before } else { before - to }) > step {
            return Err(format!(
                "goes from {from} to {to}, where {before} may change by {step} in {}s",
                policy.period_seconds
            ));
        }
    }
    if up && autoscaler.spec.behavior.is_none() && to > GROWTH_LEAST.max(2 * from) {
        return Err(format!("goes from {from} to {to} at once"));
    }
    let window = rules.and_then(|rules| rules.stabilization_window_seconds);
    let wanted = past(window.unwrap_or(if up { 0 } else { STABILIZATION })).filter(|it| it.wanted && it.to > it.from);
    match wanted.map(|it| it.to).max().map(|highest| highest.min(most)).filter(|highest| !up && to < *highest) {
        Some(highest) => Err(format!("goes from {from} to {to}, though {highest} were wanted not long ago")),
        None => Ok(()),
    }
}

/// When all is healed: every autoscaler is content, and says so.
pub fn arrive(world: &Snapshot, usage: &Usage, now: Timestamp) -> Verdict {
    for object in world.objects(Kind::HorizontalPodAutoscaler, None) {
        let Some(autoscaler) = object.get::<HorizontalPodAutoscaler>() else { continue };
        let name = object.name();
        let target = &autoscaler.spec.scale_target_ref.name;
        let Some(deployment) = world.get::<Deployment>(object.namespace(), target) else { continue };
        let (least, most) = (autoscaler.spec.min_replicas.unwrap_or(1), autoscaler.spec.max_replicas);
        let there = facts::replicas(deployment);
        if there != 0 && !(least..=most).contains(&there) {
            return Err(format!("autoscaler {name} of {least}..={most} has left {there} replicas"));
        }
        let status = autoscaler.status.clone().unwrap_or_default();
        if status.current_replicas != Some(there) || status.desired_replicas != there {
            let (current, desired) = (status.current_replicas, status.desired_replicas);
            return Err(format!("autoscaler {name} tells {current:?} and {desired} where {there} replicas are"));
        }
        let is_disabled =
            |up: bool| rules(autoscaler, up).and_then(|it| it.select_policy.as_deref()) == Some("Disabled");
        let Some((work, each)) = work(deployment, autoscaler, world, usage, now).filter(|_| there != 0) else {
            continue;
        };
        let done = i64::from(there) * each;
        // A thousandth a pod for rounding.
        let slack = i64::from(there) * 100;
        let too_much =
            (work * 100 - slack) * 100 > done * (100 + TOLERANCE_PERCENT) && there < most && !is_disabled(true);
        let too_little =
            (work * 100 + slack) * 100 < done * (100 - TOLERANCE_PERCENT) && there > least && !is_disabled(false);
        let fewer = (work * 100 + slack + each - 1) / each < i64::from(there);
        if too_much || (too_little && fewer) {
            return Err(format!(
                "autoscaler {name} is content with {there} replicas that do {work}m, {}m each",
                each / 100
            ));
        }
    }
    Ok(())
}
