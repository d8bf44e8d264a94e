//! API servers that extend this one: an APIService says which group and version is served by which Service.
//!
//! `backend` says where that is, `connect` goes there, `availability` looks whether it answers and writes that into the
//! APIService's status, and `http/extension.rs` passes requests on. What the last look found is kept here, in memory, for
//! discovery. Mirrors `kube-aggregator`.

mod availability;
mod backend;
mod connect;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use api::{Kind, Snapshot, limits};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::ServerError;
use crate::pki::FrontProxy;
pub use availability::{is_available, keep_checking};
pub use backend::{Backend, Unavailable, backend};
pub use connect::{Dialer, exchange, identify, unchecked_tls};

/// What is shared by those who pass on, look and discover.
pub struct Aggregator {
    /// Goes to the servers.
    pub dialer: Dialer,
    /// How many requests may still be passed on.
    pub room: Arc<Semaphore>,
    discovered: Mutex<HashMap<String, Discovered>>,
}

/// The resources of a group and version, as its server tells them in `APIResourceList`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Discovered {
    /// Its `resources`.
    pub resources: Vec<Value>,
    /// The last look found them.
    pub fresh: bool,
}

/// A group and version that another server serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Extension {
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
    /// What it serves, as far as known.
    pub discovered: Discovered,
}

impl Aggregator {
    /// Nothing is known yet.
    pub fn new(proxy: &FrontProxy) -> Result<Aggregator, ServerError> {
        let room = Arc::new(Semaphore::new(limits::PASSED_ON));
        Ok(Aggregator { dialer: Dialer::new(proxy)?, room, discovered: Mutex::default() })
    }

    /// What other servers serve, in the order in which discovery lists it: by the priority of the group, then of the
    /// version (upstream: `apiregistration/v1/helper: SortedByGroupAndVersion`).
    pub fn extensions(&self, world: &Snapshot) -> Vec<Extension> {
        if world.count(Kind::APIService) == 0 {
            return Vec::new();
        }
        let discovered = self.discovered.lock().expect("no holder of this lock panics");
        sorted(world)
            .into_iter()
            .map(|service| {
                let spec = service.spec.clone().unwrap_or_default();
                let name = service.metadata.name.as_deref().unwrap_or("");
                let discovered = discovered.get(name).cloned().unwrap_or_default();
                let (group, version) = (spec.group.unwrap_or_default(), spec.version.unwrap_or_default());
                Extension { group, version, discovered }
            })
            .collect()
    }

    /// Keeps what a look found; without it what was known before is outdated.
    fn note(&self, name: &str, resources: Option<Vec<Value>>) {
        let mut discovered = self.discovered.lock().expect("no holder of this lock panics");
        let known = discovered.entry(name.to_owned()).or_default();
        known.fresh = resources.is_some();
        if let Some(resources) = resources {
            known.resources = resources;
        }
    }

    /// Forgets what no APIService stands for any more.
    fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.discovered.lock().expect("no holder of this lock panics").retain(|name, _| exists(name));
    }
}

/// The APIServices that name a Service, most important group first. A group stands where its most important version
/// stands.
fn sorted(world: &Snapshot) -> Vec<&APIService> {
    let mut all: Vec<&APIService> = world.list::<APIService>(None).filter(|service| is_remote(service)).collect();
    // The list is in the order of names; sorting keeps it among equals.
    all.sort_by_key(|service| spec(service).map_or(0, |spec| -spec.group_priority_minimum));
    let mut groups: Vec<Vec<&APIService>> = Vec::new();
    let group = |service: &APIService| spec(service).and_then(|spec| spec.group.clone());
    for service in all {
        match groups.iter_mut().find(|known| group(known[0]) == group(service)) {
            Some(known) => known.push(service),
            None => groups.push(vec![service]),
        }
    }
    for versions in &mut groups {
        let version = |service: &APIService| spec(service).and_then(|spec| spec.version.clone());
        versions
            .sort_by_key(|service| std::cmp::Reverse((spec(service).map(|it| it.version_priority), version(service))));
    }
    groups.concat()
}

fn spec(service: &APIService) -> Option<&APIServiceSpec> {
    service.spec.as_ref()
}

/// True for an APIService that another server stands behind.
pub fn is_remote(service: &APIService) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.service.is_some())
}

#[cfg(test)]
mod tests {
    use api::Object;
    use serde_json::json;

    use super::*;

    #[test]
    fn important_groups_and_versions_come_first() {
        let mut world = Snapshot::default();
        for (group, version, group_priority, version_priority) in [
            ("b", "v1", 100, 10),
            ("b", "v1beta1", 300, 5),
            ("a", "v1alpha1", 200, 100),
            ("a", "v1beta1", 200, 200),
            ("a", "v1beta2", 200, 200),
        ] {
            let spec = json!({ "group": group, "version": version, "groupPriorityMinimum": group_priority,
                "versionPriority": version_priority, "service": { "namespace": "d", "name": "s" } });
            let value = json!({ "metadata": { "name": format!("{version}.{group}") }, "spec": spec });
            world.put(Object::written(Kind::APIService.decode(value).unwrap(), world.revision() + 1));
        }
        let names: Vec<&str> = sorted(&world).iter().filter_map(|it| it.metadata.name.as_deref()).collect();
        assert_eq!(names, ["v1.b", "v1beta1.b", "v1beta2.a", "v1beta1.a", "v1alpha1.a"]);
    }
}
