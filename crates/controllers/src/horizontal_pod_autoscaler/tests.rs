use std::fmt::Write as _;

use api::usage::{ContainerUsage, NodeUsage, PodUsage, Report, Used};
use api::{Context, Kind, Plan, Pod, Refusal, Typed};
use expect_test::expect;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::{Value, json};

use super::reconcile;
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
    let all = world.snapshot.list::<Pod>(None).filter_map(|pod| {
        let (cpu_milli, mebibytes) = used(pod)?;
        let used = Used { cpu_nano: cpu_milli * 1_000_000, memory_bytes: mebibytes << 20 };
        let uid = pod.metadata.uid.clone()?;
        Some(PodUsage { uid, containers: vec![ContainerUsage { name: "c".into(), used }] })
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
        let now = now.map(|it| format!("{:?} {}", it.average_utilization, it.average_value.unwrap().0));
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

/// Three ready pods that request a core each, for hours.
fn three_pods() -> World {
    let mut world = World::read("deploy web 3\nrs web-a 3 image v1");
    for name in world.pods() {
        let long_ago = world.now.checked_sub(SignedDuration::from_hours(5)).unwrap();
        world.change_pod(&name, |pod| {
            let requests = json!({ "requests": { "cpu": "1" } });
            pod.spec.as_mut().unwrap().containers[0].resources = serde_json::from_value(requests).unwrap();
            pod.status.get_or_insert_default().start_time =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(long_ago));
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
    case("above the maximum", json!({ "maxReplicas": 2, "metrics": utilization(50) }), &busy);
    case("nothing measured", json!({ "metrics": utilization(50) }), &|_| {});
    case("no requests", json!({ "metrics": utilization(50) }), &|world| {
        busy(world);
        world.change_pod("web-a-1", |pod| pod.spec.as_mut().unwrap().containers[0].resources = None);
    });
    let own = json!([{ "type": "Pods", "pods": { "metric": { "name": "requests" }, "target": { "type": "AverageValue", "averageValue": "10" } } }]);
    case("nobody serves custom metrics", json!({ "metrics": own }), &busy);
    let queue = json!([
        { "type": "External", "external": { "metric": { "name": "queue" }, "target": { "type": "Value", "value": "10" } } },
        utilization(30)[0],
    ]);
    case("one of two metrics fails, the other asks for more", json!({ "metrics": queue }), &busy);
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

#[test]
fn two_autoscalers_of_one_target_do_nothing() {
    let mut world = three_pods();
    autoscaler(&mut world, json!({ "metrics": utilization(30) }));
    let mut other = current(&world);
    other.metadata.name = Some("other".into());
    other.metadata.uid = Some("uid-other".into());
    world.store(Kind::HorizontalPodAutoscaler, other.into_body().to_value());
    report(&mut world, |_| Some((500, 0)));
    expect![[r#"
        3 of 0 wanted
          AbleToScale True SucceededGetScale: the HPA controller was able to get the target's current scale
          ScalingActive False AmbiguousSelector: pods of Deployment web are controlled by multiple HPAs: [default/other default/web]
        event AmbiguousSelector pods of Deployment web are controlled by multiple HPAs: [default/other default/web]
    "#]].assert_eq(&decided(&world));
}

#[test]
fn after_a_restart_it_waits_for_the_first_report() {
    let mut world = three_pods();
    autoscaler(&mut world, json!({ "metrics": utilization(30) }));
    report(&mut world, |_| Some((300, 0)));
    world.settle();
    let (now, key): (Timestamp, _) = (world.now, api::Key::new(Kind::HorizontalPodAutoscaler, "default", "web"));
    let (usage, heard) = (api::Usage::default(), api::Heard::default());
    let context = Context { now, refused: None, usage: &usage, heard: &heard };
    let plan = reconcile(&key, &world.snapshot, &context);
    expect![[r#"
        why no node has reported yet what its pods use
        wake at 2026-01-01T12:00:15Z
    "#]]
    .assert_eq(&show(&plan));
}
