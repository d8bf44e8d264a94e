//! `describe` of everything that makes pods.

use serde_json::Value;

use super::page::{Page, selector, truth};
use super::pod_counts;
use crate::client::Client;
use crate::errors::Result;
use crate::json::{Json, scalar};
use crate::time;
use crate::verbs::rollout::revisions::same_template;

const REVISION: &str = "deployment.kubernetes.io/revision";

fn map_selector(map: &Value) -> String {
    crate::print::table::label_text(map)
}

pub(super) async fn deployment(client: &Client, page: &mut Page, object: &Value) -> Result<()> {
    let (meta, spec, status) = (object.at("metadata"), object.at("spec"), object.at("status"));
    page.field("Name", meta.text("name"));
    page.field("Namespace", meta.text("namespace"));
    page.field("CreationTimestamp", time::long(meta.text("creationTimestamp")));
    page.pairs("Labels", meta.at("labels"));
    page.annotations("Annotations", meta.at("annotations"));
    page.field("Selector", selector(spec.at("selector")));
    page.field(
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            spec.number("replicas"),
            status.number("updatedReplicas"),
            status.number("replicas"),
            status.number("availableReplicas"),
            status.number("unavailableReplicas")
        ),
    );
    page.field("StrategyType", spec.text("strategy.type"));
    page.field("MinReadySeconds", spec.number("minReadySeconds").to_string());
    if spec.has("strategy.rollingUpdate") {
        let rolling = spec.at("strategy.rollingUpdate");
        let (unavailable, surge) = (scalar(rolling.at("maxUnavailable")), scalar(rolling.at("maxSurge")));
        page.field("RollingUpdateStrategy", format!("{unavailable} max unavailable, {surge} max surge"));
    }
    page.template(spec.at("template"));
    page.conditions(status.list("conditions"));
    let path = format!("/apis/apps/v1/namespaces/{}/replicasets", meta.text("namespace"));
    let list = client.get(&path, &[("labelSelector", selector(spec.at("selector")))]).await?;
    let uid = meta.text("uid");
    let owned = list.list("items").iter().filter(|set| {
        set.list("metadata.ownerReferences").iter().any(|owner| owner.flag("controller") && owner.text("uid") == uid)
    });
    let revision = |set: &Value| set.map("metadata.annotations").get(REVISION).map(scalar).unwrap_or_default();
    let mut owned: Vec<&Value> = owned.collect();
    owned.sort_by_key(|set| set.text("metadata.creationTimestamp"));
    // A paused Deployment may have a template that no set has yet.
    let wanted = spec.at("template");
    let newest = owned.iter().position(|set| same_template(set.at("spec.template"), wanted));
    let new: Vec<&Value> = newest.map(|index| owned.remove(index)).into_iter().collect();
    let mut old = owned;
    old.sort_by_key(|set| revision(set).parse::<i64>().unwrap_or(0));
    let text = |sets: &[&Value]| {
        let texts: Vec<String> = sets
            .iter()
            .map(|set| {
                let (name, is, wanted) =
                    (set.text("metadata.name"), set.number("status.replicas"), set.number("spec.replicas"));
                format!("{name} ({is}/{wanted} replicas created)")
            })
            .collect();
        if texts.is_empty() { "<none>".to_owned() } else { texts.join(", ") }
    };
    page.field("OldReplicaSets", text(&old));
    page.field("NewReplicaSet", text(&new));
    Ok(())
}

pub(super) async fn replica_set(client: &Client, page: &mut Page, object: &Value) -> Result<()> {
    let (meta, spec, status) = (object.at("metadata"), object.at("spec"), object.at("status"));
    page.field("Name", meta.text("name"));
    page.field("Namespace", meta.text("namespace"));
    page.field("Selector", selector(spec.at("selector")));
    page.pairs("Labels", meta.at("labels"));
    page.annotations("Annotations", meta.at("annotations"));
    page.controlled_by(object);
    page.field("Replicas", format!("{} current / {} desired", status.number("replicas"), spec.number("replicas")));
    page.field("Pods Status", pod_counts(client, object, &selector(spec.at("selector"))).await?);
    page.template(spec.at("template"));
    page.conditions(status.list("conditions"));
    Ok(())
}

