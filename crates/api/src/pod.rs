//! A Pod as it is kept: Kubernetes' type, but pods that are alike share one spec.
//!
//! Thousands of pods of one template differ in their names, nodes and states; their specs are the bulk of them and are
//! nearly all the same. So a pod points to its spec, the versions of a pod point to the same one while nobody changes it,
//! and [`PodSpecs`] finds the spec of another pod that is equal.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};

use k8s_openapi::api::core::v1::{PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::kinds::Body;
use crate::snapshot::Snapshot;

/// As [`k8s_openapi::api::core::v1::Pod`], with a spec that is shared.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Metadata.
    #[serde(deserialize_with = "null_is_empty")]
    pub metadata: ObjectMeta,
    /// What is asked for.
    pub spec: Option<SharedSpec>,
    /// What is.
    pub status: Option<PodStatus>,
}

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Serialize for Pod {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = 3 + usize::from(self.spec.is_some()) + usize::from(self.status.is_some());
        let mut out = serializer.serialize_struct("Pod", fields)?;
        out.serialize_field("apiVersion", "v1")?;
        out.serialize_field("kind", "Pod")?;
        out.serialize_field("metadata", &self.metadata)?;
        self.spec.iter().try_for_each(|spec| out.serialize_field("spec", spec))?;
        self.status.iter().try_for_each(|status| out.serialize_field("status", status))?;
        out.end()
    }
}

impl k8s_openapi::Resource for Pod {
    const API_VERSION: &'static str = "v1";
    const GROUP: &'static str = "";
    const KIND: &'static str = "Pod";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "pods";
    type Scope = k8s_openapi::NamespaceResourceScope;
}

impl k8s_openapi::Metadata for Pod {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// A spec that several pods may point to. Who changes it through one of them gets a copy first.
#[derive(Clone, Debug, Default)]
pub struct SharedSpec(Arc<PodSpec>);

impl From<PodSpec> for SharedSpec {
    fn from(spec: PodSpec) -> SharedSpec {
        SharedSpec(Arc::new(spec))
    }
}

impl Deref for SharedSpec {
    type Target = PodSpec;

    fn deref(&self) -> &PodSpec {
        &self.0
    }
}

impl DerefMut for SharedSpec {
    fn deref_mut(&mut self) -> &mut PodSpec {
        Arc::make_mut(&mut self.0)
    }
}

impl PartialEq for SharedSpec {
    fn eq(&self, other: &SharedSpec) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Serialize for SharedSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SharedSpec, D::Error> {
        PodSpec::deserialize(deserializer).map(SharedSpec::from)
    }
}

/// The specs that pods have, to be shared with the next pod that is alike.
///
/// It holds none of them itself: a spec goes with its last pod.
#[derive(Clone, Default)]
pub struct PodSpecs {
    known: HashMap<u64, Vec<Weak<PodSpec>>>,
    /// Entries at which those that are gone are dropped: twice as many as were left the last time.
    full: usize,
}

/// Entries at which the ones that are gone are looked for, at least.
const SWEEP_AT: usize = 1_024;

impl PodSpecs {
    /// The specs of the pods in `world`.
    pub fn of(world: &Snapshot) -> PodSpecs {
        let mut specs = PodSpecs::default();
        world.list::<Pod>(None).filter_map(|pod| pod.spec.as_ref()).for_each(|spec| specs.learn(spec));
        specs
    }

    /// Lets a pod point to an equal spec that is known, or makes its own known. Other kinds are left alone.
    pub fn share(&mut self, body: &mut Body) {
        let Body::Pod(pod) = body else { return };
        let Some(spec) = &mut pod.spec else { return };
        let alike = self.known.get(&fingerprint(spec)).into_iter().flatten();
        if let Some(known) = alike.filter_map(Weak::upgrade).find(|known| SharedSpec(known.clone()) == *spec) {
            spec.0 = known;
            return;
        }
        trim(spec);
        self.learn(spec);
    }

