//! What one metric of an autoscaler asks for.
//!
//! Mirrors `computeReplicasForMetric` and `computeStatusFor…` (`pkg/controller/podautoscaler/horizontal.go`), `groupPods`
//! and `calculateRequests` (`replica_calculator.go`), with the errors worded as theirs: a user finds them in conditions.
//! Values of pods come from the nodes' reports; those of the other metrics APIs are in `custom`.

use api::quantity::Amount;
use api::usage::Measured;
use api::{Context, Member, Pod, pod_resources};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, HorizontalPodAutoscalerBehavior, MetricSpec, MetricStatus, MetricTarget,
    MetricValueStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Container;

use super::calculate::{self, Pods, Sample, Tolerance, Wanted};
use super::custom;
use crate::pods;

/// Upstream's `--horizontal-pod-autoscaler-tolerance`.
const TOLERANCE: f64 = 0.1;
/// How long cpu may be used for starting up: `--horizontal-pod-autoscaler-cpu-initialization-period`.
const START_UP: SignedDuration = SignedDuration::from_mins(5);
/// How soon a pod that will be ready is: `--horizontal-pod-autoscaler-initial-readiness-delay`.
const INITIAL_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// What a metric asks for.
pub struct Proposal {
    /// Replicas.
    pub replicas: i32,
    /// How a message names the metric.
    pub name: String,
    /// Its present value.
    pub status: MetricStatus,
}

/// Why a metric asks for nothing.
pub struct Failure {
    /// Reason of the condition and of the event.
    pub reason: &'static str,
    /// What went wrong.
    pub error: String,
    /// Words before it where the whole autoscaler fails.
    pub prefix: String,
}

/// What is known of a target when its metrics are looked at.
pub struct Scene<'a> {
    /// Namespace of the target.
    pub namespace: &'a str,
    /// What its pods are selected by.
    pub selector: &'a str,
    /// Its pods.
    pub pods: &'a [Member<'a>],
    /// Replicas asked for now.
    pub replicas: i32,
    /// Rules of the autoscaler.
    pub behavior: Option<&'a HorizontalPodAutoscalerBehavior>,
    /// The time, and what is used.
    pub context: &'a Context<'a>,
}

/// The status of a metric that has no value.
pub fn unknown() -> MetricStatus {
    MetricStatus { type_: String::new(), ..Default::default() }
}

/// Looks at one metric.
pub fn look(spec: &MetricSpec, scene: &Scene) -> Result<Proposal, Failure> {
    match spec.type_.as_str() {
        "Resource" => resource(spec, scene),
        "ContainerResource" => container_resource(spec, scene),
        "Pods" => custom::pods(spec, scene),
        "Object" => custom::object(spec, scene),
        "External" => custom::external(spec, scene),
        other => Err(Failure {
            reason: "InvalidMetricSourceType",
            error: format!("unknown metric source type {other:?}"),
            prefix: String::new(),
        }),
    }
}

fn resource(spec: &MetricSpec, scene: &Scene) -> Result<Proposal, Failure> {
    let source = spec.resource.clone().unwrap_or_default();
    let name = source.name;
    let found = generic(&name, "", &source.target, scene).map_err(|error| Failure {
        reason: "FailedGetResourceMetric",
        error,
        prefix: format!("failed to get {name} resource metric value: "),
    })?;
    let called = match found.utilization {
        Some(_) => format!("{name} resource utilization (percentage of request)"),
        None => format!("{name} resource"),
    };
    let current = value(&name, &found);
    let status = MetricStatus {
        type_: "Resource".into(),
        resource: Some(ResourceMetricStatus { name, current }),
        ..Default::default()
    };
    Ok(Proposal { replicas: found.replicas, name: called, status })
}

fn container_resource(spec: &MetricSpec, scene: &Scene) -> Result<Proposal, Failure> {
    let source = spec.container_resource.clone().unwrap_or_default();
    let (name, container) = (source.name, source.container);
    let found = generic(&name, &container, &source.target, scene).map_err(|error| Failure {
        reason: "FailedGetContainerResourceMetric",
        error,
        prefix: format!("failed to get {container} container metric value: "),
    })?;
    let called = match found.utilization {
        Some(_) => format!("{name} container resource utilization (percentage of request)"),
        None => format!("{name} resource"),
    };
    let current = value(&name, &found);
    let status = MetricStatus {
        type_: "ContainerResource".into(),
        container_resource: Some(ContainerResourceMetricStatus { name, container, current }),
        ..Default::default()
    };
    Ok(Proposal { replicas: found.replicas, name: called, status })
}

/// The present value; memory is written as it is asked for, in Ki, Mi and Gi (upstream: `buildQuantity`).
fn value(resource: &str, found: &Wanted) -> MetricValueStatus {
    let average = Amount::from_milli(found.average);
    let average = if resource == "memory" { average.in_binary() } else { average };
    MetricValueStatus { average_utilization: found.utilization, average_value: Some(average.quantity()), value: None }
}

fn generic(resource: &str, container: &str, target: &MetricTarget, scene: &Scene) -> Result<Wanted, String> {
    let (aim, what) = match (&target.average_value, target.average_utilization) {
        (Some(average), _) => (calculate::Target::Average(Amount::of(average).milli()), "usage"),
        (None, Some(percent)) => (calculate::Target::Utilization(percent), "utilization"),
        (None, None) => {
            return Err("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set".into());
        }
    };
    let requests_matter = matches!(aim, calculate::Target::Utilization(_));
    sorted(resource, container, requests_matter, scene)
        .and_then(|pods| calculate::wanted(scene.replicas, &pods, aim, tolerance(scene.behavior)))
        .map_err(|error| format!("failed to get {resource} {what}: {error}"))
}

