//! Telling the API: a pod's status, and its end.
//!
//! A status goes out as a strategic-merge patch on `/status` that names the pod's uid: conditions that others own stay,
//! and another pod of the same name is not meant. What is cleared is sent as `null`. The end is a DELETE with grace 0
//! and the uid as precondition. Answers are not decoded: their status code says all.

use api::Pod;
use k8s_openapi::api::core::v1::PodStatus;
use kube::Client;
use serde_json::{Value, json};

use crate::status::Conditions;

/// The body of the patch that writes `status` for `pod`, as it last came from the API.
pub fn status_patch(pod: &Pod, status: &PodStatus, conditions: &Conditions) -> Vec<u8> {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    for condition in value["conditions"].as_array_mut().into_iter().flatten() {
        let had_reason = condition["type"].as_str().is_some_and(|name| conditions.had_reason(name));
        if let Some(fields) = condition.as_object_mut().filter(|_| had_reason) {
            fields.entry("reason").or_insert(Value::Null);
            fields.entry("message").or_insert(Value::Null);
        }
    }
    let told = pod.status.as_ref().and_then(|told| told.pod_ip.as_deref());
    match (told, status.pod_ip.as_deref()) {
        (Some(old), Some(new)) if old != new => value["podIPs"] = json!([{"$patch": "replace"}, {"ip": new}]),
        (Some(_), None) => {
            value["podIP"] = Value::Null;
            value["podIPs"] = Value::Null;
        }
        _ => {}
    }
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": value});
    patch.to_string().into_bytes()
}

/// Why a write was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The pod of that uid is not there any more.
    #[error("the pod is gone")]
    Gone,
    /// Somebody else wrote at the same moment, or the server is busy: try again.
    #[error("{0}")]
    Again(String),
    /// The server refuses; trying again at once does not help.
    #[error("{0}")]
    Refused(String),
}

fn pod_path(pod: &Pod) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("/api/v1/namespaces/{}/pods/{}", part(&pod.metadata.namespace), part(&pod.metadata.name))
}

/// Sends a status patch made by [`status_patch`].
pub async fn write_status(client: &Client, pod: &Pod, body: Vec<u8>) -> Result<(), ReportError> {
    let request = http::Request::patch(format!("{}/status?fieldManager=kubelet", pod_path(pod)))
        .header(http::header::CONTENT_TYPE, "application/strategic-merge-patch+json")
        .body(body)
        .map_err(|error| ReportError::Refused(error.to_string()))?;
    send(client, request).await
}

/// Lets the API object go.
pub async fn delete(client: &Client, pod: &Pod) -> Result<(), ReportError> {
    let body = json!({
        "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
        "preconditions": {"uid": pod.metadata.uid},
    });
    let request = http::Request::delete(pod_path(pod))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body.to_string().into_bytes())
        .map_err(|error| ReportError::Refused(error.to_string()))?;
    match send(client, request).await {
        // Only the uid is a precondition: a conflict means another pod has the name.
        Err(ReportError::Again(message)) if message.contains("UID in precondition") => Err(ReportError::Gone),
        other => other,
    }
}

/// Sends a request; its answer is only looked at for whether it was taken.
pub async fn send(client: &Client, request: http::Request<Vec<u8>>) -> Result<(), ReportError> {
    use http_body_util::BodyExt;
    let answer = client.send(request.map(kube::client::Body::from)).await;
    let answer = answer.map_err(|error| ReportError::Again(error.to_string()))?;
    let code = answer.status();
    if code.is_success() {
        // Read to its end, so that the connection serves the next request.
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            frame.map_err(|error| ReportError::Again(error.to_string()))?;
        }
        return Ok(());
    }
    let body = answer.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let status: Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = format!("{code}: {}", status["message"].as_str().unwrap_or_default());
    Err(match code.as_u16() {
        404 => ReportError::Gone,
        409 | 429 | 500.. => ReportError::Again(message),
        _ => ReportError::Refused(message),
    })
}