    fn learn(&mut self, spec: &SharedSpec) {
        let alike = self.known.entry(fingerprint(spec)).or_default();
        alike.retain(|known| known.strong_count() > 0);
        if alike.iter().any(|known| known.as_ptr() == Arc::as_ptr(&spec.0)) {
            return;
        }
        alike.push(Arc::downgrade(&spec.0));
        if SWEEP_AT.max(self.full) < self.known.len() {
            self.known.retain(|_, alike| {
                alike.retain(|known| known.strong_count() > 0);
                !alike.is_empty()
            });
            self.full = 2 * self.known.len();
        }
    }
}

/// A number that equal specs have in common, from what tells most specs apart.
fn fingerprint(spec: &PodSpec) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    (&spec.node_name, &spec.hostname, &spec.service_account_name).hash(&mut hasher);
    // The pods of a DaemonSet differ in nothing else before they are bound.
    if let Some(affinity) = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()) {
        serde_json::to_vec(affinity).unwrap_or_default().hash(&mut hasher);
    }
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        (&container.name, &container.image, &container.command, &container.args).hash(&mut hasher);
        for variable in container.env.iter().flatten() {
            (&variable.name, &variable.value).hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// Gives back the spare room of lists that every pod has: decoding leaves room for four where there is one.
fn trim(spec: &mut SharedSpec) {
    let spec: &mut PodSpec = spec;
    spec.containers.shrink_to_fit();
    for container in &mut spec.containers {
        crate::object::shrink(&mut container.ports);
        crate::object::shrink(&mut container.env);
        crate::object::shrink(&mut container.volume_mounts);
    }
    crate::object::shrink(&mut spec.volumes);
    crate::object::shrink(&mut spec.tolerations);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kind;
    use serde_json::json;

    fn pod(name: &str, node: &str) -> Body {
        let pod = json!({ "metadata": { "name": name }, "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "i" }] } });
        Kind::Pod.decode(pod).unwrap()
    }

    fn spec(body: &Body) -> &SharedSpec {
        let Body::Pod(pod) = body else { panic!("a pod") };
        pod.spec.as_ref().unwrap()
    }

    #[test]
    fn pods_that_are_alike_share_their_spec_until_one_is_changed() {
        let mut specs = PodSpecs::default();
        let [mut a, mut b, mut c] = [pod("a", "n1"), pod("b", "n1"), pod("c", "n2")];
        [&mut a, &mut b, &mut c].into_iter().for_each(|pod| specs.share(pod));
        assert!(Arc::ptr_eq(&spec(&a).0, &spec(&b).0));
        assert!(!Arc::ptr_eq(&spec(&a).0, &spec(&c).0));
        let Body::Pod(changed) = &mut b else { panic!("a pod") };
        changed.spec.as_mut().unwrap().containers[0].image = Some("other".into());
        assert_eq!(spec(&a).containers[0].image.as_deref(), Some("i"));
        specs.share(&mut b);
        assert_eq!(spec(&b).containers[0].image.as_deref(), Some("other"));
    }

    #[test]
    fn specs_go_with_their_pods() {
        let mut specs = PodSpecs::default();
        for number in 0..10 * SWEEP_AT {
            specs.share(&mut pod("a", &format!("n{number}")));
        }
        assert!(specs.known.len() <= SWEEP_AT, "{}", specs.known.len());
    }

    #[test]
    fn it_is_written_and_read_as_kubernetes_type_is() {
        let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"image":"i","name":"c"}]},"status":{"phase":"Running"}}"#;
        let upstream: k8s_openapi::api::core::v1::Pod = serde_json::from_str(text).unwrap();
        let ours: Pod = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&upstream).unwrap(), text);
        assert_eq!(serde_json::to_string(&ours).unwrap(), text);
        assert_eq!(serde_json::from_str::<Pod>(r#"{"metadata":{}}"#).unwrap(), Pod::default());
    }
}
