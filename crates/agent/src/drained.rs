//! When is it safe to stop a pod? When no proxy sends requests to it any more.
//!
//! The promise behind "no request is lost": a pod that leaves is dropped from its EndpointSlices, every proxy applies
//! that and says so in a Lease (`kube-node-lease/kapstan-proxy-<node>`, annotation [`acknowledgement::APPLIED_REVISION`]), and only then its
//! containers are asked to stop. Upstream has no such step (kubernetes#43576, #123116): there an application sleeps in
//! its preStop hook and hopes. A proxy whose Lease was not renewed for [`acknowledgement::ALIVE`] is dead and not waited for; that
//! is judged by when the renewal was seen here, not by clocks of two machines.
//!
//! [`Drained`] watches slices and Leases once per process. It writes nothing and changes no rule.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use api::acknowledgement;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        discovery::v1::{Endpoint, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    runtime::{WatchStreamExt, watcher},
};
use tokio::sync::watch;

/// Between two looks when the API cannot be asked.
const RETRY: Duration = Duration::from_millis(200);

/// What this process knows of slices and proxies; one for all pods. Cheap to clone.
#[derive(Clone)]
pub struct Drained {
    client: Client,
    roads: Arc<Mutex<Roads>>,
    changed: watch::Sender<u64>,
    own: Option<(String, watch::Receiver<u64>)>,
}

#[derive(Default)]
struct Roads {
    /// Pods that a slice offers, by namespace and name of the slice.
    slices: HashMap<(String, String), Vec<String>>,
    proxies: HashMap<String, Proxy>,
}

struct Proxy {
    applied: u64,
    renewed: Option<Timestamp>,
    seen: Instant,
}

impl Roads {
    fn offers(&self, uid: &str) -> bool {
        self.slices.values().flatten().any(|other| other == uid)
    }

    fn put(&mut self, slice: &EndpointSlice) {
        self.slices.insert(key(&slice.metadata), offered(slice));
    }

    /// A renewal counts from when it is seen; what is old already at the first sight is dead.
    fn renew(&mut self, lease: &Lease, now: Instant) {
        let Some(node) = acknowledgement::node_of(&lease.name_any()).map(str::to_owned) else { return };
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
        let applied =
            lease.annotations().get(acknowledgement::APPLIED_REVISION).and_then(|text| text.parse().ok()).unwrap_or(0);
        match self.proxies.get_mut(&node) {
            Some(proxy) => {
                proxy.applied = applied;
                if proxy.renewed != renewed {
                    proxy.renewed = renewed;
                    proxy.seen = now;
                }
            }
            None => {
                let age = renewed.map_or(acknowledgement::ALIVE, |at| {
                    Duration::try_from(Timestamp::now().duration_since(at)).unwrap_or_default()
                });
                let seen = now.checked_sub(age).unwrap_or(now);
                self.proxies.insert(node, Proxy { applied, renewed, seen });
            }
        }
    }

    /// Live proxies that have not applied `revision` yet.
    fn late(&self, revision: u64, own: Option<(&str, u64)>) -> Vec<String> {
        let applied = |node: &str, told: u64| match own {
            Some((own, direct)) if own == node => told.max(direct),
            _ => told,
        };
        // Our own proxy lives as long as we do, though a busy disk may hold its Lease up.
        let is_own = |node: &str| own.is_some_and(|(own, _)| own == node);
        let lives = |node: &str, proxy: &Proxy| is_own(node) || proxy.seen.elapsed() < acknowledgement::ALIVE;
        let alive = self.proxies.iter().filter(|(node, proxy)| lives(node, proxy));
        let late = alive.filter(|(node, proxy)| applied(node, proxy.applied) < revision);
        let mut late: Vec<_> = late.map(|(node, _)| node.clone()).collect();
        // Our own proxy counts before its first Lease is written.
        if let Some((node, direct)) = own
            && direct < revision
            && !self.proxies.contains_key(node)
        {
            late.push(node.to_owned());
        }
        late.sort();
        late
    }
}

