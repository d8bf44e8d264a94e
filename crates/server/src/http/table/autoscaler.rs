//! The row of a HorizontalPodAutoscaler. Mirrors `formatHPAMetrics` (`pkg/printers/internalversion/printers.go`).

use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

/// Metrics that are shown; of the others only the number.
const SHOWN: usize = 2;
const UNKNOWN: &str = "<unknown>";

/// The cells, in the order of the columns.
pub fn cells(autoscaler: &HorizontalPodAutoscaler, name: Value, age: Value) -> Vec<Value> {
    let spec = &autoscaler.spec;
    let target = &spec.scale_target_ref;
    let status = autoscaler.status.as_ref();
    let statuses = status.and_then(|status| status.current_metrics.as_deref()).unwrap_or_default();
    vec![
        name,
        json!(format!("{}/{}", target.kind, target.name)),
        json!(targets(spec.metrics.as_deref().unwrap_or_default(), statuses)),
        json!(spec.min_replicas.map_or_else(|| "<unset>".to_owned(), |least| least.to_string())),
        json!(spec.max_replicas.to_string()),
        json!(status.and_then(|status| status.current_replicas).unwrap_or(0)),
        age,
    ]
}

fn targets(specs: &[MetricSpec], statuses: &[MetricStatus]) -> String {
    if specs.is_empty() {
        return "<none>".into();
    }
    let list: Vec<String> = specs.iter().enumerate().map(|(index, spec)| one(spec, statuses.get(index))).collect();
    if list.len() <= SHOWN {
        return list.join(", ");
    }
    format!("{} + {} more...", list[..SHOWN].join(", "), list.len() - SHOWN)
}

fn one(spec: &MetricSpec, status: Option<&MetricStatus>) -> String {
    match spec.type_.as_str() {
        "Resource" => {
            let source = spec.resource.clone().unwrap_or_default();
            let now = status.and_then(|status| status.resource.as_ref()).map(|it| &it.current);
            format!("{}: {}", source.name, of_resource(&source.target, now))
        }
        "ContainerResource" => {
            let source = spec.container_resource.clone().unwrap_or_default();
            let now = status.and_then(|status| status.container_resource.as_ref()).map(|it| &it.current);
            format!("{}: {}", source.name, of_resource(&source.target, now))
        }
        "Pods" => {
            let target = spec.pods.clone().unwrap_or_default().target;
            let now = status.and_then(|status| status.pods.as_ref()).map(|it| &it.current);
            format!(
                "{}/{}",
                shown(now.and_then(|now| now.average_value.as_ref())),
                shown(target.average_value.as_ref())
            )
        }
        "Object" => {
            let target = spec.object.clone().unwrap_or_default().target;
            value_or_average(&target, status.and_then(|status| status.object.as_ref()).map(|it| &it.current))
        }
        "External" => {
            let target = spec.external.clone().unwrap_or_default().target;
            value_or_average(&target, status.and_then(|status| status.external.as_ref()).map(|it| &it.current))
        }
        _ => "<unknown type>".into(),
    }
}

fn of_resource(target: &MetricTarget, now: Option<&MetricValueStatus>) -> String {
    if let Some(average) = &target.average_value {
        return format!("{}/{}", shown(now.and_then(|now| now.average_value.as_ref())), average.0);
    }
    let percent = |number: Option<i32>, otherwise: &str| number.map_or(otherwise.to_owned(), |it| format!("{it}%"));
    let current = percent(now.and_then(|now| now.average_utilization), UNKNOWN);
    format!("{current}/{}", percent(target.average_utilization, "<auto>"))
}

fn value_or_average(target: &MetricTarget, now: Option<&MetricValueStatus>) -> String {
    match &target.average_value {
        Some(average) => format!("{}/{} (avg)", shown(now.and_then(|now| now.average_value.as_ref())), average.0),
        None => format!("{}/{}", shown(now.and_then(|now| now.value.as_ref())), shown(target.value.as_ref())),
    }
}

fn shown(quantity: Option<&Quantity>) -> &str {
    quantity.map_or(UNKNOWN, |quantity| &quantity.0)
}
