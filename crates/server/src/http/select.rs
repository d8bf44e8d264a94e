//! Label and field selectors of a request, applied to objects.

use std::borrow::Cow;

use api::kinds::KindInfo;
use api::selector::{FieldSelector, Selector};
use api::{Body, Object, Refusal};

use super::query::Query;

/// Which objects a list or watch is about.
#[derive(Debug)]
pub struct Selection {
    /// The namespace, if only one is meant.
    pub namespace: Option<String>,
    labels: Selector,
    fields: FieldSelector,
}

impl Selection {
    /// From the path and the query.
    pub fn parse(info: &KindInfo, namespace: &str, query: &Query) -> Result<Selection, Refusal> {
        let unreadable = |error: api::selector::SelectorError| Refusal::bad_request(error.to_string());
        let fields = FieldSelector::parse(info.group, info.kind, query.text("fieldSelector"));
        let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
        Ok(Selection {
            namespace,
            labels: Selector::parse(query.text("labelSelector")).map_err(unreadable)?,
            fields: fields.map_err(unreadable)?,
        })
    }

    /// True if every object of the kind (and namespace) is meant.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// The one name that is meant, if the selection says so.
    pub fn exact_name(&self) -> Option<&str> {
        self.fields.exact("metadata.name")
    }

    /// The one node whose pods are meant, if the selection says so.
    pub fn exact_node(&self) -> Option<&str> {
        self.fields.exact("spec.nodeName")
    }

    /// True if `object` is meant.
    pub fn matches(&self, object: &Object) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| object.namespace() == namespace)
            && (self.fields.is_everything() || self.fields.matches(|field| field_of(object, field)))
            && (self.labels.is_everything() || self.labels.matches(object.meta().labels.as_ref()))
    }
}

/// The value of a selectable field (upstream: `ToSelectableFields` of each registry strategy).
fn field_of<'a>(object: &'a Object, field: &str) -> Cow<'a, str> {
    let text = |value: Option<&'a String>| Cow::Borrowed(value.map_or("", String::as_str));
    match field {
        "metadata.name" => return Cow::Borrowed(object.name()),
        "metadata.namespace" => return Cow::Borrowed(object.namespace()),
        _ => {}
    }
    match &object.body {
        Body::Pod(pod) => {
            let (spec, status) = (pod.spec.as_deref(), pod.status.as_ref());
            match field {
                "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
                "spec.restartPolicy" => text(spec.and_then(|spec| spec.restart_policy.as_ref())),
                "spec.schedulerName" => text(spec.and_then(|spec| spec.scheduler_name.as_ref())),
                "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
                "spec.hostNetwork" => flag(spec.and_then(|spec| spec.host_network)),
                "status.phase" => text(status.and_then(|status| status.phase.as_ref())),
                "status.podIP" => text(status.and_then(|status| status.pod_ip.as_ref())),
                "status.nominatedNodeName" => text(status.and_then(|status| status.nominated_node_name.as_ref())),
                _ => Cow::Borrowed(""),
            }
        }
        Body::Event(event) => {
            let about = &event.involved_object;
            match field {
                "involvedObject.kind" => text(about.kind.as_ref()),
                "involvedObject.namespace" => text(about.namespace.as_ref()),
                "involvedObject.name" => text(about.name.as_ref()),
                "involvedObject.uid" => text(about.uid.as_ref()),
                "involvedObject.apiVersion" => text(about.api_version.as_ref()),
                "involvedObject.resourceVersion" => text(about.resource_version.as_ref()),
                "involvedObject.fieldPath" => text(about.field_path.as_ref()),
                "reason" => text(event.reason.as_ref()),
                "type" => text(event.type_.as_ref()),
                "reportingComponent" => text(event.reporting_component.as_ref()),
                "source" => {
                    let component = event.source.as_ref().and_then(|source| source.component.as_ref());
                    text(component.filter(|name| !name.is_empty()).or(event.reporting_component.as_ref()))
                }
                _ => Cow::Borrowed(""),
            }
        }
        Body::Node(node) if field == "spec.unschedulable" => {
            flag(node.spec.as_ref().and_then(|spec| spec.unschedulable))
        }
        Body::Namespace(namespace) if field == "status.phase" => {
            text(namespace.status.as_ref().and_then(|status| status.phase.as_ref()))
        }
        Body::PersistentVolume(volume) => match field {
            "spec.storageClassName" => text(volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref())),
            "status.phase" => text(volume.status.as_ref().and_then(|status| status.phase.as_ref())),
            _ => Cow::Borrowed(""),
        },
        Body::Secret(secret) if field == "type" => text(secret.type_.as_ref()),
        Body::Service(service) => {
            let spec = service.spec.as_ref();
            match field {
                "spec.clusterIP" => text(spec.and_then(|spec| spec.cluster_ip.as_ref())),
                "spec.type" => text(spec.and_then(|spec| spec.type_.as_ref())),
                _ => Cow::Borrowed(""),
            }
        }
        Body::ReplicaSet(set) if field == "status.replicas" => {
            Cow::Owned(set.status.as_ref().map_or(0, |status| status.replicas).to_string())
        }
        Body::ReplicationController(controller) if field == "status.replicas" => {
            Cow::Owned(controller.status.as_ref().map_or(0, |status| status.replicas).to_string())
        }
        Body::Job(job) if field == "status.successful" => {
            let succeeded = job.status.as_ref().and_then(|status| status.succeeded).unwrap_or(0);
            Cow::Owned(succeeded.to_string())
        }
        _ => Cow::Borrowed(""),
    }
}

fn flag(value: Option<bool>) -> Cow<'static, str> {
    Cow::Borrowed(if value.unwrap_or(false) { "true" } else { "false" })
}
