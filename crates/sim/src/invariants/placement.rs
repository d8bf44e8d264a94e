//! Where pods are put.

use api::Pod;
use api::pod_resources::requests;
use api::quantity::Amount;
use k8s_openapi::api::core::v1::Node;

use super::{Moment, Verdict};
use crate::facts;

/// I14: a pod is put only on a node that is there, takes pods, and has room.
pub fn fits_where_it_is_put(moment: &Moment) -> Verdict {
    let (before, Some(after)) = moment.pod() else { return Ok(()) };
    let node = facts::node(after);
    if node.is_empty() || before.is_some_and(|before| !facts::node(before).is_empty()) {
        return Ok(());
    }
    if facts::is_deleted(&after.metadata) {
        return Err(format!("is put on {node} while it is being deleted"));
    }
    let Some(there) = moment.after.get::<Node>("", node) else {
        return Err(format!("is put on {node}, which is not there"));
    };
    if there.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) && !puts_up_with_cordons(after) {
        return Err(format!("is put on {node}, which is cordoned"));
    }
    has_room(there, moment)
}

fn puts_up_with_cordons(pod: &Pod) -> bool {
    let mut tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    tolerations.any(|it| it.key.as_deref() == Some("node.kubernetes.io/unschedulable"))
}

fn has_room(node: &Node, moment: &Moment) -> Verdict {
    let name = facts::name(&node.metadata);
    let room = |resource: &str| {
        let amounts = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        amounts.and_then(|amounts| amounts.get(resource)).map_or(Amount::ZERO, Amount::of)
    };
    let pods: Vec<&Pod> = moment.after.pods_on(name).filter(|pod| !facts::has_ended(pod)).collect();
    let cpu: i64 = pods.iter().filter_map(|pod| pod.spec.as_deref()).map(|spec| requests(spec).cpu_milli).sum();
    if cpu > room("cpu").milli() || pods.len() as i64 > room("pods").value() {
        return Err(format!("{name} now has {} pods that ask for {cpu}m of its {}m", pods.len(), room("cpu").milli()));
    }
    Ok(())
}

/// I14: a pod never moves.
pub fn bind_is_final(moment: &Moment) -> Verdict {
    let (Some(before), Some(after)) = moment.pod() else { return Ok(()) };
    let (old, new) = (facts::node(before), facts::node(after));
    if old.is_empty() || old == new { Ok(()) } else { Err(format!("moves from {old} to {new}")) }
}
