//! The claims of a pod: nodes on which its volumes can be used, and volumes that are chosen or made together with the
//! node.
//!
//! Mirrors upstream's plugins VolumeBinding (`volumebinding/{volume_binding,binder}.go`) and, for ReadWriteOncePod,
//! VolumeRestrictions, with their words. A claim that waits for its first pod is settled in the plan that binds the pod
//! if it is known that its volume comes: an existing one, or a folder of the node. For a volume that others make the
//! node is only named on the claim, and the pod waits until it is there.

use api::volumes::{self, LOCAL_PROVISIONER, SELECTED_NODE};
use api::{Kind, Pod, Snapshot, Typed, Write};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::name_of;

#[cfg(test)]
mod tests;

const NODE_CONFLICT: &str = "node(s) didn't match PersistentVolume's node affinity";
const BIND_CONFLICT: &str = "node(s) didn't find available persistent volumes to bind";
const VOLUME_GONE: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
const ALONE: &str = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";

/// What the claims of one pod demand of a node.
#[derive(Default)]
pub struct Volumes<'a> {
    bound: Vec<&'a PersistentVolume>,
    open: Vec<Open<'a>>,
    /// What keeps the pod from every node.
    everywhere: Option<&'static str>,
}

/// A claim that is bound when it is known where its pod goes.
struct Open<'a> {
    claim: &'a PersistentVolumeClaim,
    class: &'a StorageClass,
    /// Volumes that would do, the best first.
    candidates: Vec<&'a PersistentVolume>,
}

/// How an open claim gets its volume.
enum Way<'a> {
    Existing(&'a PersistentVolume),
    Made,
}

/// What is to be done about the claims before the pod is bound.
pub struct Settling {
    /// The writes.
    pub writes: Vec<Write>,
    /// True if the pod need not wait for what others do.
    pub is_sure: bool,
}

impl<'a> Volumes<'a> {
    /// Reads the claims of a pod; if they forbid it to go anywhere, why.
    pub fn of(pod: &Pod, world: &'a Snapshot) -> Result<Volumes<'a>, String> {
        let mut all = Volumes::default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
        let mut immediate = false;
        for name in volumes::claims_of(pod) {
            let Some(claim) = world.get::<PersistentVolumeClaim>(namespace, name) else {
                return Err(format!("persistentvolumeclaim \"{name}\" not found"));
            };
            let volume = volumes::volume_name(claim);
            if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
                return Err(format!(
                    "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
                ));
            }
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            let alone = volumes::access_modes(claim).iter().any(|mode| mode == "ReadWriteOncePod");
            if alone && volumes::users(&claim.metadata, world).any(|other| !crate::has_ended(other)) {
                all.everywhere = Some(ALONE);
            }
            let class = volumes::class_of_claim(claim).and_then(|class| world.get::<StorageClass>("", class));
            if volumes::is_bound(claim) {
                match world.get::<PersistentVolume>("", volume) {
                    Some(volume) => all.bound.push(volume),
                    None => all.everywhere = Some(VOLUME_GONE),
                }
            } else if let Some(class) = class.filter(|class| volumes::waits_for_consumer(class) && volume.is_empty()) {
                all.open.push(Open { claim, class, candidates: volumes::candidates(claim, world, false) });
            } else {
                immediate = true;
            }
        }
        if immediate { Err("pod has unbound immediate PersistentVolumeClaims".into()) } else { Ok(all) }
    }

    /// Says whether the pod's volumes can be used, or be had, on a node; if not, why.
    pub fn check(&self, node: &Node) -> Result<(), Vec<String>> {
        let refuse = |why: &str| Err(vec![why.to_owned()]);
        if let Some(why) = self.everywhere {
            return refuse(why);
        }
        if !self.bound.iter().all(|volume| volumes::fits_node(volume, node)) {
            return refuse(NODE_CONFLICT);
        }
        if self.ways(node).is_none() { refuse(BIND_CONFLICT) } else { Ok(()) }
    }

    /// How each open claim gets its volume if the pod goes to `node`; none if one cannot.
    fn ways(&self, node: &Node) -> Option<Vec<Way<'a>>> {
        let mut ways = Vec::new();
        let mut taken: Vec<Option<&String>> = Vec::new();
        for open in &self.open {
            let selected = volumes::annotation(&open.claim.metadata, SELECTED_NODE);
            if selected.is_some_and(|selected| selected != name_of(node)) {
                return None;
            }
            let mut usable = open.candidates.iter().filter(|volume| volumes::fits_node(volume, node));
            let found = usable.find(|volume| !taken.contains(&volume.metadata.name.as_ref()));
            ways.push(match found {
                Some(volume) => Way::Existing(volume),
                None if is_made(open.class) && volumes::may_be_made_on(open.class, node) => Way::Made,
                None => return None,
            });
            taken.push(found.and_then(|volume| volume.metadata.name.as_ref()));
        }
        Some(ways)
    }

    /// What makes the open claims those of `node`.
    pub fn settle(&self, node: &Node) -> Settling {
        let mut settling = Settling { writes: Vec::new(), is_sure: true };
        let ways = self.ways(node).unwrap_or_default();
        for (open, way) in self.open.iter().zip(ways) {
            match way {
                Way::Existing(volume) => {
                    let tied = volumes::tied(volume, open.claim);
                    if tied != *volume {
                        settling.writes.push(Write::Update(tied.into_body()));
                    }
                }
                Way::Made => {
                    settling.is_sure &=
                        open.class.provisioner == LOCAL_PROVISIONER && volumes::suits_folder(open.claim).is_ok();
                    settling.writes.extend(select(open.claim, node));
                }
            }
        }
        settling
    }
}

/// True if volumes of the class are made by somebody.
fn is_made(class: &StorageClass) -> bool {
    class.provisioner != "kubernetes.io/no-provisioner"
}

/// Names the node on the claim, if it is not named yet.
fn select(claim: &PersistentVolumeClaim, node: &Node) -> Option<Write> {
    if volumes::annotation(&claim.metadata, SELECTED_NODE).is_some() {
        return None;
    }
    let mut claim = claim.clone();
    claim.metadata.annotations.get_or_insert_default().insert(SELECTED_NODE.into(), name_of(node).to_owned());
    Some(Write::Update(claim.into_body()))
}

/// Pods that wait and that a changed claim, volume or class may concern.
pub fn concerned<'a>(change: &'a api::Change, world: &'a Snapshot) -> impl Iterator<Item = &'a Pod> {
    let object = change.object();
    let is_open = |volume: &PersistentVolume| volumes::claim_ref(volume).is_none();
    let concerns = match change.kind() {
        Kind::PersistentVolumeClaim | Kind::StorageClass => true,
        Kind::PersistentVolume => change.after.is_none() || object.get::<PersistentVolume>().is_some_and(is_open),
        _ => false,
    };
    let waiting = concerns.then(|| world.unbound_pods()).into_iter().flatten();
    waiting.filter(move |pod| match change.kind() {
        Kind::PersistentVolumeClaim => {
            pod.metadata.namespace.as_deref() == Some(object.namespace())
                && volumes::claims_of(pod).any(|name| name == object.name())
        }
        _ => volumes::claims_of(pod).next().is_some(),
    })
}