/// How far off the target nothing is done; each direction may have its own.
pub fn tolerance(behavior: Option<&HorizontalPodAutoscalerBehavior>) -> Tolerance {
    let rules = [behavior.and_then(|it| it.scale_down.as_ref()), behavior.and_then(|it| it.scale_up.as_ref())];
    let [down, up] = rules.map(|rules| {
        let given = rules.and_then(|rules| rules.tolerance.as_ref());
        given.map_or(TOLERANCE, |quantity| Amount::of(quantity).approximately())
    });
    Tolerance { down, up }
}

/// Sorts the pods by what is known of them.
fn sorted(resource: &str, container: &str, requests_matter: bool, scene: &Scene) -> Result<Pods, String> {
    let Context { now, usage, .. } = *scene.context;
    let (mut found, mut measured, mut unknown) = (Pods::default(), false, None);
    let mut requests = Requests { container, resource, last: None };
    // One walk, by facts: of thousands of pods each look waits for memory.
    for pod in scene.pods {
        let sample = usage.of_facts(pod, now).and_then(|found| Some((found, used(found, resource, container)?)));
        measured |= sample.is_some();
        let requested = if requests_matter { requests.of(pod) } else { Ok(0) };
        let requested = requested.unwrap_or_else(|error| {
            unknown.get_or_insert(error);
            0
        });
        match sample {
            _ if pod.is_pending() => found.unready.push(requested),
            None => found.missing.push(requested),
            Some((sample, _)) if resource == "cpu" && starts_up(pod, sample.since(), now) => {
                found.unready.push(requested);
            }
            Some((_, used)) => found.ready.push(Sample { used, requested }),
        }
    }
    match unknown {
        _ if !measured => {
            Err(format!("unable to get metrics for resource {resource}: no metrics returned from resource metrics API"))
        }
        Some(error) => Err(error),
        None => Ok(found),
    }
}

/// What pods request; asked once where several in a row request the same.
struct Requests<'a> {
    container: &'a str,
    resource: &'a str,
    last: Option<(u64, i64)>,
}

impl Requests<'_> {
    fn of(&mut self, pod: &Member) -> Result<i64, String> {
        if let Some((last, requested)) = self.last
            && last == pod.requests()
        {
            return Ok(requested);
        }
        let requested = requested(pod.pod(), self.container, self.resource)?;
        self.last = Some((pod.requests(), requested));
        Ok(requested)
    }
}

/// What the pod (or one container of it) uses, in thousandths.
fn used(measured: Measured, resource: &str, container: &str) -> Option<i64> {
    let of_container = || measured.pod().containers.iter().find(|it| it.name == container).map(|it| it.used);
    let amount = match (resource, container) {
        ("cpu", "") => measured.cpu_milli()?,
        ("cpu", _) => of_container()?.cpu_milli(),
        ("memory", "") => measured.memory_bytes()?.saturating_mul(1000),
        ("memory", _) => of_container()?.memory_bytes.saturating_mul(1000),
        _ => return None,
    };
    Some(i64::try_from(amount).unwrap_or(i64::MAX))
}

/// True while cpu says nothing about the work a pod does: it is starting, or was never ready.
fn starts_up(pod: &Member, measured_since: Timestamp, now: Timestamp) -> bool {
    let since = pod.ready_since().unwrap_or(Timestamp::MIN);
    if pod.is_ready() && pod.has_started() && since <= measured_since {
        return false;
    }
    let pod = pod.pod();
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let (Some(ready), Some(started)) = (pods::condition(pod, "Ready"), started) else { return true };
    let after = |time: Timestamp, by: SignedDuration| time.saturating_add(by).unwrap_or(Timestamp::MAX);
    let since = ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0);
    if after(started.0, START_UP) > now {
        return ready.status == "False" || measured_since < since;
    }
    ready.status == "False" && after(started.0, INITIAL_READINESS) > since
}

/// What the pod (or one container of it) requests, in thousandths.
fn requested(pod: &Pod, container: &str, resource: &str) -> Result<i64, String> {
    let Some(spec) = pod.spec.as_deref() else { return Ok(0) };
    let name = pods::name(pod);
    let pod_level = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    if container.is_empty() && pod_level.is_some_and(|requests| !requests.is_empty()) {
        let all = pod_resources::requested(spec);
        let missing = || format!("missing pod-level request for {resource} in Pod {name}");
        return all.get(resource).map(|amount| amount.milli()).ok_or_else(missing);
    }
    let sidecars = spec.init_containers.iter().flatten().filter(|it| pod_resources::is_sidecar(it));
    let mut counted =
        spec.containers.iter().chain(sidecars).filter(|it| container.is_empty() || it.name == container).peekable();
    if counted.peek().is_none() {
        return Err(format!("container {container} not found in Pod {name}"));
    }
    let of = |it: &Container| {
        let requests = it.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let amount = requests.and_then(|requests| requests.get(resource)).map(|quantity| Amount::of(quantity).milli());
        amount.ok_or_else(|| format!("missing request for {resource} in container {} of Pod {name}", it.name))
    };
    counted.map(of).sum()
}
