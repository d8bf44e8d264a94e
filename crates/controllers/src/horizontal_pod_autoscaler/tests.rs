use std::fmt::Write as _;

use api::metric::{About, Query, Reading};
use api::usage::{ContainerUsage, NodeUsage, PodUsage, Report, Used};
use api::{Kind, Plan, Pod, Refusal, Typed};
use expect_test::expect;
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::testing::{World, show};
use crate::{Controller, pods};

/// The autoscaler `web` of the Deployment `web`, as it is after defaulting.
fn autoscaler(world: &mut World, spec: Value) {
    let mut full = json!({ "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" }, "maxReplicas": 10 });
    for (name, value) in spec.as_object().unwrap() {
        full[name] = value.clone();
    }
    let body = json!({ "metadata": { "name": "web", "namespace": "default", "uid": "uid-hpa" }, "spec": full });
    let mut body = Kind::HorizontalPodAutoscaler.decode(body).unwrap();
    api::defaults::apply(&mut body);
    world.user_creates(Kind::HorizontalPodAutoscaler, body.to_value());
}

/// Aims at so much memory in each pod; memory is never mistaken for starting up.
fn memory(mebibytes: i64) -> Value {
    json!([{ "type": "Resource", "resource": { "name": "memory",
        "target": { "type": "AverageValue", "averageValue": format!("{mebibytes}Mi") } } }])
}

/// Nodes report: what each of these pods uses, in thousandths of a core and in MiB.
fn report(world: &mut World, used: impl Fn(&Pod) -> Option<(u64, u64)>) {
    report_of(world, None, used);
}

/// As [`report`], of pods that were measured for so long.
fn report_of(world: &mut World, window_ms: Option<u32>, used: impl Fn(&Pod) -> Option<(u64, u64)>) {
    let all = world.snapshot.list::<Pod>(None).filter_map(|pod| {
        let (cpu_milli, mebibytes) = used(pod)?;
        let used = Used { cpu_nano: cpu_milli * 1_000_000, memory_bytes: mebibytes << 20 };
        let uid = pod.metadata.uid.clone()?;
        Some(PodUsage { uid, window_ms, containers: vec![ContainerUsage { name: "c".into(), used }] })
    });
    let usage =
        NodeUsage { at_ms: world.now.as_millisecond(), window_ms: 15_000, used: Used::default(), pods: all.collect() };
    world.usage.take(Report { node: "n1".into(), usage });
}

/// The work of all, in MiB, is shared by the pods that are ready.
fn share(world: &mut World, total: u64) {
    let at_work = |pod: &Pod| pods::is_active(pod) && pods::is_ready(pod);
    let count = world.snapshot.list::<Pod>(None).filter(|pod| at_work(pod)).count() as u64;
    report(world, |pod| at_work(pod).then(|| (0, total / count.max(1))));
}

fn current(world: &World) -> HorizontalPodAutoscaler {
    world.snapshot.get::<HorizontalPodAutoscaler>("default", "web").unwrap().clone()
}

fn status(autoscaler: &HorizontalPodAutoscaler) -> String {
    let status = autoscaler.status.clone().unwrap_or_default();
    let mut text = format!("{} of {} wanted\n", status.current_replicas.unwrap_or(0), status.desired_replicas);
    for metric in status.current_metrics.into_iter().flatten() {
        let now = metric.resource.map(|it| it.current).or(metric.container_resource.map(|it| it.current));
        let now = now.or(metric.pods.map(|it| it.current)).or(metric.object.map(|it| it.current));
        let now = now.or(metric.external.map(|it| it.current));
        let now = now.map(|it| match it.value {
            Some(value) => format!("value {}", value.0),
            None => format!("{:?} {}", it.average_utilization, it.average_value.unwrap().0),
        });
        writeln!(text, "  metric {} {}", metric.type_, now.unwrap_or_default()).unwrap();
    }
    for condition in status.conditions.into_iter().flatten() {
        let (reason, message) = (condition.reason.unwrap(), condition.message.unwrap());
        writeln!(text, "  {} {} {reason}: {message}", condition.type_, condition.status).unwrap();
    }
    text
}

/// What one decision does, and the status that it writes.
fn decided(world: &World) -> String {
    let plan = world.plan(Controller::HorizontalPodAutoscaler, Kind::HorizontalPodAutoscaler, "web");
    let written = plan.writes.iter().find_map(|write| match write {
        api::Write::Status(body) => HorizontalPodAutoscaler::of(body).map(status),
        _ => None,
    });
    let plan = Plan { why: Vec::new(), wake_at: None, ..plan };
    let rest: String =
        show(&plan).lines().filter(|line| !line.starts_with("status")).map(|it| format!("{it}\n")).collect();
    written.unwrap_or_default() + &rest
}

const NO_CUSTOM: &str = "no custom metrics API (custom.metrics.k8s.io) registered";

/// The metrics APIs answer every question that the autoscalers have.
fn answer(world: &mut World, values: &dyn Fn(&Query) -> Result<Vec<api::metric::Value>, String>) {
    for query in super::queries(&world.snapshot) {
        let reading = Reading { at: world.now, values: values(&query) };
        world.usage.read(query, reading);
    }
}

/// Values by the names of objects, in thousandths.
fn told(values: &[(&str, i64)]) -> Result<Vec<api::metric::Value>, String> {
    Ok(values
        .iter()
        .map(|(object, milli)| api::metric::Value { object: (*object).to_owned(), milli: *milli })
        .collect())
}