pub(super) async fn replication_controller(client: &Client, page: &mut Page, object: &Value) -> Result<()> {
    let (meta, spec, status) = (object.at("metadata"), object.at("spec"), object.at("status"));
    page.field("Name", meta.text("name"));
    page.field("Namespace", meta.text("namespace"));
    page.field("Selector", map_selector(spec.at("selector")));
    page.pairs("Labels", meta.at("labels"));
    page.annotations("Annotations", meta.at("annotations"));
    page.field("Replicas", format!("{} current / {} desired", status.number("replicas"), spec.number("replicas")));
    page.field("Pods Status", pod_counts(client, object, &map_selector(spec.at("selector"))).await?);
    page.template(spec.at("template"));
    page.conditions(status.list("conditions"));
    Ok(())
}

pub(super) async fn daemon_set(client: &Client, page: &mut Page, object: &Value) -> Result<()> {
    let (meta, spec, status) = (object.at("metadata"), object.at("spec"), object.at("status"));
    page.field("Name", meta.text("name"));
    page.field("Selector", selector(spec.at("selector")));
    page.field("Node-Selector", map_selector(spec.at("template.spec.nodeSelector")));
    page.pairs("Labels", meta.at("labels"));
    page.annotations("Annotations", meta.at("annotations"));
    for (name, field) in [
        ("Desired Number of Nodes Scheduled", "desiredNumberScheduled"),
        ("Current Number of Nodes Scheduled", "currentNumberScheduled"),
        ("Number of Nodes Scheduled with Up-to-date Pods", "updatedNumberScheduled"),
        ("Number of Nodes Scheduled with Available Pods", "numberAvailable"),
        ("Number of Nodes Misscheduled", "numberMisscheduled"),
    ] {
        page.line(0, format!("{name}: {}", status.number(field)));
    }
    page.field("Pods Status", pod_counts(client, object, &selector(spec.at("selector"))).await?);
    page.template(spec.at("template"));
    Ok(())
}

pub(super) async fn stateful_set(client: &Client, page: &mut Page, object: &Value) -> Result<()> {
    let (meta, spec, status) = (object.at("metadata"), object.at("spec"), object.at("status"));
    page.field("Name", meta.text("name"));
    page.field("Namespace", meta.text("namespace"));
    page.field("CreationTimestamp", time::long(meta.text("creationTimestamp")));
    page.field("Selector", selector(spec.at("selector")));
    page.pairs("Labels", meta.at("labels"));
    page.annotations("Annotations", meta.at("annotations"));
    page.field("Replicas", format!("{} desired | {} total", spec.number("replicas"), status.number("replicas")));
    page.field("Update Strategy", spec.text("updateStrategy.type"));
    if spec.has("updateStrategy.rollingUpdate.partition") {
        page.line(1, format!("Partition:\t{}", spec.number("updateStrategy.rollingUpdate.partition")));
        if spec.has("updateStrategy.rollingUpdate.maxUnavailable") {
            let most = scalar(spec.at("updateStrategy.rollingUpdate.maxUnavailable"));
            page.line(1, format!("MaxUnavailable:\t{most}"));
        }
    }
    page.field("Pods Status", pod_counts(client, object, &selector(spec.at("selector"))).await?);
    page.template(spec.at("template"));
    claims(page, spec.list("volumeClaimTemplates"));
    Ok(())
}

fn claims(page: &mut Page, templates: &[Value]) {
    if templates.is_empty() {
        return page.field("Volume Claims", "<none>");
    }
    page.line(0, "Volume Claims:");
    for claim in templates {
        page.line(1, format!("Name:\t{}", claim.text("metadata.name")));
        page.line(1, format!("StorageClass:\t{}", claim.text("spec.storageClassName")));
        page.pairs("  Labels", claim.at("metadata.labels"));
        page.pairs("  Annotations", claim.at("metadata.annotations"));
        let size = claim.map("spec.resources.requests").get("storage").map(scalar);
        page.line(1, format!("Capacity:\t{}", size.unwrap_or_else(|| "<default>".into())));
        let modes = claim.list("spec.accessModes").iter().map(scalar).collect::<Vec<_>>().join(" ");
        page.line(1, format!("Access Modes:\t[{modes}]"));
    }
}

