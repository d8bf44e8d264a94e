//! HorizontalPodAutoscalers as autoscaling/v1 shows them: kept as autoscaling/v2, converted on the way in and out.
//!
//! Mirrors `pkg/apis/autoscaling/v1/conversion.go`: v1 knows one target of cpu; everything else that v2 has stands in
//! four annotations, in the words of v1's own types. Works on JSON, and leaves alone what it does not know: the schema
//! and validation judge it.

use serde_json::{Value, json};

const V1: &str = "autoscaling/v1";
const V2: &str = "autoscaling/v2";

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Names of fields in v1's words and in v2's, for the target of each source.
const RESOURCE: [(&str, &str); 2] =
    [("targetAverageUtilization", "averageUtilization"), ("targetAverageValue", "averageValue")];

/// A v2 object as v1 has it.
pub(super) fn to_v1(mut object: Value) -> Value {
    object["apiVersion"] = V1.into();
    let metrics = take_list(&mut object["spec"], "metrics");
    let (cpu, others): (Vec<Value>, Vec<Value>) = metrics.into_iter().partition(is_cpu);
    let mut cpu = cpu.into_iter();
    if let Some(first) = cpu.next() {
        object["spec"]["targetCPUUtilizationPercentage"] = first["resource"]["target"]["averageUtilization"].clone();
    }
    let others: Vec<Value> = cpu.chain(others).map(|metric| metric_to_v1(metric, true)).collect();
    annotate(&mut object, METRICS, &others);
    if let Some(behavior) = remove(&mut object["spec"], "behavior") {
        object["metadata"]["annotations"][BEHAVIOR] = behavior.to_string().into();
    }
    if object["status"].is_object() {
        let status = &mut object["status"];
        let current = take_list(status, "currentMetrics");
        let cpu = current.iter().find(|it| it["resource"]["name"] == "cpu");
        let percent = cpu.map(|it| it["resource"]["current"]["averageUtilization"].clone());
        if let Some(percent) = percent.filter(|percent| !percent.is_null()) {
            status["currentCPUUtilizationPercentage"] = percent;
        }
        if status["currentReplicas"].is_null() {
            status["currentReplicas"] = 0.into();
        }
        let conditions = take_list(status, "conditions");
        let current: Vec<Value> = current.into_iter().map(|metric| metric_to_v1(metric, false)).collect();
        annotate(&mut object, CURRENT, &current);
        annotate(&mut object, CONDITIONS, &conditions);
    }
    object
}

/// A v1 object as v2 has it.
pub(super) fn to_v2(mut object: Value) -> Value {
    if object["apiVersion"] == V1 {
        object["apiVersion"] = V2.into();
    }
    let mut noted = |name: &str| -> Option<Value> {
        let text = remove(object.get_mut("metadata")?.get_mut("annotations")?, name)?;
        serde_json::from_str(text.as_str()?).ok()
    };
    let [metrics, current, conditions, behavior] = [METRICS, CURRENT, CONDITIONS, BEHAVIOR].map(&mut noted);
    if let Some(annotations) = object["metadata"].get("annotations").and_then(Value::as_object)
        && annotations.is_empty()
    {
        remove(&mut object["metadata"], "annotations");
    }
    if let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) {
        let mut list: Vec<Value> = metrics.map(|it| metrics_to_v2(it, true)).unwrap_or_default();
        if let Some(percent) = remove(spec, "targetCPUUtilizationPercentage").filter(|percent| !percent.is_null()) {
            let target = json!({ "type": "Utilization", "averageUtilization": percent });
            list.insert(0, json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } }));
        }
        if !list.is_empty() {
            spec["metrics"] = list.into();
        }
        if let Some(behavior) = behavior {
            spec["behavior"] = behavior;
        }
    }
    if let Some(status) = object.get_mut("status").filter(|status| status.is_object()) {
        remove(status, "currentCPUUtilizationPercentage");
        if let Some(current) = current {
            status["currentMetrics"] = metrics_to_v2(current, false).into();
        }
        if let Some(conditions) = conditions {
            status["conditions"] = conditions;
        }
    }
    object
}

fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && !metric["resource"]["target"]["averageUtilization"].is_null()
}

fn remove(object: &mut Value, field: &str) -> Option<Value> {
    object.as_object_mut()?.remove(field)
}