/// Three ready pods that request a core each, for hours.
fn three_pods() -> World {
    let mut world = World::read("deploy web 3\nrs web-a 3 image v1");
    for name in world.pods() {
        let long_ago = world.now.checked_sub(SignedDuration::from_hours(5)).unwrap();
        world.change_pod(&name, |pod| {
            let requests = json!({ "requests": { "cpu": "1" } });
            pod.spec.as_mut().unwrap().containers[0].resources = serde_json::from_value(requests).unwrap();
            pod.status.get_or_insert_default().start_time = Some(Time(long_ago));
        });
    }
    world
}

fn utilization(percent: i32) -> Value {
    json!([{ "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": percent } } }])
}

#[test]
fn one_decision() {
    let mut table = String::new();
    let mut case = |name: &str, spec: Value, change: &dyn Fn(&mut World)| {
        let mut world = three_pods();
        autoscaler(&mut world, spec);
        change(&mut world);
        write!(table, "# {name}\n{}", decided(&world)).unwrap();
    };
    let busy = |world: &mut World| report(world, |_| Some((500, 0)));
    case("up", json!({ "metrics": utilization(30) }), &busy);
    case("on target", json!({ "metrics": utilization(48) }), &busy);
    case("down, as far as it may", json!({ "minReplicas": 2, "metrics": utilization(500) }), &busy);
    let patient = json!({ "scaleUp": { "tolerance": "0.7" } });
    case("within a tolerance of its own", json!({ "metrics": utilization(30), "behavior": patient }), &busy);
    case("more memory", json!({ "metrics": memory(100) }), &|world| report(world, |_| Some((0, 150))));
    case("none asked for", json!({ "metrics": utilization(30) }), &|world| {
        busy(world);
        world.user_changes("web", |deployment| deployment.spec.as_mut().unwrap().replicas = Some(0));
    });
    case("above the maximum", json!({ "maxReplicas": 2, "metrics": utilization(50) }), &busy);
    case("nothing measured", json!({ "metrics": utilization(50) }), &|_| {});
    case("no requests", json!({ "metrics": utilization(50) }), &|world| {
        busy(world);
        world.change_pod("web-a-1", |pod| pod.spec.as_mut().unwrap().containers[0].resources = None);
    });
    let own = json!([{ "type": "Pods", "pods": { "metric": { "name": "requests" }, "target": { "type": "AverageValue", "averageValue": "10" } } }]);
    case("nobody serves custom metrics", json!({ "metrics": own }), &|world| {
        busy(world);
        answer(world, &|_| Err(format!("unable to fetch metrics from custom metrics API: {NO_CUSTOM}")));
    });
    let queue = json!([
        { "type": "External", "external": { "metric": { "name": "queue" }, "target": { "type": "Value", "value": "10" } } },
        utilization(30)[0],
    ]);
    case("one of two metrics fails, the other asks for more", json!({ "metrics": queue }), &|world| {
        busy(world);
        answer(world, &|_| Err("unable to fetch metrics from external metrics API: it is away".into()));
    });
    case(
        "the target is gone",
        json!({ "metrics": utilization(50), "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "none" } }),
        &busy,
    );
    case(
        "no such kind",
        json!({ "metrics": utilization(50), "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Website", "name": "web" } }),
        &busy,
    );
    expect![[r##"
        # up
        3 of 5 wanted
          metric Resource Some(50) 500m
          AbleToScale True SucceededRescale: the HPA controller was able to update the target scale to 5
          ScalingActive True ValidMetricFound: the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)
          ScalingLimited False DesiredWithinRange: the desired count is within the acceptable range
        update Deployment web
        event SuccessfulRescale New size: 5; reason: cpu resource utilization (percentage of request) above target
        # on target
        3 of 3 wanted
          metric Resource Some(50) 500m
          AbleToScale True ReadyForNewScale: recommended size matches current size
          ScalingActive True ValidMetricFound: the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)
          ScalingLimited False DesiredWithinRange: the desired count is within the acceptable range
        # down, as far as it may
        3 of 3 wanted
          metric Resource Some(50) 500m
          AbleToScale True ScaleDownStabilized: recent recommendations were higher than current one, applying the highest recent recommendation
          ScalingActive True ValidMetricFound: the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)
          ScalingLimited False DesiredWithinRange: the desired count is within the acceptable range
        # within a tolerance of its own
        3 of 3 wanted
          metric Resource Some(50) 500m
          AbleToScale True ReadyForNewScale: recommended size matches current size
          ScalingActive True ValidMetricFound: the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)
          ScalingLimited False DesiredWithinRange: the desired count is within the acceptable range
        # more memory
        3 of 5 wanted
          metric Resource None 150Mi
          AbleToScale True SucceededRescale: the HPA controller was able to update the target scale to 5
          ScalingActive True ValidMetricFound: the HPA was able to successfully calculate a replica count from memory resource
          ScalingLimited False DesiredWithinRange: the desired count is within the acceptable range
        update Deployment web
        event SuccessfulRescale New size: 5; reason: memory resource above target
        # none asked for
        0 of 0 wanted
          AbleToScale True SucceededGetScale: the HPA controller was able to get the target's current scale
          ScalingActive False ScalingDisabled: scaling is disabled since the replica count of the target is zero
        # above the maximum
        3 of 2 wanted
          AbleToScale True SucceededRescale: the HPA controller was able to update the target scale to 2
        update Deployment web
        event SuccessfulRescale New size: 2; reason: Current number of replicas above Spec.MaxReplicas
        # nothing measured
        3 of 0 wanted
          metric  
          AbleToScale True SucceededGetScale: the HPA controller was able to get the target's current scale
          ScalingActive False FailedGetResourceMetric: the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API
        event FailedGetResourceMetric failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API
        event FailedComputeMetricsReplicas invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API
        # no requests
        3 of 0 wanted
          metric  
          AbleToScale True SucceededGetScale: the HPA controller was able to get the target's current scale
          ScalingActive False FailedGetResourceMetric: the HPA was unable to compute the replica count: failed to get cpu utilization: missing request for cpu in container c of Pod web-a-1
        event FailedGetResourceMetric failed to get cpu utilization: missing request for cpu in container c of Pod web-a-1
        event FailedComputeMetricsReplicas invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: failed to get cpu utilization: missing request for cpu in container c of Pod web-a-1
        # nobody serves custom metrics
        3 of 0 wanted
          metric  
          AbleToScale True SucceededGetScale: the HPA controller was able to get the target's current scale
          ScalingActive False FailedGetPodsMetric: the HPA was unable to compute the replica count: unable to get metric requests: unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered
        event FailedGetPodsMetric unable to get metric requests: unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered
        event FailedComputeMetricsReplicas invalid metrics (1 invalid out of 1), first error is: failed to get pods metric value: unable to get metric requests: unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered
        # one of two metrics fails, the other asks for more
        3 of 5 wanted
          metric  
          metric Resource Some(50) 500m
          AbleToScale True SucceededRescale: the HPA controller was able to update the target scale to 5
          ScalingActive True ValidMetricFound: the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)
          ScalingLimited False DesiredWithinRange: the desired count is within the acceptable range
        update Deployment web
        event SuccessfulRescale New size: 5; reason: cpu resource utilization (percentage of request) above target
        event FailedGetExternalMetric unable to get external metric default/queue/nil: unable to fetch metrics from external metrics API: it is away
        # the target is gone
        0 of 0 wanted
          AbleToScale False FailedGetScale: the HPA controller was unable to get the target's current scale: deployments.apps "none" not found
        event FailedGetScale deployments.apps "none" not found
        # no such kind
        0 of 0 wanted
          AbleToScale False FailedGetScale: the HPA controller was unable to get the target's current scale: no matches for kind "Website" in group "apps"
        event FailedGetScale no matches for kind "Website" in group "apps"
    "##]].assert_eq(&table);
}