pub(super) fn job(page: &mut Page, object: &Value) {
    let (meta, spec, status) = (object.at("metadata"), object.at("spec"), object.at("status"));
    page.field("Name", meta.text("name"));
    page.field("Namespace", meta.text("namespace"));
    if spec.has("selector") {
        page.field("Selector", selector(spec.at("selector")));
    }
    page.pairs("Labels", meta.at("labels"));
    page.annotations("Annotations", meta.at("annotations"));
    page.controlled_by(object);
    if spec.has("parallelism") {
        page.field("Parallelism", spec.number("parallelism").to_string());
    }
    let completions = spec.at("completions");
    page.field("Completions", if completions.is_null() { "<unset>".into() } else { scalar(completions) });
    if spec.has("completionMode") {
        page.field("Completion Mode", spec.text("completionMode"));
    }
    if spec.has("suspend") {
        page.field("Suspend", spec.flag("suspend").to_string());
    }
    if spec.has("backoffLimit") {
        page.field("Backoff Limit", spec.number("backoffLimit").to_string());
    }
    if spec.has("ttlSecondsAfterFinished") {
        page.field("TTL Seconds After Finished", spec.number("ttlSecondsAfterFinished").to_string());
    }
    if status.has("startTime") {
        page.field("Start Time", time::long(status.text("startTime")));
    }
    if status.has("completionTime") {
        page.field("Completed At", time::long(status.text("completionTime")));
    }
    if let (Ok(start), Ok(end)) =
        (status.text("startTime").parse::<jiff::Timestamp>(), status.text("completionTime").parse::<jiff::Timestamp>())
    {
        page.field("Duration", time::human(end.as_second() - start.as_second()));
    }
    if spec.has("activeDeadlineSeconds") {
        page.field("Active Deadline Seconds", format!("{}s", spec.number("activeDeadlineSeconds")));
    }
    let (active, succeeded, failed) = (status.number("active"), status.number("succeeded"), status.number("failed"));
    let ready = if status.has("ready") { format!(" ({} Ready)", status.number("ready")) } else { String::new() };
    page.field("Pods Statuses", format!("{active} Active{ready} / {succeeded} Succeeded / {failed} Failed"));
    if spec.text("completionMode") == "Indexed" {
        let done = status.text("completedIndexes");
        page.field("Completed Indexes", if done.is_empty() { "<none>" } else { done });
    }
    page.template(spec.at("template"));
}

pub(super) fn cron_job(page: &mut Page, object: &Value) {
    let (spec, status) = (object.at("spec"), object.at("status"));
    page.start(object);
    page.field("Schedule", spec.text("schedule"));
    if spec.has("timeZone") {
        page.field("Time Zone", spec.text("timeZone"));
    }
    page.field("Concurrency Policy", spec.text("concurrencyPolicy"));
    page.field("Suspend", truth(spec.flag("suspend")));
    let or_unset = |value: &Value| if value.is_null() { "<unset>".to_owned() } else { scalar(value) };
    page.field("Successful Job History Limit", or_unset(spec.at("successfulJobsHistoryLimit")));
    page.field("Failed Job History Limit", or_unset(spec.at("failedJobsHistoryLimit")));
    let deadline = spec.at("startingDeadlineSeconds");
    page.field("Starting Deadline Seconds", if deadline.is_null() { "<unset>".into() } else { format!("{deadline}s") });
    let job = spec.at("jobTemplate.spec");
    page.field("Selector", if job.has("selector") { selector(job.at("selector")) } else { "<unset>".into() });
    page.field("Parallelism", or_unset(job.at("parallelism")));
    page.field("Completions", or_unset(job.at("completions")));
    if job.has("activeDeadlineSeconds") {
        page.field("Active Deadline Seconds", format!("{}s", job.number("activeDeadlineSeconds")));
    }
    page.template(job.at("template"));
    let last = status.text("lastScheduleTime");
    page.field("Last Schedule Time", if last.is_empty() { "<unset>".into() } else { time::long(last) });
    let active: Vec<String> = status.list("active").iter().map(|job| job.text("name").to_owned()).collect();
    page.field("Active Jobs", if active.is_empty() { "<none>".into() } else { active.join(", ") });
}

