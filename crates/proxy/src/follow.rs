//! Keeping a node's rules true to a cluster: follows Services and EndpointSlices, applies what changed, and acknowledges it.
//!
//! The acknowledgement is what lets a pod be stopped without losing a request. The Lease `kapstan-proxy-<node>` in
//! `kube-node-lease` carries in [`acknowledgement::APPLIED_REVISION`] the revision up to which *every* change of EndpointSlices is in this
//! node's kernel. Whoever waits for revision R of a slice (also of a deleted one) compares with `>=`. Only the slices' watch
//! counts: Services come by another one, and a newer revision seen there says nothing about slices not yet seen.
//!
//! Everything that is waiting is applied at once, so a burst costs one batch. Nothing is applied before both lists are
//! complete: rules of an earlier run stay until then. Rules stay when this ends, too, and so does the Lease, which runs out.

use std::{collections::BTreeMap, fmt::Debug, future::Future, net::SocketAddrV4, time::Duration};

use api::acknowledgement;
use futures::{StreamExt, pin_mut};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::Service,
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    error::ProxyError,
    health::{Health, Ports, health},
    proxy::{Applied, Proxy},
    rules::Frontend,
};

/// How often the Lease is renewed when nothing changes.
pub const RENEW_EVERY: Duration = Duration::from_secs(10);
/// How often it is looked whether another program flushed the table.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// News that wait to be applied; a watch is read no further while so many wait.
const MAX_WAITING: usize = 4096;
/// Objects in one page of a list.
const PAGE: u32 = 1000;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(5);
const GONE: u16 = 410;
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;

/// Runs until `shutdown` resolves. `led` are the ports of the node that lead to pods on it. `on_applied` hears of every change that is in force, with the revision it acknowledges.
///
/// Failures of the cluster's connection and of the kernel are logged and tried again.
pub async fn run(
    client: Client,
    proxy: Proxy,
    led: watch::Receiver<BTreeMap<Frontend, SocketAddrV4>>,
    shutdown: impl Future<Output = ()>,
    on_applied: impl FnMut(&Applied, u64),
) -> Result<(), ProxyError> {
    let node_name = proxy.node_name().to_owned();
    let (services, service_news) = mpsc::channel(MAX_WAITING);
    let (slices, slice_news) = mpsc::channel(MAX_WAITING);
    let (applied, acknowledge_up_to) = watch::channel(0);
    tokio::select! {
        () = shutdown => Ok(()),
        () = follow(Api::<Service>::all(client.clone()), services) => Ok(()),
        () = follow(Api::<EndpointSlice>::all(client.clone()), slices) => Ok(()),
        () = acknowledge(Api::namespaced(client, acknowledgement::NAMESPACE), node_name, acknowledge_up_to) => Ok(()),
        result = apply(proxy, service_news, slice_news, led, applied, on_applied) => result,
    }
}

// ---- following ----

/// A step of a list and watch.
enum News<K> {
    /// All there is, as of a revision.
    All(Vec<K>, u64),
    /// A new or changed object.
    Changed(K),
    /// A deleted object, with the revision of its deletion.
    Gone(K),
    /// Nothing happened up to a revision.
    Passed(u64),
}

/// Lists and watches for ever, or until nobody listens.
async fn follow<K>(api: Api<K>, listener: mpsc::Sender<News<K>>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut retry = FIRST_RETRY;
    let mut revision: Option<String> = None;
    loop {
        let result = match &mut revision {
            None => list(&api, &listener).await.map(|listed| revision = Some(listed)),
            Some(seen) => watch_from(&api, seen, &listener, &mut retry).await,
        };
        if listener.is_closed() {
            return;
        }
        match result {
            Ok(()) => {}
            Err(kube::Error::Api(status)) if status.code == GONE => revision = None,
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, again_in = ?retry, "cannot follow; what is in force stays");
                sleep(retry).await;
                retry = (retry * 2).min(LAST_RETRY);
            }
        }
    }
}

/// Hands over everything there is; returns the revision to watch from.
async fn list<K>(api: &Api<K>, listener: &mpsc::Sender<News<K>>) -> Result<String, kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut all = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => {
                let revision = page.metadata.resource_version.unwrap_or_default();
                // A closed channel is noticed by the caller.
                let _ = listener.send(News::All(all, number(&revision))).await;
                return Ok(revision);
            }
        }
    }
}

