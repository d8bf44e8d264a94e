//! From what is wanted to what may be: stabilisation, rates, and the bounds of the spec.
//!
//! Mirrors `pkg/controller/podautoscaler/horizontal.go` (normalizeDesiredReplicas and its WithBehaviors, which differ in
//! their limits). What was recommended and scaled before is an argument: [`Memory`].

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

use super::memory::Memory;

/// Upstream's `--horizontal-pod-autoscaler-downscale-stabilization`.
const STABILIZATION_SECONDS: i32 = 300;
/// Without rules the number at most doubles at once, or grows to this.
const GROWTH: i32 = 2;
const GROWTH_LEAST: i32 = 4;

/// A condition's reason and message.
pub type Told = (&'static str, &'static str);

/// The numbers in play.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    /// Replicas asked for now.
    pub current: i32,
    /// What the metrics ask for.
    pub wanted: i32,
    /// `spec.minReplicas`.
    pub least: i32,
    /// `spec.maxReplicas`.
    pub most: i32,
}

/// How many it shall be, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounded {
    /// The number.
    pub replicas: i32,
    /// For the condition `AbleToScale`.
    pub stabilized: Told,
    /// For the condition `ScalingLimited`: whether it is, and why.
    pub limited: (bool, Told),
}

const WITHIN: Told = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_MANY: Told = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: Told = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_FAST_UP: Told =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const TOO_FAST_DOWN: Told =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");

/// Seconds that recommendations are looked back on: on the way up and on the way down.
pub fn windows(behavior: Option<&HorizontalPodAutoscalerBehavior>) -> (i32, i32) {
    let seconds = |rules: Option<&HPAScalingRules>| rules.and_then(|rules| rules.stabilization_window_seconds);
    let up = seconds(behavior.and_then(|behavior| behavior.scale_up.as_ref()));
    let down = seconds(behavior.and_then(|behavior| behavior.scale_down.as_ref()));
    (up.unwrap_or(0), down.unwrap_or(STABILIZATION_SECONDS))
}

/// Brings what is wanted within bounds.
pub fn bounded(
    numbers: Numbers,
    memory: &Memory,
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    now: Timestamp,
) -> Bounded {
    let Numbers { current, wanted, .. } = numbers;
    let (up, down) = windows(behavior);
    let steady = current.max(memory.lowest(wanted, up, now)).min(memory.highest(wanted, down, now));
    let stabilized = if steady == wanted {
        ("ReadyForNewScale", "recommended size matches current size")
    } else if behavior.is_some() && wanted >= current {
        (
            "ScaleUpStabilized",
            "recent recommendations were lower than current one, applying the lowest recent recommendation",
        )
    } else {
        (
            "ScaleDownStabilized",
            "recent recommendations were higher than current one, applying the highest recent recommendation",
        )
    };
    let steadied = Numbers { wanted: steady, ..numbers };
    let (replicas, why) = match behavior {
        None => by_default(steadied),
        Some(behavior) => by_rules(steadied, memory, behavior, now),
    };
    Bounded { replicas, stabilized, limited: (replicas != steady, why) }
}

fn by_default(Numbers { current, wanted, least, most }: Numbers) -> (i32, Told) {
    let growth = current.saturating_mul(GROWTH).max(GROWTH_LEAST);
    let (highest, why) = if most > growth { (growth, TOO_FAST_UP) } else { (most, TOO_MANY) };
    if wanted < least {
        (least, TOO_FEW)
    } else if wanted > highest {
        (highest, why)
    } else {
        (wanted, WITHIN)
    }
}

fn by_rules(
    Numbers { current, wanted, least, most }: Numbers,
    memory: &Memory,
    behavior: &HorizontalPodAutoscalerBehavior,
    now: Timestamp,
) -> (i32, Told) {
    if wanted > current {
        let limit = rate_limit(current, memory, behavior.scale_up.as_ref(), now, true).max(current);
        let (highest, why) = if most > limit { (limit, TOO_FAST_UP) } else { (most, TOO_MANY) };
        if wanted > highest {
            return (highest, why);
        }
    } else if wanted < current {
        let limit = rate_limit(current, memory, behavior.scale_down.as_ref(), now, false).min(current);
        let (lowest, why) = if least < limit { (limit, TOO_FAST_DOWN) } else { (least, TOO_FEW) };
        if wanted < lowest {
            return (lowest, why);
        }
    }
    (wanted, WITHIN)
}

/// The number that the policies allow to reach.
fn rate_limit(current: i32, memory: &Memory, rules: Option<&HPAScalingRules>, now: Timestamp, up: bool) -> i32 {
    let select = rules.and_then(|rules| rules.select_policy.as_deref()).unwrap_or("Max");
    if select == "Disabled" {
        return current;
    }
    let reached = rules.into_iter().flat_map(|rules| rules.policies.iter().flatten()).map(|policy| {
        let since = now.saturating_sub(SignedDuration::from_secs(policy.period_seconds.into())).unwrap_or(now);
        let at_start = current - memory.scaled_since(since);
        match (policy.type_.as_str(), up) {
            ("Pods", true) => at_start.saturating_add(policy.value),
            ("Pods", false) => at_start.saturating_sub(policy.value),
            // Up to the next whole pod, or a small target would never grow.
            (_, true) => (f64::from(at_start) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32,
            (_, false) => (f64::from(at_start) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
        }
    });
    // The largest change is the highest number on the way up and the lowest on the way down.
    let limit = if (select == "Min") == up { reached.min() } else { reached.max() };
    limit.unwrap_or(current)
}