pub(super) fn autoscaler(page: &mut Page, object: &Value) {
    let (meta, spec, status) = (object.at("metadata"), object.at("spec"), object.at("status"));
    page.start(object);
    page.field("CreationTimestamp", time::long(meta.text("creationTimestamp")));
    let target = spec.at("scaleTargetRef");
    page.field("Reference", format!("{}/{}", target.text("kind"), target.text("name")));
    if spec.has("targetCPUUtilizationPercentage") {
        page.field("Target CPU utilization", format!("{}%", spec.number("targetCPUUtilizationPercentage")));
        let current = status.at("currentCPUUtilizationPercentage");
        page.field(
            "Current CPU utilization",
            if current.is_null() { "<unknown>%".into() } else { format!("{current}%") },
        );
    }
    if !spec.list("metrics").is_empty() {
        page.line(0, "Metrics:\t( current / target )");
    }
    for (index, metric) in spec.list("metrics").iter().enumerate() {
        let now = status.list("currentMetrics").get(index).cloned().unwrap_or_default();
        page.line(1, metric_line(metric, &now));
    }
    let least = spec.at("minReplicas");
    page.field("Min replicas", if least.is_null() { "<unset>".into() } else { scalar(least) });
    page.field("Max replicas", spec.number("maxReplicas").to_string());
    if spec.has("behavior") {
        page.line(0, "Behavior:");
        scaling_rules(page, "Scale Up", spec.at("behavior.scaleUp"));
        scaling_rules(page, "Scale Down", spec.at("behavior.scaleDown"));
    }
    let (current, desired) = (status.number("currentReplicas"), status.number("desiredReplicas"));
    page.field(&format!("{} pods", target.text("kind")), format!("{current} current / {desired} desired"));
    if !status.list("conditions").is_empty() {
        page.line(0, "Conditions:");
        page.line(1, "Type\tStatus\tReason\tMessage");
        page.line(1, "----\t------\t------\t-------");
        for condition in status.list("conditions") {
            let [kind, status, reason, message] =
                ["type", "status", "reason", "message"].map(|field| condition.text(field));
            page.line(1, format!("{kind}\t{status}\t{reason}\t{message}"));
        }
    }
}

/// Upstream: `printDirectionBehavior`.
fn scaling_rules(page: &mut Page, direction: &str, rules: &Value) {
    if rules.is_null() {
        return;
    }
    page.line(1, format!("{direction}:"));
    if rules.has("stabilizationWindowSeconds") {
        page.line(2, format!("Stabilization Window: {} seconds", rules.number("stabilizationWindowSeconds")));
    }
    if rules.list("policies").is_empty() {
        return;
    }
    let select = Some(rules.text("selectPolicy")).filter(|select| !select.is_empty());
    page.line(2, format!("Select Policy: {}", select.unwrap_or("Max")));
    page.line(2, "Policies:");
    for policy in rules.list("policies") {
        let (value, seconds) = (policy.number("value"), policy.number("periodSeconds"));
        page.line(3, format!("- Type: {}\tValue: {value}\tPeriod: {seconds} seconds", policy.text("type")));
    }
}

/// Upstream: `describeHorizontalPodAutoscalerV2`.
fn metric_line(metric: &Value, now: &Value) -> String {
    let kind = metric.text("type");
    let field = match kind {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return format!("<unknown metric type {kind:?}>"),
    };
    let (source, current) = (metric.at(field), now.at(field).at("current"));
    let (name, target) = (source.text("metric.name"), source.at("target"));
    let compared = |field: &str| format!("{} / {}", known(current.at(field)), scalar(target.at(field)));
    let whole_or_average = |is_average: bool| {
        let field = if is_average { "averageValue" } else { "value" };
        let words = if is_average { "target average value" } else { "target value" };
        format!("({words}):\t{}", compared(field))
    };
    match kind {
        "Pods" => format!("{name:?} on pods:\t{}", compared("averageValue")),
        "External" => format!("{name:?} {}", whole_or_average(target.has("averageValue"))),
        "Object" => {
            let (kind, about) = (source.text("describedObject.kind"), source.text("describedObject.name"));
            format!("\"{name}\" on {kind}/{about} {}", whole_or_average(target.text("type") == "AverageValue"))
        }
        _ => {
            let of = match source.text("container") {
                "" => String::new(),
                container => format!(" of container \"{container}\""),
            };
            let pods = format!("resource {}{of} on pods", source.text("name"));
            if target.has("averageValue") {
                return format!("{pods}:\t{}", compared("averageValue"));
            }
            let (percent, average) = (current.at("averageUtilization"), scalar(current.at("averageValue")));
            let now = if percent.is_null() { "<unknown>".into() } else { format!("{percent}% ({average})") };
            let wanted = target.at("averageUtilization");
            let wanted = if wanted.is_null() { "<auto>".into() } else { format!("{wanted}%") };
            format!("{pods}  (as a percentage of request):\t{now} / {wanted}")
        }
    }
}