/// Hands over changes after `revision`, which moves along. Returns when the server ends the watch, as it does now and then.
async fn watch_from<K>(
    api: &Api<K>,
    revision: &mut String,
    listener: &mpsc::Sender<News<K>>,
    retry: &mut Duration,
) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let started = Instant::now();
    let stream = api.watch(&WatchParams::default(), revision).await?;
    pin_mut!(stream);
    while let Some(event) = stream.next().await {
        let news = match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => News::Changed(object),
            WatchEvent::Deleted(object) => News::Gone(object),
            WatchEvent::Bookmark(bookmark) => {
                revision.clone_from(&bookmark.metadata.resource_version);
                News::Passed(number(revision))
            }
            WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
        };
        if let News::Changed(object) | News::Gone(object) = &news
            && let Some(version) = object.resource_version()
        {
            *revision = version;
        }
        *retry = FIRST_RETRY;
        if listener.send(news).await.is_err() {
            return Ok(());
        }
    }
    // A server that ends every watch at once is not asked again in a tight loop.
    if started.elapsed() < FIRST_RETRY {
        sleep(FIRST_RETRY).await;
    }
    Ok(())
}

/// Revisions are numbers that grow (upstream promises that they can be compared since 1.35).
fn number(revision: &str) -> u64 {
    revision.parse().unwrap_or_default()
}

// ---- applying ----

/// What is known of one kind.
struct Known<K> {
    objects: BTreeMap<(String, String), K>,
    /// The revision up to which everything is known; `None` before the first list is complete.
    revision: Option<u64>,
}

impl<K: ResourceExt> Known<K> {
    fn new() -> Self {
        Known { objects: BTreeMap::new(), revision: None }
    }

    fn learn(&mut self, news: News<K>) {
        let revision = match news {
            News::All(objects, revision) => {
                self.objects = objects.into_iter().map(|object| (key(&object), object)).collect();
                revision
            }
            News::Changed(object) => {
                let revision = version(&object);
                self.objects.insert(key(&object), object);
                revision
            }
            News::Gone(object) => {
                self.objects.remove(&key(&object));
                version(&object)
            }
            News::Passed(revision) => revision,
        };
        self.revision = Some(self.revision.unwrap_or_default().max(revision));
    }

    /// Says whether there was anything.
    fn learn_waiting(&mut self, waiting: &mut mpsc::Receiver<News<K>>) -> bool {
        let mut any = false;
        while let Ok(next) = waiting.try_recv() {
            self.learn(next);
            any = true;
        }
        any
    }
}

fn key<K: ResourceExt>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn version<K: ResourceExt>(object: &K) -> u64 {
    object.resource_version().map_or(0, |revision| number(&revision))
}

/// Applies news as they come. Ends only when nobody brings any more, or with an error that no repetition can heal.
async fn apply(
    proxy: Proxy,
    mut service_news: mpsc::Receiver<News<Service>>,
    mut slice_news: mpsc::Receiver<News<EndpointSlice>>,
    mut led: watch::Receiver<BTreeMap<Frontend, SocketAddrV4>>,
    applied: watch::Sender<u64>,
    mut on_applied: impl FnMut(&Applied, u64),
) -> Result<(), ProxyError> {
    let (mut proxy, mut services, mut slices) = (proxy, Known::new(), Known::new());
    let mut ports = Ports::default();
    let mut check_at = Instant::now() + CHECK_EVERY;
    let mut retry = FIRST_RETRY;
    loop {
        let mut changed = tokio::select! {
            news = service_news.recv() => match news {
                Some(news) => { services.learn(news); true }
                None => return Ok(()),
            },
            news = slice_news.recv() => match news {
                Some(news) => { slices.learn(news); true }
                None => return Ok(()),
            },
            Ok(()) = led.changed() => {
                proxy.lead(led.borrow_and_update().clone());
                true
            }
            () = sleep_until(check_at) => false,
        };
        changed |= services.learn_waiting(&mut service_news);
        changed |= slices.learn_waiting(&mut slice_news);
        let (Some(_), Some(revision)) = (services.revision, slices.revision) else {
            continue;
        };
        // Writing to the kernel blocks; the connection to the cluster is served meanwhile.
        let work = tokio::task::spawn_blocking(move || {
            let result = apply_known(&mut proxy, &services, &slices, changed);
            (result, proxy, services, slices)
        });
        let result;
        (result, proxy, services, slices) = work.await.map_err(ProxyError::Panicked)?;
        match result {
            Ok(done) => {
                retry = FIRST_RETRY;
                check_at = Instant::now() + CHECK_EVERY;
                applied.send_if_modified(|last| std::mem::replace(last, revision) != revision);
                if let Some((done, health)) = done {
                    ports.answer(health);
                    on_applied(&done, revision);
                    // Pods may stop now; what is left of connections to those that have is looked after meanwhile.
                    let work = tokio::task::spawn_blocking(move || {
                        bury_known(&mut proxy, &slices);
                        (proxy, slices)
                    });
                    (proxy, slices) = work.await.map_err(ProxyError::Panicked)?;
                }
            }
            Err(error) => {
                tracing::error!(%error, again_in = ?retry, "cannot put the rules of services in force");
                check_at = Instant::now() + retry;
                retry = (retry * 2).min(LAST_RETRY);
            }
        }
    }
}

