//! An object as it is kept: its typed body and its JSON, encoded once when it was written.

use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::endpoint_fingerprint;
pub use crate::kinds::{Body, Kind, Typed};
use crate::pod::PodSpecs;
use crate::pod_facts::Facts;

/// Names an object: kind, namespace (empty for cluster-wide kinds) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Kind of the object.
    pub kind: Kind,
    /// Namespace, empty if it has none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// Key from its parts.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Key { kind, namespace: namespace.into(), name: name.into() }
    }

    /// `namespace/name`: the place of the object among its kind.
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Storage key: `plural[.group]/namespace/name`.
    pub fn storage_key(&self) -> String {
        format!("{}/{}/{}", self.kind.info().resource(), self.namespace, self.name)
    }

    /// Inverse of [`Key::storage_key`].
    pub fn from_storage_key(text: &str) -> Option<Key> {
        let mut parts = text.splitn(3, '/');
        let kind = Kind::by_storage_name(parts.next()?)?;
        Some(Key::new(kind, parts.next()?, parts.next()?))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// A committed (or about to be committed) object.
#[derive(Debug)]
pub struct Object {
    /// Typed content.
    pub body: Body,
    /// The same as JSON, `metadata.resourceVersion` included.
    pub json: Bytes,
    /// Revision of the write that made it; the number behind `metadata.resourceVersion`.
    pub revision: u64,
    facts: Facts,
    endpoints: Box<[u64]>,
}

impl Object {
    /// Stamps `revision` on `body` and encodes it; zero is none.
    pub fn written(mut body: Body, revision: u64) -> Arc<Object> {
        body.meta_mut().resource_version = (revision != 0).then(|| revision.to_string());
        body.shrink();
        let mut json = body.encode();
        // Kept for long, in thousands: spare room would be a good part of all memory.
        json.shrink_to_fit();
        Object::kept(body, Bytes::from(json), revision)
    }

    /// An object read back from the store; pods share their spec with those in `specs`.
    pub fn recovered(
        kind: Kind,
        json: Bytes,
        revision: u64,
        specs: &mut PodSpecs,
    ) -> Result<Arc<Object>, serde_json::Error> {
        let mut body = kind.decode_slice(&json)?;
        specs.share(&mut body);
        body.shrink();
        Ok(Object::kept(body, json, revision))
    }

    fn kept(body: Body, json: Bytes, revision: u64) -> Arc<Object> {
        let (facts, endpoints) = (Facts::of_body(&body), endpoint_fingerprint::of_body(&body));
        Arc::new(Object { body, json, revision, facts, endpoints })
    }

    /// Kind of the object.
    pub fn kind(&self) -> Kind {
        self.body.kind()
    }

    /// Metadata.
    pub fn meta(&self) -> &ObjectMeta {
        self.body.meta()
    }

    /// Key of the object.
    pub fn key(&self) -> Key {
        self.body.key()
    }

    /// Name, empty if it has none.
    pub fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or("")
    }

    /// Namespace, empty if it has none.
    pub fn namespace(&self) -> &str {
        self.meta().namespace.as_deref().unwrap_or("")
    }

    /// Uid, empty if it has none.
    pub fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or("")
    }

    /// What is asked most often of a pod; nothing holds of what is no pod.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The numbers of an EndpointSlice's endpoints ([`endpoint_fingerprint`]), in their order; none of what is no slice.
    pub fn endpoints(&self) -> &[u64] {
        &self.endpoints
    }

    /// The typed body.
    pub fn get<T: Typed>(&self) -> Option<&T> {
        T::of(&self.body)
    }
}

impl Body {
    /// The key of the object.
    pub fn key(&self) -> Key {
        let meta = self.meta();
        Key::new(self.kind(), meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""))
    }

    /// Gives back the spare room of lists that every pod has of its own: decoding leaves room for four where there is one.
    fn shrink(&mut self) {
        let Body::Pod(pod) = self else { return };
        shrink(&mut pod.metadata.owner_references);
        if let Some(status) = &mut pod.status {
            shrink(&mut status.container_statuses);
            shrink(&mut status.conditions);
            shrink(&mut status.pod_ips);
            shrink(&mut status.host_ips);
        }
    }
}

pub(crate) fn shrink<T>(list: &mut Option<Vec<T>>) {
    if let Some(list) = list {
        list.shrink_to_fit();
    }
}

/// The owner that manages an object, if one does (upstream: `metav1.GetControllerOf`).
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// One committed change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// Revision of the change.
    pub revision: u64,
    /// The object before, `None` when it was created.
    pub before: Option<Arc<Object>>,
    /// The object after, `None` when it was removed.
    pub after: Option<Arc<Object>>,
}

impl Change {
    /// The object concerned: after the change if it is still there, else before it.
    pub fn object(&self) -> &Arc<Object> {
        self.after.as_ref().or(self.before.as_ref()).expect("a change has a before or an after")
    }

    /// Kind of the object concerned.
    pub fn kind(&self) -> Kind {
        self.object().kind()
    }

    /// What there is of it: before, after, or both.
    pub fn sides(&self) -> impl Iterator<Item = &Object> {
        self.before.iter().chain(&self.after).map(|object| &**object)
    }
}
