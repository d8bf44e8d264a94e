//! Metrics of the types Pods, Object and External: what is asked of the metrics APIs, and what the answer asks for.
//!
//! Mirrors `computeStatusForPodsMetric`, `…ObjectMetric`, `…ExternalMetric` (`pkg/controller/podautoscaler/horizontal.go`)
//! and `metrics/client.go`, with the errors worded as theirs. Nothing is asked here: the server does that, by the
//! questions of [`queries`], and a decision finds the answers in its context.

use std::collections::{BTreeMap, BTreeSet};

use api::metric::{About, Query, Reading, Value};
use api::quantity::Amount;
use api::selector::Selector;
use api::{Context, Snapshot};
use jiff::SignedDuration;
use k8s_openapi::api::autoscaling::v2::{
    ExternalMetricStatus, HorizontalPodAutoscaler, MetricIdentifier, MetricSpec, MetricStatus, MetricTarget,
    MetricValueStatus, ObjectMetricStatus, PodsMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::calculate::{self, Pods, Sample};
use super::metrics::{Failure, Proposal, Scene, tolerance};
use super::target::Target;
use crate::pods;

/// Everything that the autoscalers of a cluster want to know.
pub fn queries(world: &Snapshot) -> BTreeSet<Query> {
    let all = world.list::<HorizontalPodAutoscaler>(None).filter(|it| it.metadata.deletion_timestamp.is_none());
    all.flat_map(|autoscaler| of(autoscaler, world)).collect()
}

/// What one autoscaler wants to know.
fn of(autoscaler: &HorizontalPodAutoscaler, world: &Snapshot) -> Vec<Query> {
    let namespace = autoscaler.metadata.namespace.as_deref().unwrap_or("");
    let specs = autoscaler.spec.metrics.iter().flatten().filter(|spec| is_custom(spec));
    let target = Target::find(world, namespace, &autoscaler.spec.scale_target_ref);
    let selector = target.map_or_else(|_| String::new(), |target| target.selector());
    specs.filter_map(|spec| query(spec, namespace, &selector).ok()).collect()
}

/// True for a metric that comes from a metrics API other than that of resources.
pub fn is_custom(spec: &MetricSpec) -> bool {
    matches!(spec.type_.as_str(), "Pods" | "Object" | "External")
}

/// Why an answer is waited for; none if there is one for every question.
pub fn awaited(autoscaler: &HorizontalPodAutoscaler, selector: &str, context: &Context) -> Option<String> {
    let namespace = autoscaler.metadata.namespace.as_deref().unwrap_or("");
    let scaled = autoscaler.status.as_ref().and_then(|status| status.last_scale_time.as_ref());
    // Times in the API are whole seconds: an answer of the same second may be older than the scaling.
    let scaled = scaled.and_then(|time| time.0.checked_add(SignedDuration::from_secs(1)).ok());
    autoscaler.spec.metrics.iter().flatten().filter(|spec| is_custom(spec)).find_map(|spec| {
        let query = query(spec, namespace, selector).ok()?;
        let Some(reading) = context.usage.reading(&query, context.now) else {
            return Some(format!("metric {} has not been asked for yet", query.metric));
        };
        let is_older = scaled.is_some_and(|scaled| reading.at < scaled);
        is_older.then(|| format!("metric {} is not known since the last scaling", query.metric))
    })
}

/// The question that a metric stands for; `pods` selects the target's pods.
fn query(spec: &MetricSpec, namespace: &str, pods: &str) -> Result<Query, String> {
    let (metric, about) = match (&spec.pods, &spec.object, &spec.external) {
        (Some(source), ..) => (&source.metric, About::Pods(pods.to_owned())),
        (_, Some(source), _) => {
            let object = &source.described_object;
            let group = object.api_version.as_deref().and_then(|version| version.split_once('/'));
            let group = group.map_or("", |(group, _)| group).to_owned();
            (&source.metric, About::Object { group, kind: object.kind.clone(), name: object.name.clone() })
        }
        (.., Some(source)) => (&source.metric, About::External),
        _ => return Err(format!("a metric of type {} names no source", spec.type_)),
    };
    let selector = Selector::from_label_selector(metric.selector.as_ref()).map_err(|error| error.to_string())?;
    Ok(Query { namespace: namespace.to_owned(), metric: metric.name.clone(), selector: selector.to_string(), about })
}

fn values<'a>(query: &Query, scene: &Scene<'a>) -> Result<&'a [Value], String> {
    match scene.context.usage.reading(query, scene.context.now) {
        Some(Reading { values: Ok(values), .. }) => Ok(values),
        Some(Reading { values: Err(error), .. }) => Err(error.clone()),
        None => Err("it has not been asked for yet".into()),
    }
}