fn known(value: &Value) -> String {
    if value.is_null() { "<unknown>".into() } else { scalar(value) }
}

pub(super) fn budget(page: &mut Page, object: &Value) {
    let (spec, status) = (object.at("spec"), object.at("status"));
    page.field("Name", object.text("metadata.name"));
    page.field("Namespace", object.text("metadata.namespace"));
    for (name, field) in [("Min available", "minAvailable"), ("Max unavailable", "maxUnavailable")] {
        if spec.has(field) {
            page.field(name, scalar(spec.at(field)));
        }
    }
    page.field("Selector", if spec.has("selector") { selector(spec.at("selector")) } else { "<unset>".into() });
    page.line(0, "Status:");
    for (name, field) in [
        ("Allowed disruptions", "disruptionsAllowed"),
        ("Current", "currentHealthy"),
        ("Desired", "desiredHealthy"),
        ("Total", "expectedPods"),
    ] {
        page.line(2, format!("{name}:\t{}", status.number(field)));
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    #[test]
    fn metrics_of_an_autoscaler() {
        let average = json!({ "type": "AverageValue", "averageValue": "10" });
        let whole = json!({ "type": "Value", "value": "10" });
        let percent = json!({ "type": "Utilization", "averageUtilization": 50 });
        let of = |field: &str, mut source: Value, target: &Value| {
            source["target"] = target.clone();
            let kind = format!("{}{}", field[..1].to_uppercase(), &field[1..]);
            json!({ "type": kind, field: source })
        };
        let metric = json!({ "metric": { "name": "requests" } });
        let object =
            json!({ "metric": { "name": "requests" }, "describedObject": { "kind": "Service", "name": "web" } });
        let now = |field: &str, current: Value| json!({ field: { "current": current } });
        let cases = [
            (of("pods", metric.clone(), &average), now("pods", json!({ "averageValue": "20" }))),
            (of("object", object.clone(), &average), now("object", json!({ "averageValue": "20" }))),
            (of("object", object, &whole), now("object", json!({ "value": "20" }))),
            (of("external", metric.clone(), &average), now("external", json!({ "averageValue": "20" }))),
            (of("external", metric.clone(), &whole), Value::Null),
            (
                of("resource", json!({ "name": "cpu" }), &percent),
                now("resource", json!({ "averageUtilization": 20, "averageValue": "5m" })),
            ),
            (of("resource", json!({ "name": "cpu" }), &average), Value::Null),
            (of("containerResource", json!({ "name": "cpu", "container": "c" }), &percent), Value::Null),
            (json!({ "type": "Luck" }), Value::Null),
        ];
        let shown: String = cases.iter().map(|(metric, now)| metric_line(metric, now) + "\n").collect();
        expect![[r#"
            "requests" on pods:	20 / 10
            "requests" on Service/web (target average value):	20 / 10
            "requests" on Service/web (target value):	20 / 10
            "requests" (target average value):	20 / 10
            "requests" (target value):	<unknown> / 10
            resource cpu on pods  (as a percentage of request):	20% (5m) / 50%
            resource cpu on pods:	<unknown> / 10
            resource cpu of container "c" on pods  (as a percentage of request):	<unknown> / 50%
            <unknown metric type "Luck">
        "#]]
        .assert_eq(&shown);
    }
}
