//! Defaults of HorizontalPodAutoscalers.
//!
//! Mirrors `pkg/apis/autoscaling/v2/defaults.go`.

use k8s_openapi::api::autoscaling::{v1, v2};

/// Cpu utilization aimed at when no metric is named, in percent of the requests.
const CPU_UTILIZATION: i32 = 80;
/// Seconds over which a scaling policy counts.
const POLICY_SECONDS: i32 = 15;

/// A HorizontalPodAutoscaler as autoscaling/v1 has it.
pub fn horizontal_pod_autoscaler_v1(autoscaler: &mut v1::HorizontalPodAutoscaler) {
    let spec = &mut autoscaler.spec;
    spec.min_replicas.get_or_insert(1);
    spec.target_cpu_utilization_percentage.get_or_insert(CPU_UTILIZATION);
}

/// A HorizontalPodAutoscaler as autoscaling/v2 has it.
pub fn horizontal_pod_autoscaler_v2(autoscaler: &mut v2::HorizontalPodAutoscaler) {
    let spec = &mut autoscaler.spec;
    spec.min_replicas.get_or_insert(1);
    if spec.metrics.as_ref().is_none_or(Vec::is_empty) {
        spec.metrics = Some(vec![cpu_metric()]);
    }
    if let Some(behavior) = spec.behavior.as_mut() {
        scale_up(behavior.scale_up.get_or_insert_default());
        scale_down(behavior.scale_down.get_or_insert_default());
    }
}

fn cpu_metric() -> v2::MetricSpec {
    v2::MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(v2::ResourceMetricSource {
            name: "cpu".to_owned(),
            target: v2::MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(CPU_UTILIZATION),
                ..v2::MetricTarget::default()
            },
        }),
        ..v2::MetricSpec::default()
    }
}

fn scale_up(rules: &mut v2::HPAScalingRules) {
    rules.stabilization_window_seconds.get_or_insert(0);
    rules.select_policy.get_or_insert_with(|| "Max".to_owned());
    rules.policies.get_or_insert_with(|| vec![policy("Pods", 4), policy("Percent", 100)]);
}

/// The stabilization window of scaling down is the controller's setting, so it stays open.
fn scale_down(rules: &mut v2::HPAScalingRules) {
    rules.select_policy.get_or_insert_with(|| "Max".to_owned());
    rules.policies.get_or_insert_with(|| vec![policy("Percent", 100)]);
}

fn policy(kind: &str, value: i32) -> v2::HPAScalingPolicy {
    v2::HPAScalingPolicy { type_: kind.to_owned(), value, period_seconds: POLICY_SECONDS }
}