/// A metric that every pod has for itself.
pub fn pods(spec: &MetricSpec, scene: &Scene) -> Result<Proposal, Failure> {
    let source = spec.pods.clone().unwrap_or_default();
    let name = source.metric.name.clone();
    let failed = |error: String| Failure {
        reason: "FailedGetPodsMetric",
        error,
        prefix: "failed to get pods metric value: ".into(),
    };
    let query = query(spec, scene.namespace, scene.selector).map_err(failed)?;
    let told = values(&query, scene).and_then(|values| match values {
        [] => Err("no metrics returned from custom metrics API".into()),
        some => Ok(some),
    });
    let told = told.map_err(|error| failed(format!("unable to get metric {name}: {error}")))?;
    let sorted = sorted(told, scene).map_err(failed)?;
    let aim = calculate::Target::Average(milli(source.target.average_value.as_ref()));
    let found = calculate::wanted(scene.replicas, &sorted, aim, tolerance(scene.behavior)).map_err(failed)?;
    let current = MetricValueStatus { average_value: Some(quantity(found.average)), ..Default::default() };
    let status = MetricStatus {
        type_: "Pods".into(),
        pods: Some(PodsMetricStatus { metric: source.metric, current }),
        ..Default::default()
    };
    Ok(Proposal { replicas: found.replicas, name: format!("pods metric {name}"), status })
}

/// Sorts the pods by what is known of them (upstream: `groupPods`). One that is not ready counts as upstream's does only
/// where a replica has no ready pod: in a rollout it is the surge.
fn sorted(values: &[Value], scene: &Scene) -> Result<Pods, String> {
    if scene.pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".into());
    }
    let told: BTreeMap<&str, i64> = values.iter().map(|value| (value.object.as_str(), value.milli)).collect();
    let mut found = Pods::default();
    let mut starting = Vec::new();
    for pod in scene.pods {
        match told.get(pods::name(pod.pod())) {
            _ if pod.is_pending() => found.unready.push(0),
            None => found.missing.push(0),
            Some(used) if pod.is_ready() => found.ready.push(Sample { used: *used, requested: 0 }),
            Some(used) => starting.push(Sample { used: *used, requested: 0 }),
        }
    }
    let room = usize::try_from(scene.replicas).unwrap_or(0).saturating_sub(found.ready.len());
    let (counted, surge) = starting.split_at(room.min(starting.len()));
    found.ready.extend(counted);
    found.unready.extend(surge.iter().map(|_| 0));
    Ok(found)
}

/// A metric of one object.
pub fn object(spec: &MetricSpec, scene: &Scene) -> Result<Proposal, Failure> {
    let source = spec.object.clone().unwrap_or_default();
    let (name, about) = (source.metric.name.clone(), source.described_object.clone());
    let shares = is_average(&source.target);
    let middle = if shares == Some(true) { format!("failed to get {name} object metric: ") } else { String::new() };
    let prefix = format!("failed to get object metric value: {middle}");
    let failed = |error: String| Failure { reason: "FailedGetObjectMetric", error, prefix: prefix.clone() };
    let Some(shares) = shares else {
        return Err(failed(
            "invalid object metric source: neither a value target nor an average value target was set".into(),
        ));
    };
    let query = query(spec, scene.namespace, scene.selector).map_err(failed)?;
    let told = values(&query, scene).and_then(|values| match values {
        [one] => Ok(one.milli),
        other => Err(format!(
            "unable to fetch metrics from custom metrics API: the custom metrics API server returned {} results when we asked for exactly one",
            other.len()
        )),
    });
    let told = told.map_err(|error| {
        failed(format!("unable to get metric {name}: {error} on {} {}/{}", about.kind, scene.namespace, about.name))
    })?;
    let (replicas, current) = whole_or_share(shares, told, &source.target, scene).map_err(failed)?;
    let called = if shares {
        format!("external metric {name}({})", shown(source.metric.selector.as_ref()))
    } else {
        format!("{} metric {name}", about.kind)
    };
    let status = MetricStatus {
        type_: "Object".into(),
        object: Some(ObjectMetricStatus { described_object: about, metric: source.metric, current }),
        ..Default::default()
    };
    Ok(Proposal { replicas, name: called, status })
}

