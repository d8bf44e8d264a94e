//! Keeps records true to a cluster: follows Services and EndpointSlices.

use std::{
    fmt::Debug,
    sync::{Arc, PoisonError, RwLock},
};

use futures::StreamExt;
use k8s_openapi::{
    api::{core::v1::Service, discovery::v1::EndpointSlice},
    serde::de::DeserializeOwned,
};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};

use crate::records::Records;

/// Runs for ever. Failures of the cluster's connection are logged and tried again; what is known stays.
pub async fn follow(client: Client, records: Arc<RwLock<Records>>) {
    let services = each(Api::<Service>::all(client.clone()), &records, Records::learn_service);
    let slices = each(Api::<EndpointSlice>::all(client), &records, Records::learn_slice);
    tokio::join!(services, slices);
}

async fn each<K>(api: Api<K>, records: &RwLock<Records>, learn: fn(&mut Records, Event<K>))
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            // Each event is taken whole, so that a panic elsewhere has left nothing half done.
            Ok(event) => learn(&mut records.write().unwrap_or_else(PoisonError::into_inner), event),
            Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "cannot follow; names stay as they are"),
        }
    }
}