fn take_list(object: &mut Value, field: &str) -> Vec<Value> {
    match remove(object, field) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn annotate(object: &mut Value, name: &str, list: &[Value]) {
    if !list.is_empty() {
        object["metadata"]["annotations"][name] = json!(list).to_string().into();
    }
}

/// The source of a metric, by its type: `Resource` has it in `resource`.
fn field_of(metric: &Value) -> String {
    let name = metric["type"].as_str().unwrap_or_default();
    name.chars().take(1).flat_map(char::to_lowercase).chain(name.chars().skip(1)).collect()
}

/// Fields of the source's value: (v1, v2), of a target (`spec`) or of what is current.
fn names(field: &str, spec: bool) -> Vec<(&'static str, &'static str)> {
    match (field, spec) {
        ("resource" | "containerResource", true) => RESOURCE.to_vec(),
        ("resource" | "containerResource", false) => {
            vec![("currentAverageUtilization", "averageUtilization"), ("currentAverageValue", "averageValue")]
        }
        ("pods", true) => vec![("targetAverageValue", "averageValue")],
        ("pods", false) => vec![("currentAverageValue", "averageValue")],
        ("object", true) => vec![("targetValue", "value"), ("averageValue", "averageValue")],
        ("object", false) => vec![("currentValue", "value"), ("averageValue", "averageValue")],
        ("external", true) => vec![("targetValue", "value"), ("targetAverageValue", "averageValue")],
        ("external", false) => vec![("currentValue", "value"), ("currentAverageValue", "averageValue")],
        _ => Vec::new(),
    }
}

/// Where v1 has the selector of a metric.
fn selector_name(field: &str) -> &'static str {
    if field == "external" { "metricSelector" } else { "selector" }
}

fn metric_to_v1(mut metric: Value, spec: bool) -> Value {
    let field = field_of(&metric);
    let Some(source) = metric.get_mut(&field).filter(|source| source.is_object()) else { return metric };
    let value = remove(source, if spec { "target" } else { "current" }).unwrap_or_default();
    for (ours, theirs) in names(&field, spec) {
        if !value[theirs].is_null() {
            source[ours] = value[theirs].clone();
        }
    }
    if let Some(identifier) = remove(source, "metric") {
        source["metricName"] = identifier["name"].clone();
        if !identifier["selector"].is_null() {
            source[selector_name(&field)] = identifier["selector"].clone();
        }
    }
    if let Some(about) = remove(source, "describedObject") {
        source["target"] = about;
        // v1 cannot do without.
        let required = if spec { "targetValue" } else { "currentValue" };
        if source[required].is_null() {
            source[required] = "0".into();
        }
    }
    metric
}

fn metrics_to_v2(list: Value, spec: bool) -> Vec<Value> {
    match list {
        Value::Array(list) => list.into_iter().map(|metric| metric_to_v2(metric, spec)).collect(),
        _ => Vec::new(),
    }
}