fn key(meta: &ObjectMeta) -> (String, String) {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn revision(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn offered(slice: &EndpointSlice) -> Vec<String> {
    let pods = slice.endpoints.iter().flatten().filter(|endpoint| gets_requests(endpoint));
    pods.filter_map(|endpoint| endpoint.target_ref.as_ref()?.uid.clone()).collect()
}

/// Whether a proxy sends new requests to the endpoint; all-terminating fallback aside.
fn gets_requests(endpoint: &Endpoint) -> bool {
    let Some(conditions) = &endpoint.conditions else { return true };
    let terminating = conditions.terminating == Some(true);
    let ready = conditions.ready.unwrap_or(true);
    !terminating && (ready || conditions.serving == Some(true))
}

impl Drained {
    /// Starts watching. `own`: the node of the proxy in this process and the revision it has applied, known here
    /// before its Lease is.
    pub fn start(client: Client, own: Option<(String, watch::Receiver<u64>)>) -> Drained {
        let drained = Drained { client, roads: Arc::default(), changed: watch::Sender::new(0), own };
        tokio::spawn(drained.clone().watch_slices());
        tokio::spawn(drained.clone().watch_leases());
        if let Some((_, mut applied)) = drained.own.clone() {
            let changed = drained.changed.clone();
            tokio::spawn(async move {
                while applied.changed().await.is_ok() {
                    changed.send_modify(|turn| *turn += 1);
                }
            });
        }
        drained
    }

    fn with<T>(&self, change: impl FnOnce(&mut Roads) -> T) -> T {
        change(&mut self.roads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn update(&self, change: impl FnOnce(&mut Roads)) {
        self.with(change);
        self.changed.send_modify(|turn| *turn += 1);
    }

    async fn watch_slices(self) {
        let slices: Api<EndpointSlice> = Api::all(self.client.clone());
        let mut events = watcher(slices, watcher::Config::default()).default_backoff().boxed();
        let mut listed = HashMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(slice)) => {
                    listed.insert(key(&slice.metadata), ());
                    self.update(|roads| roads.put(&slice));
                }
                Ok(watcher::Event::InitDone) => self.update(|roads| {
                    roads.slices.retain(|key, _| listed.contains_key(key));
                }),
                Ok(watcher::Event::Apply(slice)) => self.update(|roads| roads.put(&slice)),
                Ok(watcher::Event::Delete(slice)) => self.update(|roads| {
                    roads.slices.remove(&key(&slice.metadata));
                }),
                Err(error) => tracing::debug!("watching EndpointSlices: {error}"),
            }
        }
    }

    async fn watch_leases(self) {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), acknowledgement::NAMESPACE);
        let mut events = watcher(leases, watcher::Config::default()).default_backoff().boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::InitApply(lease) | watcher::Event::Apply(lease)) => {
                    if acknowledgement::node_of(&lease.name_any()).is_some() {
                        self.update(|roads| roads.renew(&lease, Instant::now()));
                    }
                }
                Ok(watcher::Event::Delete(lease)) => self.update(|roads| {
                    if let Some(node) = acknowledgement::node_of(&lease.name_any()) {
                        roads.proxies.remove(node);
                    }
                }),
                Ok(_) => {}
                Err(error) => tracing::debug!("watching the Leases of proxies: {error}"),
            }
        }
    }

    /// Waits until no slice offers the pod and every live proxy has applied that. `Some(sentence)`: the deadline
    /// came first, and why.
    pub async fn wait_out_of_rules(&self, namespace: &str, uid: &str, deadline: Duration) -> Option<String> {
        let waited = tokio::time::timeout(deadline, async {
            let revision = self.wait_dropped(namespace, uid).await;
            self.wait_applied(revision).await;
        });
        if waited.await.is_ok() {
            return None;
        }
        let seconds = deadline.as_secs();
        let offered = self.with(|roads| roads.offers(uid));
        let late = self.late(u64::MAX).join(", ");
        Some(match offered {
            true => format!("Stopping although EndpointSlices still offer the pod after {seconds}s"),
            false => format!("Stopping although proxies have not acknowledged the removal after {seconds}s: {late}"),
        })
    }

    /// The revision from which on no slice offers the pod.
    async fn wait_dropped(&self, namespace: &str, uid: &str) -> u64 {
        let mut changed = self.changed.subscribe();
        loop {
            match self.look(namespace, uid).await {
                Ok(Look::Dropped(revision)) => return revision,
                Ok(Look::Offered) => {
                    // The sender lives as long as self.
                    let _ = tokio::time::timeout(Duration::from_secs(1), changed.changed()).await;
                }
                Err(error) => {
                    tracing::debug!("listing EndpointSlices: {error}");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// What was watched may be old: a pod that has just become ready could be missing from it. So before a pod is
    /// taken for dropped the API is asked. The highest revision among the slices is one that every proxy will reach.
    async fn look(&self, namespace: &str, uid: &str) -> kube::Result<Look> {
        if self.with(|roads| roads.offers(uid)) {
            return Ok(Look::Offered);
        }
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), namespace);
        let listed = slices.list(&ListParams::default()).await?;
        if listed.items.iter().any(|slice| offered(slice).iter().any(|other| other == uid)) {
            return Ok(Look::Offered);
        }
        Ok(Look::Dropped(listed.items.iter().map(|slice| revision(&slice.metadata)).max().unwrap_or(0)))
    }

    fn late(&self, revision: u64) -> Vec<String> {
        let own = self.own.as_ref().map(|(node, applied)| (node.as_str(), *applied.borrow()));
        self.with(|roads| roads.late(revision, own))
    }

    async fn wait_applied(&self, revision: u64) {
        let mut changed = self.changed.subscribe();
        while !self.late(revision).is_empty() {
            // Woken now and then also without news: a proxy may have died.
            let _ = tokio::time::timeout(Duration::from_secs(1), changed.changed()).await;
        }
    }
}

enum Look {
    Offered,
    Dropped(u64),
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use serde_json::json;

    fn slice(revision: u64, endpoints: &[(&str, bool, bool)]) -> EndpointSlice {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|(uid, ready, terminating)| {
                json!({"addresses": ["10.0.0.1"], "targetRef": {"uid": uid},
                       "conditions": {"ready": ready, "serving": ready, "terminating": terminating}})
            })
            .collect();
        serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": "s", "resourceVersion": revision.to_string()},
            "addressType": "IPv4", "endpoints": endpoints,
        }))
        .unwrap()
    }

    fn lease(node: &str, applied: u64) -> Lease {
        serde_json::from_value(json!({
            "metadata": {"name": acknowledgement::lease_name(node), "annotations": {acknowledgement::APPLIED_REVISION: applied.to_string()}},
            "spec": {"renewTime": MicroTime(Timestamp::now())},
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_is_out_when_no_slice_offers_it_and_every_live_proxy_says_so() {
        let mut roads = Roads::default();
        roads.put(&slice(5, &[("a", true, false), ("b", true, false)]));
        assert!(roads.offers("a"));
        roads.put(&slice(9, &[("a", false, true), ("b", true, false)]));
        assert!(!roads.offers("a"));
        let now = Instant::now();
        roads.renew(&lease("n1", 9), now);
        roads.renew(&lease("n2", 8), now);
        assert_eq!(roads.late(9, None), ["n2"]);
        roads.renew(&lease("n2", 9), now);
        assert!(roads.late(9, None).is_empty());
    }

    #[test]
    fn a_dead_proxy_is_not_waited_for() {
        let mut roads = Roads::default();
        let mut old = lease("n1", 1);
        old.spec.as_mut().unwrap().renew_time = Some(MicroTime(Timestamp::now() - jiff::SignedDuration::from_secs(60)));
        roads.renew(&old, Instant::now());
        assert!(roads.late(9, None).is_empty());
        assert_eq!(roads.late(9, Some(("n1", 8))), ["n1"], "our own is not dead, only its Lease is late");
        assert!(roads.late(9, Some(("n1", 9))).is_empty());
    }

    #[test]
    fn our_own_proxy_is_believed_before_its_lease() {
        let mut roads = Roads::default();
        assert_eq!(roads.late(9, Some(("n1", 8))), ["n1"]);
        assert!(roads.late(9, Some(("n1", 9))).is_empty());
        roads.renew(&lease("n1", 3), Instant::now());
        assert!(roads.late(9, Some(("n1", 9))).is_empty());
    }
}
