//! Kinds of which there is never an object: nobody can make one, but who asks finds that there is none.
//!
//! kubectl lists the definitions of custom kinds before it says that it does not know a kind. API servers that extend this one are built
//! with upstream's library, which follows webhooks, policies and priority levels and is not ready before it has seen their lists.
//! Everything but looking is answered as an unknown path is, and discovery does not name these kinds.

use std::time::Duration;

use api::Refusal;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::StatusCode;
use serde_json::json;

use super::query::Query;
use super::{Gate, reply};

/// One kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Absent {
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
}

const ADMISSION: &str = "admissionregistration.k8s.io";
const FLOW: &str = "flowcontrol.apiserver.k8s.io";

const fn absent(group: &'static str, plural: &'static str, kind: &'static str) -> Absent {
    Absent { group, plural, kind }
}

/// All of them, in their version 1.
static ALL: [Absent; 9] = [
    absent("apiextensions.k8s.io", "customresourcedefinitions", "CustomResourceDefinition"),
    absent(ADMISSION, "validatingwebhookconfigurations", "ValidatingWebhookConfiguration"),
    absent(ADMISSION, "mutatingwebhookconfigurations", "MutatingWebhookConfiguration"),
    absent(ADMISSION, "validatingadmissionpolicies", "ValidatingAdmissionPolicy"),
    absent(ADMISSION, "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
    absent(ADMISSION, "mutatingadmissionpolicies", "MutatingAdmissionPolicy"),
    absent(ADMISSION, "mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding"),
    absent(FLOW, "flowschemas", "FlowSchema"),
    absent(FLOW, "prioritylevelconfigurations", "PriorityLevelConfiguration"),
];

impl Absent {
    /// The kind of `/apis/GROUP/VERSION/PLURAL`.
    pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Absent> {
        ALL.iter().find(|it| it.group == group && it.plural == plural).filter(|_| version == "v1")
    }

    /// The list without objects, or the watch on which nothing happens.
    pub fn look(&self, gate: &Gate, query: &Query) -> Result<Response, Refusal> {
        let revision = gate.published.snapshot().revision();
        if query.flag("watch") {
            let begins = self.begin(revision, query.flag("sendInitialEvents") && query.flag("allowWatchBookmarks"));
            return Ok(watch(gate, begins, query.watch_time()?));
        }
        Ok(reply::json(&json!({
            "kind": format!("{}List", self.kind), "apiVersion": self.api_version(),
            "metadata": { "resourceVersion": revision.to_string() }, "items": [],
        })))
    }

    fn api_version(&self) -> String {
        format!("{}/v1", self.group)
    }

    /// What a watch begins with: that all there is has been told, if somebody wants to hear that.
    fn begin(&self, revision: u64, wanted: bool) -> String {
        if !wanted {
            return String::new();
        }
        let metadata = json!({
            "resourceVersion": revision.to_string(), "creationTimestamp": null,
            "annotations": { "k8s.io/initial-events-end": "true" },
        });
        let object = json!({ "kind": self.kind, "apiVersion": self.api_version(), "metadata": metadata });
        format!("{}\n", json!({ "type": "BOOKMARK", "object": object }))
    }
}

fn watch(gate: &Gate, begins: String, lasts: Duration) -> Response {
    let stopping = gate.stopping.clone();
    let ends = tokio::time::Instant::now() + lasts;
    let stream = stream::unfold((Some(begins), stopping), move |(begins, mut stopping)| async move {
        if let Some(begins) = begins.filter(|begins| !begins.is_empty()) {
            return Some((Ok::<_, std::convert::Infallible>(Bytes::from(begins)), (None, stopping)));
        }
        tokio::select! {
            () = tokio::time::sleep_until(ends) => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
        None
    });
    reply::with_type(StatusCode::OK, reply::JSON, Body::from_stream(stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_never_there() {
        let found = |version: &str| Absent::find(FLOW, version, "flowschemas").map(|it| it.kind);
        assert_eq!((found("v1"), found("v1beta3")), (Some("FlowSchema"), None));
        let custom = Absent::find("apiextensions.k8s.io", "v1", "customresourcedefinitions").unwrap();
        assert_eq!(custom.begin(7, false), "");
        assert_eq!(
            custom.begin(7, true),
            "{\"object\":{\"apiVersion\":\"apiextensions.k8s.io/v1\",\"kind\":\"CustomResourceDefinition\",\"metadata\":\
             {\"annotations\":{\"k8s.io/initial-events-end\":\"true\"},\"creationTimestamp\":null,\"resourceVersion\":\"7\"}},\
             \"type\":\"BOOKMARK\"}\n"
        );
    }
}