fn metric_to_v2(mut metric: Value, spec: bool) -> Value {
    let field = field_of(&metric);
    let Some(source) = metric.get_mut(&field).filter(|source| source.is_object()) else { return metric };
    if let Some(about) = remove(source, "target") {
        source["describedObject"] = about;
        // An average comes with a value of zero, which means none.
        if !source["averageValue"].is_null() {
            remove(source, if spec { "targetValue" } else { "currentValue" });
        }
    }
    let mut value = json!({});
    for (ours, theirs) in names(&field, spec) {
        if let Some(amount) = remove(source, ours).filter(|amount| !amount.is_null()) {
            value[theirs] = amount;
        }
    }
    if spec {
        let given = |name: &str| !value[name].is_null();
        let aim = match () {
            () if given("averageUtilization") => "Utilization",
            () if given("averageValue") => "AverageValue",
            () => "Value",
        };
        value["type"] = aim.into();
    }
    if let Some(name) = remove(source, "metricName") {
        source["metric"] = json!({ "name": name });
        if let Some(selector) = remove(source, selector_name(&field)) {
            source["metric"]["selector"] = selector;
        }
    }
    source[if spec { "target" } else { "current" }] = value;
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(metrics: Value, current: Value) -> Value {
        json!({
            "apiVersion": V2, "kind": "HorizontalPodAutoscaler", "metadata": { "name": "web" },
            "spec": { "maxReplicas": 5, "metrics": metrics, "behavior": { "scaleUp": { "selectPolicy": "Max" } } },
            "status": { "currentReplicas": 1, "desiredReplicas": 1, "currentMetrics": current,
                "conditions": [{ "type": "AbleToScale", "status": "True" }] },
        })
    }

    #[test]
    fn there_and_back() {
        let object = object(
            json!([
                { "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 50 } } },
                { "type": "Resource", "resource": { "name": "memory", "target": { "type": "AverageValue", "averageValue": "1Gi" } } },
                { "type": "ContainerResource", "containerResource": { "name": "cpu", "container": "c", "target": { "type": "Utilization", "averageUtilization": 60 } } },
                { "type": "Pods", "pods": { "metric": { "name": "hits", "selector": { "matchLabels": { "a": "b" } } }, "target": { "type": "AverageValue", "averageValue": "10" } } },
                { "type": "Object", "object": { "describedObject": { "kind": "Service", "name": "s" }, "metric": { "name": "m" }, "target": { "type": "Value", "value": "3" } } },
                { "type": "Object", "object": { "describedObject": { "kind": "Service", "name": "s" }, "metric": { "name": "m" }, "target": { "type": "AverageValue", "averageValue": "3" } } },
                { "type": "External", "external": { "metric": { "name": "q", "selector": { "matchLabels": { "a": "b" } } }, "target": { "type": "AverageValue", "averageValue": "30" } } },
            ]),
            json!([{ "type": "Resource", "resource": { "name": "cpu", "current": { "averageUtilization": 40, "averageValue": "400m" } } }]),
        );
        let v1 = to_v1(object.clone());
        expect_test::expect![[r#"
            {"maxReplicas":5,"targetCPUUtilizationPercentage":50}
            {"currentCPUUtilizationPercentage":40,"currentReplicas":1,"desiredReplicas":1}
            autoscaling.alpha.kubernetes.io/behavior: {"scaleUp":{"selectPolicy":"Max"}}
            autoscaling.alpha.kubernetes.io/conditions: [{"status":"True","type":"AbleToScale"}]
            autoscaling.alpha.kubernetes.io/current-metrics: [{"resource":{"currentAverageUtilization":40,"currentAverageValue":"400m","name":"cpu"},"type":"Resource"}]
            autoscaling.alpha.kubernetes.io/metrics: [{"resource":{"name":"memory","targetAverageValue":"1Gi"},"type":"Resource"},{"containerResource":{"container":"c","name":"cpu","targetAverageUtilization":60},"type":"ContainerResource"},{"pods":{"metricName":"hits","selector":{"matchLabels":{"a":"b"}},"targetAverageValue":"10"},"type":"Pods"},{"object":{"metricName":"m","target":{"kind":"Service","name":"s"},"targetValue":"3"},"type":"Object"},{"object":{"averageValue":"3","metricName":"m","target":{"kind":"Service","name":"s"},"targetValue":"0"},"type":"Object"},{"external":{"metricName":"q","metricSelector":{"matchLabels":{"a":"b"}},"targetAverageValue":"30"},"type":"External"}]
        "#]]
        .assert_eq(&shown(&v1));
        assert_eq!(to_v2(v1), object);
    }

    fn shown(v1: &Value) -> String {
        let annotations = v1["metadata"]["annotations"].as_object().unwrap().iter();
        let annotations = annotations.map(|(name, value)| format!("{name}: {}\n", value.as_str().unwrap()));
        format!("{}\n{}\n{}", v1["spec"], v1["status"], annotations.collect::<String>())
    }

    #[test]
    fn as_autoscale_makes_it() {
        let v1 = json!({ "apiVersion": V1, "metadata": { "name": "web" }, "spec": { "maxReplicas": 3, "targetCPUUtilizationPercentage": 80 } });
        assert_eq!(
            to_v2(v1).to_string(),
            r#"{"apiVersion":"autoscaling/v2","metadata":{"name":"web"},"spec":{"maxReplicas":3,"metrics":[{"resource":{"name":"cpu","target":{"averageUtilization":80,"type":"Utilization"}},"type":"Resource"}]}}"#
        );
    }
}
