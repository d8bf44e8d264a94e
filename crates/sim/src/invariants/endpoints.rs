//! Whom a Service sends requests to.

use std::collections::BTreeSet;

use api::Pod;
use api::Snapshot;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::Verdict;
use crate::facts;

/// Uids of the pods that any slice of the world tells as ready.
pub fn told_ready(world: &Snapshot) -> BTreeSet<String> {
    world.list::<EndpointSlice>(None).flat_map(ready_in).collect()
}

fn ready_in(slice: &EndpointSlice) -> Vec<String> {
    let ready = |conditions: &k8s_openapi::api::discovery::v1::EndpointConditions| conditions.ready == Some(true);
    let endpoints = slice.endpoints.iter().flatten();
    let endpoints = endpoints.filter(|endpoint| endpoint.conditions.as_ref().is_some_and(ready));
    endpoints.filter_map(|endpoint| endpoint.target_ref.as_ref()?.uid.clone()).collect()
}

/// I20: a slice tells as ready exactly the pods that are ready and stay, on nodes that are there.
pub fn are_true(world: &Snapshot) -> Verdict {
    for service in world.list::<Service>(None).filter(|service| !facts::is_deleted(&service.metadata)) {
        let Some(selector) = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else { continue };
        let namespace = service.metadata.namespace.as_deref().unwrap_or("");
        if selector.is_empty() || !facts::namespace_stays(namespace, world) {
            continue;
        }
        let wanted: BTreeSet<String> = world
            .list::<Pod>(Some(namespace))
            .filter(|pod| !facts::lost_its_node(pod, world))
            .filter(|pod| facts::is_active(pod) && facts::ready_since(pod).is_some())
            .filter(|pod| pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some()))
            .filter(|pod| {
                let labels = pod.metadata.labels.as_ref();
                selector.iter().all(|(name, value)| labels.is_some_and(|labels| labels.get(name) == Some(value)))
            })
            .map(|pod| facts::uid(&pod.metadata).to_owned())
            .collect();
        let uid = facts::uid(&service.metadata);
        let told: BTreeSet<String> = world.controlled_by::<EndpointSlice>(uid).flat_map(ready_in).collect();
        if told != wanted {
            let words = |uids: Vec<&String>| {
                let pods = world.list::<Pod>(Some(namespace));
                let named = pods.filter(|pod| uids.iter().any(|uid| **uid == facts::uid(&pod.metadata)));
                named.map(|pod| facts::name(&pod.metadata).to_owned()).collect::<Vec<_>>().join(" ")
            };
            return Err(format!(
                "service {} sends to {} pods of {} ready ones; missing: {}; wrong: {}",
                facts::name(&service.metadata),
                told.len(),
                wanted.len(),
                words(wanted.difference(&told).collect()),
                words(told.difference(&wanted).collect())
            ));
        }
    }
    Ok(())
}
