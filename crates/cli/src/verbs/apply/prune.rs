//! `apply --prune`: delete what an earlier `apply` made and the files no longer name. Mirrors kubectl `pkg/cmd/apply/prune.go`
//! and `pkg/util/prune/prune.go`.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Applying, LAST_APPLIED};
use crate::change::DryRun;
use crate::discovery::{Discovery, Resource};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Found};
use crate::print;
use crate::session::Session;

/// The kinds that are looked through where `--prune-allowlist` names none.
const KINDS: [&str; 16] = [
    "core/v1/ConfigMap",
    "core/v1/Endpoints",
    "core/v1/Namespace",
    "core/v1/PersistentVolumeClaim",
    "core/v1/PersistentVolume",
    "core/v1/Pod",
    "core/v1/ReplicationController",
    "core/v1/Secret",
    "core/v1/Service",
    "batch/v1/Job",
    "batch/v1/CronJob",
    "networking.k8s.io/v1/Ingress",
    "apps/v1/DaemonSet",
    "apps/v1/Deployment",
    "apps/v1/ReplicaSet",
    "apps/v1/StatefulSet",
];

/// What the files name: it stays.
#[derive(Default)]
pub struct Named {
    uids: BTreeSet<String>,
    namespaces: BTreeSet<String>,
}

impl Named {
    /// An object that was applied, as the server has it.
    pub fn add(&mut self, item: &Found, applied: &serde_json::Value) {
        self.uids.insert(applied.text("metadata.uid").to_owned());
        self.namespaces.extend(item.namespace.clone());
    }
}

/// The kinds to look through.
pub fn kinds(discovery: &Discovery, allowed: &[String]) -> Result<Vec<Resource>> {
    let one = |text: &str| {
        let parts: Vec<&str> = text.split('/').collect();
        let [group, version, kind] = parts.as_slice() else {
            let why = format!("invalid GroupVersionKind format: {text}, please follow <group/version/kind>");
            return Err(Error::told(why));
        };
        let api_version =
            if matches!(*group, "" | "core") { (*version).to_owned() } else { format!("{group}/{version}") };
        let unknown = || Error::told(format!("no matches for kind {kind:?} in version {api_version:?}"));
        discovery.kind(&api_version, kind).cloned().ok_or_else(unknown)
    };
    match allowed.is_empty() {
        true => KINDS.iter().map(|text| one(text)).collect(),
        false => allowed.iter().map(|text| one(text)).collect(),
    }
}

/// Deletes what `apply` made, the selector picks and no file names: in the namespaces of what they do name, and outside of namespaces.
pub async fn prune(
    session: &mut Session,
    options: &Applying,
    dry_run: DryRun,
    kinds: &[Resource],
    named: &Named,
) -> Result<()> {
    let (inside, outside): (Vec<&Resource>, Vec<&Resource>) = kinds.iter().partition(|kind| kind.namespaced);
    let inside = named.namespaces.iter().flat_map(|place| inside.iter().map(move |kind| (*kind, Some(place.as_str()))));
    let places: Vec<(&Resource, Option<&str>)> = inside.chain(outside.into_iter().map(|kind| (kind, None))).collect();
    for (kind, namespace) in places {
        let scope = if kind.namespaced { "namespaced" } else { "nonNamespaced" };
        let failed = |error: Error| {
            let (version, name) = (kind.api_version(), &kind.kind);
            let slash = if kind.group.is_empty() { "/" } else { "" };
            let why = error.inner_message();
            Error::told(format!("error pruning {scope} object {slash}{version}, Kind={name}: {why}"))
        };
        one_kind(session, options, dry_run, kind, namespace, named).await.map_err(failed)?;
    }
    Ok(())
}

async fn one_kind(
    session: &mut Session,
    options: &Applying,
    dry_run: DryRun,
    kind: &Resource,
    namespace: Option<&str>,
    named: &Named,
) -> Result<()> {
    let client = session.client()?;
    let selector = options.selector.iter().map(|selector| ("labelSelector", selector.clone())).collect::<Vec<_>>();
    let mut list = client.list(kind, namespace, &selector).await?;
    for object in objects::items(&mut list) {
        let is_applied = object.map("metadata.annotations").contains_key(LAST_APPLIED);
        if !is_applied || named.uids.contains(object.text("metadata.uid")) {
            continue;
        }
        let item = objects::of(kind, object);
        let mut body = options.deletion.body(session)?;
        if dry_run == DryRun::Server {
            body["dryRun"] = json!(["All"]);
        }
        if dry_run != DryRun::Client {
            client.delete(&item.path(), &body).await?;
        }
        print::done_apart(session, &options.output, &item.object, &format!("pruned{}", dry_run.suffix()))?;
    }
    Ok(())
}
