//! What a Deployment asks for, as plain numbers.
//!
//! Mirrors upstream's `pkg/controller/deployment/util/deployment_util.go` (ResolveFenceposts, MaxSurge, MaxUnavailable,
//! HasProgressDeadline, HasRevisionHistoryLimit). Defaults were set by the door; what is missing all the same gets the
//! same default here.

use api::int_or_string::{Round, scaled};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::specs;

/// How one template is replaced by the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Little by little.
    RollingUpdate,
    /// All old pods end before the first new one starts.
    Recreate,
}

/// The wishes of a Deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Pods wanted.
    pub replicas: i32,
    /// Pods there may be beyond `replicas`.
    pub max_surge: i32,
    /// Pods that may be missing from `replicas`.
    pub max_unavailable: i32,
    /// How templates are replaced.
    pub strategy: Strategy,
    /// Seconds a pod has to be ready to count as available.
    pub min_ready_seconds: i32,
    /// Seconds without progress after which the rollout has failed; `None` if it is never judged.
    pub progress_deadline_seconds: Option<i32>,
    /// Old sets to keep; `None` for all.
    pub revision_history_limit: Option<usize>,
    /// True while templates are not to be replaced.
    pub paused: bool,
}

impl Terms {
    /// Reads a Deployment's spec.
    pub fn of(deployment: &Deployment) -> Terms {
        let spec = specs::of_deployment(deployment);
        let strategy = spec.strategy.as_ref();
        let replicas = spec.replicas.unwrap_or(1);
        let recreate = strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate");
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let (max_surge, max_unavailable) = if recreate {
            (0, 0)
        } else {
            let quarter = IntOrString::String("25%".into());
            let or_quarter = |value: Option<&IntOrString>| value.unwrap_or(&quarter).clone();
            fenceposts(
                &or_quarter(rolling.and_then(|rolling| rolling.max_surge.as_ref())),
                &or_quarter(rolling.and_then(|rolling| rolling.max_unavailable.as_ref())),
                replicas,
            )
        };
        let bounded = |limit: Option<i32>, default: i32| Some(limit.unwrap_or(default)).filter(|n| *n != i32::MAX);
        Terms {
            replicas,
            max_surge,
            max_unavailable: max_unavailable.min(replicas),
            strategy: if recreate { Strategy::Recreate } else { Strategy::RollingUpdate },
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            progress_deadline_seconds: bounded(spec.progress_deadline_seconds, 600),
            revision_history_limit: bounded(spec.revision_history_limit, 10).and_then(|n| usize::try_from(n).ok()),
            paused: spec.paused.unwrap_or(false),
        }
    }

    /// Available pods there have to be at every moment.
    pub fn min_available(&self) -> i32 {
        self.replicas - self.max_unavailable
    }

    /// Pods there may be at every moment, those that are terminating aside.
    pub fn max_pods(&self) -> i32 {
        self.replicas.saturating_add(self.max_surge)
    }
}

/// Surge (rounded up) and unavailable (rounded down). Never both zero, or nothing could ever move: then one pod may be
/// unavailable, because a surge might be impossible under a quota. What is no number counts as zero; the door refuses it.
pub fn fenceposts(max_surge: &IntOrString, max_unavailable: &IntOrString, replicas: i32) -> (i32, i32) {
    let surge = scaled(max_surge, replicas, Round::Up).unwrap_or(0).max(0);
    let unavailable = scaled(max_unavailable, replicas, Round::Down).unwrap_or(0).max(0);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}