/// A metric of something outside of the cluster.
pub fn external(spec: &MetricSpec, scene: &Scene) -> Result<Proposal, Failure> {
    let source = spec.external.clone().unwrap_or_default();
    let MetricIdentifier { name, selector } = source.metric.clone();
    let shares = source.target.average_value.is_some();
    let middle = if shares {
        format!("failed to get {name} external metric")
    } else {
        format!("failed to get external metric {name}")
    };
    let failed = |error: String| Failure {
        reason: "FailedGetExternalMetric",
        error,
        prefix: format!("failed to get {name} external metric value: {middle}: "),
    };
    let query = query(spec, scene.namespace, scene.selector).map_err(failed)?;
    let told = values(&query, scene).and_then(|values| match values {
        [] => Err("no metrics returned from external metrics API".into()),
        some => Ok(some.iter().fold(0_i64, |sum, value| sum.saturating_add(value.milli))),
    });
    let told = told.map_err(|error| {
        let shown = shown(selector.as_ref());
        failed(format!("unable to get external metric {}/{name}/{shown}: {error}", scene.namespace))
    })?;
    let (replicas, current) = whole_or_share(shares, told, &source.target, scene).map_err(failed)?;
    let status = MetricStatus {
        type_: "External".into(),
        external: Some(ExternalMetricStatus { metric: source.metric, current }),
        ..Default::default()
    };
    let called = format!("external metric {name}({})", shown(selector.as_ref()));
    Ok(Proposal { replicas, name: called, status })
}

/// Whether an object's value is shared by the replicas, or aimed at as a whole.
fn is_average(target: &MetricTarget) -> Option<bool> {
    match target.type_.as_str() {
        "Value" if target.value.is_some() => Some(false),
        "AverageValue" if target.average_value.is_some() => Some(true),
        _ => None,
    }
}

fn whole_or_share(
    shares: bool,
    used: i64,
    target: &MetricTarget,
    scene: &Scene,
) -> Result<(i32, MetricValueStatus), String> {
    let tolerance = tolerance(scene.behavior);
    if shares {
        let aim = milli(target.average_value.as_ref());
        let (replicas, average) = calculate::by_share(scene.replicas, used, aim, tolerance);
        return Ok((replicas, MetricValueStatus { average_value: Some(quantity(average)), ..Default::default() }));
    }
    if scene.replicas != 0 && scene.pods.is_empty() {
        let why = "no pods returned by selector while calculating replica count";
        return Err(format!("unable to calculate ready pods: {why}"));
    }
    let ready = scene.pods.iter().filter(|pod| pod.is_running() && pod.is_ready()).count();
    let replicas = calculate::by_ratio(scene.replicas, ready, used, milli(target.value.as_ref()), tolerance);
    Ok((replicas, MetricValueStatus { value: Some(quantity(used)), ..Default::default() }))
}

fn milli(quantity: Option<&Quantity>) -> i64 {
    quantity.map_or(0, |quantity| Amount::of(quantity).milli())
}

fn quantity(milli: i64) -> Quantity {
    Amount::from_milli(milli).quantity()
}

/// A selector as Go shows it.
fn shown(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".into() };
    let labels = selector.match_labels.iter().flatten().map(|(name, value)| format!("{name}: {value},"));
    let requirement = |it: &LabelSelectorRequirement| {
        let values = it.values.as_deref().unwrap_or_default().join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", it.key, it.operator)
    };
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{}}},}}",
        labels.collect::<String>(),
        selector.match_expressions.iter().flatten().map(requirement).collect::<String>()
    )
}