/// Metrics of the other APIs, as specs.
fn custom(kind: &str, target: Value) -> Value {
    let metric = json!({ "name": "requests", "selector": { "matchLabels": { "verb": "GET" } } });
    match kind {
        "Pods" => json!({ "type": "Pods", "pods": { "metric": metric, "target": target } }),
        "Object" => json!({ "type": "Object", "object": { "metric": metric, "target": target,
            "describedObject": { "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "main" } } }),
        _ => json!({ "type": "External", "external": { "metric": metric, "target": target } }),
    }
}

fn average(value: &str) -> Value {
    json!({ "type": "AverageValue", "averageValue": value })
}

fn whole(value: &str) -> Value {
    json!({ "type": "Value", "value": value })
}

/// Every type of metric, with and without an answer.
#[test]
fn metrics_of_other_apis() {
    let mut table = String::new();
    let mut case = |name: &str, metrics: Value, values: &dyn Fn(&Query) -> Result<Vec<api::metric::Value>, String>| {
        let mut world = three_pods();
        autoscaler(&mut world, json!({ "metrics": metrics }));
        answer(&mut world, values);
        write!(table, "# {name}\n{}", decided(&world)).unwrap();
    };
    let each =
        |milli: i64| move |_: &Query| told(&[("web-a-0", milli), ("web-a-1", milli), ("web-a-2", milli), ("other", 1)]);
    let one = |milli: i64| move |_: &Query| told(&[("main", milli)]);
    case("pods", json!([custom("Pods", average("10"))]), &each(15_500));
    case("pods of which one is not told of", json!([custom("Pods", average("10"))]), &|_| {
        told(&[("web-a-0", 9_000), ("web-a-1", 9_000)])
    });
    case("none of the pods is told of", json!([custom("Pods", average("10"))]), &|_| told(&[("other", 1)]));
    case("an object as a whole", json!([custom("Object", whole("10"))]), &one(20_000));
    case("an object, shared", json!([custom("Object", average("10"))]), &one(39_000));
    case("two values where there should be one", json!([custom("Object", average("10"))]), &|_| {
        told(&[("main", 1), ("main", 2)])
    });
    case("an object of which nothing is known", json!([custom("Object", whole("10"))]), &|_| {
        Err("unable to fetch metrics from custom metrics API: the server is currently unable to handle the request (get ingresses.networking.k8s.io.custom.metrics.k8s.io main)".into())
    });
    case("something outside as a whole", json!([custom("External", whole("10"))]), &|_| {
        told(&[("", 12_000), ("", 8_000)])
    });
    case("something outside, shared", json!([custom("External", average("10"))]), &one(39_000));
    case("nothing outside", json!([custom("External", average("10"))]), &|_| told(&[]));
    case(
        "the largest of all counts",
        json!([custom("Pods", average("10")), custom("Object", average("10")), custom("External", average("10"))]),
        &|query| match query.about {
            About::Pods(_) => told(&[("web-a-0", 5_000), ("web-a-1", 5_000), ("web-a-2", 5_000)]),
            About::Object { .. } => told(&[("main", 41_000)]),
            About::External => told(&[("", 10_000)]),
        },
    );
    case(
        "a failing one keeps from scaling down",
        json!([custom("Pods", average("10")), custom("External", average("10"))]),
        &|query| match query.about {
            About::External => Err("unable to fetch metrics from external metrics API: it is away".into()),
            _ => told(&[("web-a-0", 5_000), ("web-a-1", 5_000), ("web-a-2", 5_000)]),
        },
    );
    case(
        "a selector that is none",
        {
            let mut spec = custom("Pods", average("10"));
            spec["pods"]["metric"]["selector"] =
                json!({ "matchExpressions": [{ "key": "verb", "operator": "Likes" }] });
            json!([spec])
        },
        &each(1),
    );
    expect![[r##"
        # pods
        3 of 5 wanted
          metric Pods None 15500m
          AbleToScale True SucceededRescale: the HPA controller was able to update the target scale to 5
          ScalingActive True ValidMetricFound: the HPA was able to successfully calculate a replica count from pods metric requests
          ScalingLimited False DesiredWithinRange: the desired count is within the acceptable range
        update Deployment web
        event SuccessfulRescale New size: 5; reason: pods metric requests above target
        # pods of which one is not told of
        3 of 3 wanted
          metric Pods None 9
          AbleToScale True ReadyForNewScale: recommended size matches current size
          ScalingActive True ValidMetricFound: the HPA was able to successfully calculate a replica count from pods metric requests
          ScalingLimited False DesiredWithinRange: the desired count is within the acceptable range
        # none of the pods is told of
        3 of 0 wanted
          metric  
          AbleToScale True SucceededGetScale: the HPA controller was able to get the target's current scale
          ScalingActive False FailedGetPodsMetric: the HPA was unable to compute the replica count: did not receive metrics for targeted pods (pods might be unready)
        event FailedGetPodsMetric did not receive metrics for targeted pods (pods might be unready)
        event FailedComputeMetricsReplicas invalid metrics (1 invalid out of 1), first error is: failed to get pods metric value: did not receive metrics for targeted pods (pods might be unready)
        # an object as a whole
        3 of 6 wanted
          metric Object value 20
          AbleToScale True SucceededRescale: the HPA controller was able to update the target scale to 6
          ScalingActive True ValidMetricFound: the HPA was able to successfully calculate a replica count from Ingress metric requests
          ScalingLimited False DesiredWithinRange: the desired count is within the acceptable range
        update Deployment web
        event SuccessfulRescale New size: 6; reason: Ingress metric requests above target
        # an object, shared
        3 of 4 wanted
          metric Object None 13
          AbleToScale True SucceededRescale: the HPA controller was able to update the target scale to 4
          ScalingActive True ValidMetricFound: the HPA was able to successfully calculate a replica count from external metric requests(&LabelSelector{MatchLabels:map[string]string{verb: GET,},MatchExpressions:[]LabelSelectorRequirement{},})
          ScalingLimited False DesiredWithinRange: the desired count is within the acceptable range
        update Deployment web
        event SuccessfulRescale New size: 4; reason: external metric requests(&LabelSelector{MatchLabels:map[string]string{verb: GET,},MatchExpressions:[]LabelSelectorRequirement{},}) above target
        # two values where there should be one
        3 of 0 wanted
          metric  
          AbleToScale True SucceededGetScale: the HPA controller was able to get the target's current scale
          ScalingActive False FailedGetObjectMetric: the HPA was unable to compute the replica count: unable to get metric requests: unable to fetch metrics from custom metrics API: the custom metrics API server returned 2 results when we asked for exactly one on Ingress default/main
        event FailedGetObjectMetric unable to get metric requests: unable to fetch metrics from custom metrics API: the custom metrics API server returned 2 results when we asked for exactly one on Ingress default/main
        event FailedComputeMetricsReplicas invalid metrics (1 invalid out of 1), first error is: failed to get object metric value: failed to get requests object metric: unable to get metric requests: unable to fetch metrics from custom metrics API: the custom metrics API server returned 2 results when we asked for exactly one on Ingress default/main
        # an object of which nothing is known
        3 of 0 wanted
          metric  
          AbleToScale True SucceededGetScale: the HPA controller was able to get the target's current scale
          ScalingActive False FailedGetObjectMetric: the HPA was unable to compute the replica count: unable to get metric requests: unable to fetch metrics from custom metrics API: the server is currently unable to handle the request (get ingresses.networking.k8s.io.custom.metrics.k8s.io main) on Ingress default/main
        event FailedGetObjectMetric unable to get metric requests: unable to fetch metrics from custom metrics API: the server is currently unable to handle the request (get ingresses.networking.k8s.io.custom.metrics.k8s.io main) on Ingress default/main
        event FailedComputeMetricsReplicas invalid metrics (1 invalid out of 1), first error is: failed to get object metric value: unable to get metric requests: unable to fetch metrics from custom metrics API: the server is currently unable to handle the request (get ingresses.networking.k8s.io.custom.metrics.k8s.io main) on Ingress default/main
        # something outside as a whole
        3 of 6 wanted
          metric External value 20
          AbleToScale True SucceededRescale: the HPA controller was able to update the target scale to 6
          ScalingActive True ValidMetricFound: the HPA was able to successfully calculate a replica count from external metric requests(&LabelSelector{MatchLabels:map[string]string{verb: GET,},MatchExpressions:[]LabelSelectorRequirement{},})
          ScalingLimited False DesiredWithinRange: the desired count is within the acceptable range
        update Deployment web
        event SuccessfulRescale New size: 6; reason: external metric requests(&LabelSelector{MatchLabels:map[string]string{verb: GET,},MatchExpressions:[]LabelSelectorRequirement{},}) above target
        # something outside, shared
        3 of 4 wanted
          metric External None 13
          AbleToScale True SucceededRescale: the HPA controller was able to update the target scale to 4
          ScalingActive True ValidMetricFound: the HPA was able to successfully calculate a replica count from external metric requests(&LabelSelector{MatchLabels:map[string]string{verb: GET,},MatchExpressions:[]LabelSelectorRequirement{},})
          ScalingLimited False DesiredWithinRange: the desired count is within the acceptable range
        update Deployment web
        event SuccessfulRescale New size: 4; reason: external metric requests(&LabelSelector{MatchLabels:map[string]string{verb: GET,},MatchExpressions:[]LabelSelectorRequirement{},}) above target
        # nothing outside
        3 of 0 wanted
          metric  
          AbleToScale True SucceededGetScale: the HPA controller was able to get the target's current scale
          ScalingActive False FailedGetExternalMetric: the HPA was unable to compute the replica count: unable to get external metric default/requests/&LabelSelector{MatchLabels:map[string]string{verb: GET,},MatchExpressions:[]LabelSelectorRequirement{},}: no metrics returned from external metrics API
        event FailedGetExternalMetric unable to get external metric default/requests/&LabelSelector{MatchLabels:map[string]string{verb: GET,},MatchExpressions:[]LabelSelectorRequirement{},}: no metrics returned from external metrics API
        event FailedComputeMetricsReplicas invalid metrics (1 invalid out of 1), first error is: failed to get requests external metric value: failed to get requests external metric: unable to get external metric default/requests/&LabelSelector{MatchLabels:map[string]string{verb: GET,},MatchExpressions:[]LabelSelectorRequirement{},}: no metrics returned from external metrics API
        # the largest of all counts
        3 of 5 wanted
          metric Pods None 5
          metric Object None 13667m
          metric External None 3334m
          AbleToScale True SucceededRescale: the HPA controller was able to update the target scale to 5
          ScalingActive True ValidMetricFound: the HPA was able to successfully calculate a replica count from external metric requests(&LabelSelector{MatchLabels:map[string]string{verb: GET,},MatchExpressions:[]LabelSelectorRequirement{},})
          ScalingLimited False DesiredWithinRange: the desired count is within the acceptable range
        update Deployment web
        event SuccessfulRescale New size: 5; reason: external metric requests(&LabelSelector{MatchLabels:map[string]string{verb: GET,},MatchExpressions:[]LabelSelectorRequirement{},}) above target
        # a failing one keeps from scaling down
        3 of 0 wanted
          metric Pods None 5
          metric  
          AbleToScale True SucceededGetScale: the HPA controller was able to get the target's current scale
          ScalingActive False FailedGetExternalMetric: the HPA was unable to compute the replica count: unable to get external metric default/requests/&LabelSelector{MatchLabels:map[string]string{verb: GET,},MatchExpressions:[]LabelSelectorRequirement{},}: unable to fetch metrics from external metrics API: it is away
        event FailedGetExternalMetric unable to get external metric default/requests/&LabelSelector{MatchLabels:map[string]string{verb: GET,},MatchExpressions:[]LabelSelectorRequirement{},}: unable to fetch metrics from external metrics API: it is away
        event FailedComputeMetricsReplicas invalid metrics (1 invalid out of 2), first error is: failed to get requests external metric value: failed to get requests external metric: unable to get external metric default/requests/&LabelSelector{MatchLabels:map[string]string{verb: GET,},MatchExpressions:[]LabelSelectorRequirement{},}: unable to fetch metrics from external metrics API: it is away
        # a selector that is none
        3 of 0 wanted
          metric  
          AbleToScale True SucceededGetScale: the HPA controller was able to get the target's current scale
          ScalingActive False FailedGetPodsMetric: the HPA was unable to compute the replica count: "Likes" is not a valid label selector operator
        event FailedGetPodsMetric "Likes" is not a valid label selector operator
        event FailedComputeMetricsReplicas invalid metrics (1 invalid out of 1), first error is: failed to get pods metric value: "Likes" is not a valid label selector operator
    "##]].assert_eq(&table);
}

/// The questions are those of all autoscalers, each once.
#[test]
fn what_is_asked() {
    let mut world = three_pods();
    let all = json!([
        custom("Pods", average("10")),
        custom("Object", whole("10")),
        custom("External", whole("1")),
        custom("External", whole("2"))
    ]);
    autoscaler(&mut world, json!({ "metrics": all }));
    let asked: String = super::queries(&world.snapshot).iter().map(|query| format!("{query:?}\n")).collect();
    expect![[r#"
        Query { namespace: "default", metric: "requests", selector: "verb=GET", about: Pods("app=web") }
        Query { namespace: "default", metric: "requests", selector: "verb=GET", about: Object { group: "networking.k8s.io", kind: "Ingress", name: "main" } }
        Query { namespace: "default", metric: "requests", selector: "verb=GET", about: External }
    "#]].assert_eq(&asked);
}

/// An answer from before the last scaling tells of other replicas; and none is no reason to say that there is none.
#[test]
fn an_answer_is_waited_for() {
    let mut world = three_pods();
    autoscaler(&mut world, json!({ "metrics": [custom("External", whole("10"))] }));
    let mut story = String::new();
    let mut step = |world: &mut World, what: &str| {
        world.settle();
        let replicas = world.snapshot.get::<Deployment>("default", "web").unwrap().spec.as_ref().unwrap().replicas;
        let plan = world.plan(Controller::HorizontalPodAutoscaler, Kind::HorizontalPodAutoscaler, "web");
        writeln!(story, "{what}: {} replicas; {}", replicas.unwrap(), plan.why.join("; ")).unwrap();
    };
    step(&mut world, "not asked yet");
    answer(&mut world, &|_| told(&[("", 20_000)]));
    step(&mut world, "told, but not looked at");
    world.advance(1);
    step(&mut world, "a second later");
    world.run_nodes();
    world.advance(14);
    step(&mut world, "the answer is still the same one");
    answer(&mut world, &|_| told(&[("", 10_000)]));
    world.advance(1);
    step(&mut world, "asked again");
    world.advance(100);
    step(&mut world, "nobody asks any more");
    expect![[r#"
        not asked yet: 3 replicas; metric requests has not been asked for yet
        told, but not looked at: 3 replicas; external metric requests(&LabelSelector{MatchLabels:map[string]string{verb: GET,},MatchExpressions:[]LabelSelectorRequirement{},}) asks for 6 replicas; 6 it shall be: the desired count is within the acceptable range
        a second later: 6 replicas; metric requests is not known since the last scaling
        the answer is still the same one: 6 replicas; metric requests is not known since the last scaling
        asked again: 6 replicas; external metric requests(&LabelSelector{MatchLabels:map[string]string{verb: GET,},MatchExpressions:[]LabelSelectorRequirement{},}) asks for 6 replicas; 6 it shall be: the desired count is within the acceptable range
        nobody asks any more: 6 replicas; metric requests has not been asked for yet
    "#]].assert_eq(&story);
}

#[test]
fn a_refused_scale_is_told_and_tried_again() {
    let mut world = three_pods();
    autoscaler(&mut world, json!({ "metrics": utilization(30) }));
    report(&mut world, |_| Some((500, 0)));
    let refusal = Refusal::forbidden(Kind::Deployment, "web", "exceeded quota");
    world.refuse(Controller::HorizontalPodAutoscaler, Kind::HorizontalPodAutoscaler, "web", refusal);
    expect![[r#"
        3 of 0 wanted
          metric Resource Some(50) 500m
          AbleToScale False FailedUpdateScale: the HPA controller was unable to update the target scale: deployments.apps "web" is forbidden: exceeded quota
          ScalingActive True ValidMetricFound: the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)
          ScalingLimited False DesiredWithinRange: the desired count is within the acceptable range
        update Deployment web
        event FailedRescale New size: 5; reason: cpu resource utilization (percentage of request) above target; error: deployments.apps "web" is forbidden: exceeded quota
    "#]].assert_eq(&decided(&world));
}

/// Plays steps of 15 seconds, in each of which so much work is shared by the ready pods.
fn play(world: &mut World, work: &[(usize, u64)]) -> String {
    let mut text = String::new();
    let begin = world.now;
    for (steps, total) in work {
        for _ in 0..*steps {
            share(world, *total);
            world.advance(15);
            world.settle();
            world.run_nodes();
            world.settle();
            let spec = current(world);
            let replicas = spec.status.as_ref().map_or(0, |status| status.desired_replicas);
            let passed = world.now.duration_since(begin).as_secs();
            writeln!(text, "{passed} s: work {total}, {replicas} replicas").unwrap();
        }
    }
    // Only what differs from the line before.
    let told = |line: &str| line.split_once(": ").unwrap().1.to_owned();
    let mut last = String::new();
    text.lines()
        .filter(|line| std::mem::replace(&mut last, told(line)) != told(line))
        .map(|it| format!("{it}\n"))
        .collect()
}

fn rested(spec: Value) -> World {
    let mut world = World::read("deploy web 3\nrs web-a 3 image v1");
    world.wake_all();
    world.settle();
    autoscaler(&mut world, spec);
    world
}

#[test]
fn it_grows_at_once_and_shrinks_after_five_calm_minutes() {
    let mut world = rested(json!({ "metrics": memory(100) }));
    let story = play(&mut world, &[(4, 300), (6, 900), (30, 300)]);
    expect![[r#"
        15 s: work 300, 3 replicas
        75 s: work 900, 6 replicas
        90 s: work 900, 9 replicas
        165 s: work 300, 9 replicas
        465 s: work 300, 3 replicas
    "#]]
    .assert_eq(&story);
}

#[test]
fn behaviour_bounds_how_fast() {
    let slow = json!({
        "scaleUp": { "policies": [{ "type": "Pods", "value": 2, "periodSeconds": 60 }] },
        "scaleDown": { "stabilizationWindowSeconds": 30, "selectPolicy": "Min",
            "policies": [{ "type": "Percent", "value": 50, "periodSeconds": 60 }, { "type": "Pods", "value": 1, "periodSeconds": 30 }] },
    });
    let mut world = rested(json!({ "metrics": memory(100), "behavior": slow }));
    let story = play(&mut world, &[(2, 300), (16, 900), (16, 300)]);
    expect![[r#"
        15 s: work 300, 3 replicas
        45 s: work 900, 5 replicas
        105 s: work 900, 7 replicas
        165 s: work 900, 9 replicas
        285 s: work 300, 9 replicas
        315 s: work 300, 8 replicas
        345 s: work 300, 7 replicas
        375 s: work 300, 6 replicas
        405 s: work 300, 5 replicas
        435 s: work 300, 4 replicas
        465 s: work 300, 3 replicas
    "#]]
    .assert_eq(&story);
    let mut world = rested(
        json!({ "metrics": memory(100), "behavior": { "scaleUp": { "stabilizationWindowSeconds": 60 }, "scaleDown": { "selectPolicy": "Disabled" } } }),
    );
    let story = play(&mut world, &[(2, 300), (2, 900), (1, 500), (10, 900), (30, 100)]);
    expect![[r#"
        15 s: work 300, 3 replicas
        45 s: work 900, 3 replicas
        75 s: work 500, 3 replicas
        90 s: work 900, 3 replicas
        105 s: work 900, 5 replicas
        150 s: work 900, 9 replicas
        240 s: work 100, 9 replicas
    "#]]
    .assert_eq(&story);
}

/// As below, by a metric of pods: each has its share of the work, or an amount of its own also while it starts.
#[test]
fn a_rollout_does_not_raise_the_number_by_other_metrics() {
    for shared in [true, false] {
        let mut world = World::read("deploy web 8 surge 50% unavailable 0\nrs web-a 8 image v1");
        world.wake_all();
        world.settle();
        let metrics = json!([custom("Pods", average("100")), custom("Object", whole("100"))]);
        autoscaler(&mut world, json!({ "maxReplicas": 100, "metrics": metrics }));
        for round in 0..6 {
            world.user_changes("web", |deployment| {
                deployment.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image =
                    Some(format!("v{round}"));
            });
            for _ in 0..8 {
                world.settle();
                let all: Vec<Pod> = world.snapshot.list::<Pod>(None).cloned().collect();
                let ready = all.iter().filter(|pod| pods::is_active(pod) && pods::is_ready(pod)).count() as i64;
                let each = if shared { 800_000 / ready.max(1) } else { 100_000 };
                let of = |pod: &Pod| if shared && !pods::is_ready(pod) { 0 } else { each };
                let values: Vec<(&str, i64)> = all.iter().map(|pod| (pods::name(pod), of(pod))).collect();
                answer(&mut world, &|query| match query.about {
                    About::Pods(_) => told(&values),
                    _ => told(&[("main", 100_000)]),
                });
                world.advance(15);
                world.settle();
                world.run_nodes();
                let replicas =
                    world.snapshot.get::<Deployment>("default", "web").unwrap().spec.as_ref().unwrap().replicas;
                assert_eq!(replicas, Some(8), "round {round}, shared {shared}: {}", status(&current(&world)));
            }
        }
    }
}

/// kubernetes#72775 and #84142: 383 replicas became 664 while they rolled.
#[test]
fn a_rollout_does_not_raise_the_number() {
    let mut world = World::read("deploy web 8 surge 50% unavailable 0\nrs web-a 8 image v1");
    world.wake_all();
    world.settle();
    autoscaler(&mut world, json!({ "maxReplicas": 100, "metrics": memory(100) }));
    let mut highest = play(&mut world, &[(2, 800)]);
    for round in 0..10 {
        world.user_changes("web", |deployment| {
            deployment.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image =
                Some(format!("v{round}"));
        });
        world.settle();
        // The rollout takes several rounds of the nodes; every one of them is looked at.
        highest += &play(&mut world, &[(4, 800)]);
    }
    assert!(highest.lines().all(|line| line.ends_with(" 8 replicas")), "{highest}");
    play(&mut world, &[(20, 800)]);
    let steady = world.snapshot.revision();
    play(&mut world, &[(4, 800)]);
    assert_eq!(world.snapshot.revision(), steady, "it writes nothing when nothing changes");
}

/// Cpu counts once it was measured of a ready pod, for however long its node has been measured.
#[test]
fn what_is_measured_since_a_pod_is_ready_counts() {
    let mut table = String::new();
    for window_ms in [None, Some(10_000), Some(5_000)] {
        let mut world = three_pods();
        autoscaler(&mut world, json!({ "metrics": utilization(30) }));
        let ago = |seconds: i64| Time(world.now.checked_sub(SignedDuration::from_secs(seconds)).unwrap());
        let (started, ready) = (ago(60), ago(7));
        for name in world.pods() {
            world.change_pod(&name, |pod| {
                let status = pod.status.get_or_insert_default();
                status.start_time = Some(started.clone());
                let conditions = status.conditions.iter_mut().flatten();
                conditions.for_each(|it| it.last_transition_time = Some(ready.clone()));
            });
        }
        report_of(&mut world, window_ms, |_| Some((500, 0)));
        let event = decided(&world).lines().find(|it| it.starts_with("event")).unwrap_or_default().to_owned();
        writeln!(table, "{window_ms:?}: {event}").unwrap();
    }
    expect![[r#"
        None: event FailedGetResourceMetric failed to get cpu utilization: did not receive metrics for targeted pods (pods might be unready)
        Some(10000): event FailedGetResourceMetric failed to get cpu utilization: did not receive metrics for targeted pods (pods might be unready)
        Some(5000): event SuccessfulRescale New size: 5; reason: cpu resource utilization (percentage of request) above target
    "#]].assert_eq(&table);
}

/// Another autoscaler like `web`, of another target.
fn rival(world: &mut World, version: &str, kind: &str, name: &str) {
    let mut other = current(world);
    other.metadata.name = Some("other".into());
    other.metadata.uid = Some("uid-other".into());
    let target = &mut other.spec.scale_target_ref;
    (target.api_version, target.kind, target.name) = (Some(version.into()), kind.into(), name.into());
    world.store(Kind::HorizontalPodAutoscaler, other.into_body().to_value());
}

#[test]
fn two_autoscalers_of_the_same_pods_do_nothing() {
    for (kind, name) in [("Deployment", "web"), ("ReplicaSet", "web-a")] {
        let mut world = three_pods();
        autoscaler(&mut world, json!({ "metrics": utilization(30) }));
        rival(&mut world, "apps/v1", kind, name);
        report(&mut world, |_| Some((500, 0)));
        expect![[r#"
            3 of 0 wanted
              AbleToScale True SucceededGetScale: the HPA controller was able to get the target's current scale
              ScalingActive False AmbiguousSelector: pods by selector app=web are controlled by multiple HPAs: [default/other default/web]
            event AmbiguousSelector pods by selector app=web are controlled by multiple HPAs: [default/other default/web]
            event FailedComputeMetricsReplicas pods by selector app=web are controlled by multiple HPAs: [default/other default/web]
        "#]].assert_eq(&decided(&world));
    }
}

/// A failure that stays is told once, of each metric that fails, also where the others suffice.
#[test]
fn failures_are_told_once() {
    let mut world = three_pods();
    let metrics = json!([custom("External", whole("10")), utilization(48)[0], custom("Pods", average("10"))]);
    autoscaler(&mut world, json!({ "metrics": metrics }));
    let mut story = String::new();
    for away in [true, true, false, true] {
        report(&mut world, |_| Some((500, 0)));
        answer(&mut world, &|query| match query.about {
            About::External if away => Err("unable to fetch metrics from external metrics API: it is away".into()),
            About::External => told(&[("", 5_000)]),
            _ => Err(format!("unable to fetch metrics from custom metrics API: {NO_CUSTOM}")),
        });
        let decided = decided(&world);
        let events: String =
            decided.lines().filter(|it| it.starts_with("event")).map(|it| format!("  {it}\n")).collect();
        writeln!(story, "away: {away}").unwrap();
        story += &events;
        world.advance(15);
        world.settle();
        world.advance(1);
    }
    expect![[r#"
        away: true
          event FailedGetExternalMetric unable to get external metric default/requests/&LabelSelector{MatchLabels:map[string]string{verb: GET,},MatchExpressions:[]LabelSelectorRequirement{},}: unable to fetch metrics from external metrics API: it is away
          event FailedGetPodsMetric unable to get metric requests: unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered
        away: true
        away: false
        away: true
          event FailedGetExternalMetric unable to get external metric default/requests/&LabelSelector{MatchLabels:map[string]string{verb: GET,},MatchExpressions:[]LabelSelectorRequirement{},}: unable to fetch metrics from external metrics API: it is away
    "#]].assert_eq(&story);
}

/// What the nodes report is waited for; the bounds hold meanwhile, and what is wrong beside it is told.
#[test]
fn after_a_restart_it_waits_for_the_first_report() {
    let mut table = String::new();
    let mut case = |name: &str, change: &dyn Fn(&mut World)| {
        let mut world = three_pods();
        autoscaler(&mut world, json!({ "minReplicas": 2, "maxReplicas": 5, "metrics": utilization(30) }));
        report(&mut world, |_| Some((300, 0)));
        world.settle();
        change(&mut world);
        world.usage = api::Usage::default();
        let plan = world.plan(Controller::HorizontalPodAutoscaler, Kind::HorizontalPodAutoscaler, "web");
        write!(
            table,
            "# {name}\n{}{}",
            decided(&world),
            show(&Plan { writes: Vec::new(), events: Vec::new(), ..plan })
        )
        .unwrap();
    };
    let scale = |world: &mut World, replicas: i32| {
        world.user_changes("web", |deployment| deployment.spec.as_mut().unwrap().replicas = Some(replicas));
    };
    case("within the bounds", &|_| {});
    case("above the maximum", &|world| scale(world, 8));
    case("below the minimum", &|world| scale(world, 1));
    case("none asked for", &|world| scale(world, 0));
    case("two autoscalers", &|world| rival(world, "apps/v1", "Deployment", "web"));
    expect![[r#"
        # within the bounds
        why no node has reported yet what its pods use
        wake at 2026-01-01T12:00:15Z
        # above the maximum
        8 of 5 wanted
          AbleToScale True SucceededRescale: the HPA controller was able to update the target scale to 5
          ScalingActive True ValidMetricFound: the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)
          ScalingLimited False DesiredWithinRange: the desired count is within the acceptable range
        update Deployment web
        event SuccessfulRescale New size: 5; reason: Current number of replicas above Spec.MaxReplicas
        wake at 2026-01-01T12:00:15Z
        # below the minimum
        1 of 2 wanted
          AbleToScale True SucceededRescale: the HPA controller was able to update the target scale to 2
          ScalingActive True ValidMetricFound: the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)
          ScalingLimited False DesiredWithinRange: the desired count is within the acceptable range
        update Deployment web
        event SuccessfulRescale New size: 2; reason: Current number of replicas below Spec.MinReplicas
        wake at 2026-01-01T12:00:15Z
        # none asked for
        0 of 0 wanted
          AbleToScale True SucceededGetScale: the HPA controller was able to get the target's current scale
          ScalingActive False ScalingDisabled: scaling is disabled since the replica count of the target is zero
          ScalingLimited False DesiredWithinRange: the desired count is within the acceptable range
        wake at 2026-01-01T12:00:15Z
        # two autoscalers
        3 of 3 wanted
          AbleToScale True SucceededGetScale: the HPA controller was able to get the target's current scale
          ScalingActive False AmbiguousSelector: pods by selector app=web are controlled by multiple HPAs: [default/other default/web]
          ScalingLimited False DesiredWithinRange: the desired count is within the acceptable range
        event AmbiguousSelector pods by selector app=web are controlled by multiple HPAs: [default/other default/web]
        event FailedComputeMetricsReplicas pods by selector app=web are controlled by multiple HPAs: [default/other default/web]
        why pods by selector app=web are controlled by multiple HPAs: [default/other default/web]
        wake at 2026-01-01T12:00:15Z
    "#]].assert_eq(&table);
}