/// What was put in force, and what balancers are told by ports for health checks.
type InForce = (Applied, BTreeMap<u16, Health>);

/// `None`: nothing changed, and everything is in place.
fn apply_known(
    proxy: &mut Proxy,
    services: &Known<Service>,
    slices: &Known<EndpointSlice>,
    changed: bool,
) -> Result<Option<InForce>, ProxyError> {
    if !changed {
        if proxy.verify()? {
            return Ok(None);
        }
        tracing::warn!("the table of services is not in the kernel; writing it anew");
    }
    let services: Vec<&Service> = services.objects.values().collect();
    let slices: Vec<&EndpointSlice> = slices.objects.values().collect();
    let applied = proxy.apply(&services, &slices)?;
    Ok(Some((applied, health(&services, &slices, proxy.node_name()))))
}

fn bury_known(proxy: &mut Proxy, slices: &Known<EndpointSlice>) {
    let slices: Vec<&EndpointSlice> = slices.objects.values().collect();
    match proxy.bury(&slices) {
        Ok(0) => {}
        Ok(buried) => tracing::debug!(buried, "connections to pods that are gone were forgotten"),
        // What is left of them ends by itself in minutes.
        Err(error) => tracing::warn!(%error, "connections to pods that are gone could not be forgotten"),
    }
}

// ---- acknowledging ----

/// Writes the Lease whenever the applied revision grows, and otherwise now and then.
async fn acknowledge(leases: Api<Lease>, node_name: String, mut applied: watch::Receiver<u64>) {
    let name = acknowledgement::lease_name(&node_name);
    let mut retry = FIRST_RETRY;
    // Before the first rules are in force there is nothing to acknowledge.
    if applied.changed().await.is_err() {
        return;
    }
    loop {
        let revision = *applied.borrow_and_update();
        let pause = match write_lease(&leases, &name, &node_name, revision).await {
            Ok(()) => {
                retry = FIRST_RETRY;
                RENEW_EVERY
            }
            Err(error) => {
                tracing::warn!(lease = %name, %error, again_in = ?retry, "cannot acknowledge; pods that stop wait for it");
                let pause = retry;
                retry = (retry * 2).min(LAST_RETRY);
                pause
            }
        };
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            () = sleep(pause) => {}
        }
    }
}

async fn write_lease(leases: &Api<Lease>, name: &str, node_name: &str, revision: u64) -> Result<(), kube::Error> {
    let mut lease = Lease::default();
    lease.metadata.name = Some(name.to_owned());
    lease.metadata.annotations = Some([(acknowledgement::APPLIED_REVISION.to_owned(), revision.to_string())].into());
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(node_name.to_owned()),
        lease_duration_seconds: Some(acknowledgement::ALIVE.as_secs() as i32),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    });
    let patch = Patch::Merge(&lease);
    match leases.patch(name, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(status)) if status.code == NOT_FOUND => {}
        result => return result.map(drop),
    }
    match leases.create(&PostParams::default(), &lease).await {
        Err(kube::Error::Api(status)) if status.code == CONFLICT => {
            leases.patch(name, &PatchParams::default(), &patch).await.map(drop)
        }
        result => result.map(drop),
    }
}
