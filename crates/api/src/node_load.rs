//! What the pods bound to one node ask for, kept up to date with every write so that placing a pod costs no walk.

use std::collections::BTreeMap;

use crate::Pod;

use crate::object::controller_of;
use crate::pod_facts::has_ended;

/// Sums over the pods bound to a node that have not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeLoad {
    /// Thousandths of a core requested.
    pub cpu_milli: i64,
    /// Bytes of memory requested.
    pub memory_bytes: i64,
    /// Number of pods.
    pub pods: i64,
    /// Host ports taken: (protocol, address, port), each with the number of pods that hold it.
    pub host_ports: BTreeMap<(String, String, i32), u32>,
    /// Pods per controller uid: siblings are spread.
    pub siblings: BTreeMap<String, u32>,
}

impl NodeLoad {
    /// True if nothing is charged.
    pub fn is_empty(&self) -> bool {
        self.pods == 0
    }

    /// Charges a pod; one that has ended costs nothing.
    pub fn add(&mut self, pod: &Pod) {
        self.charge(pod, 1);
    }

    /// Takes back what [`NodeLoad::add`] charged for the same pod.
    pub fn subtract(&mut self, pod: &Pod) {
        self.charge(pod, -1);
    }

    fn charge(&mut self, pod: &Pod, sign: i64) {
        if has_ended(pod) {
            return;
        }
        let Some(spec) = &pod.spec else { return };
        let requests = crate::pod_resources::requests(spec);
        self.cpu_milli += sign * requests.cpu_milli;
        self.memory_bytes += sign * requests.memory_bytes;
        self.pods += sign;
        for port in crate::pod_resources::host_ports(spec) {
            count(&mut self.host_ports, port, sign);
        }
        if let Some(owner) = controller_of(&pod.metadata) {
            count(&mut self.siblings, owner.uid.clone(), sign);
        }
    }
}

fn count<K: Ord>(map: &mut BTreeMap<K, u32>, key: K, sign: i64) {
    let entry = map.entry(key);
    if sign > 0 {
        *entry.or_insert(0) += 1;
    } else if let std::collections::btree_map::Entry::Occupied(mut slot) = entry {
        *slot.get_mut() -= 1;
        if *slot.get() == 0 {
            slot.remove();
        }
    }
}
