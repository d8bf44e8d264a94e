//! A pod from a watch that is decoded only when somebody wants to look into it.
//!
//! A node that has just written a pod's status gets the pod back in its watch, and again when it is gone. Thousands of
//! simulated pods in one process need no more of that than who it is about; skipping over the JSON of a pod costs a
//! tenth of decoding it.

use std::borrow::Cow;

use api::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Who a pod is, and its JSON.
#[derive(Clone, Debug)]
pub struct LazyPod {
    /// Name, namespace, uid, revision, generation and the time of deletion; nothing else.
    metadata: ObjectMeta,
    raw: Box<RawValue>,
}

impl LazyPod {
    /// The whole pod.
    pub fn decode(&self) -> serde_json::Result<Pod> {
        serde_json::from_str(self.raw.get())
    }

    /// Its uid.
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Counts changes of its spec; `None` where the server does not count.
    pub fn generation(&self) -> Option<i64> {
        self.metadata.generation
    }

    /// One of its conditions may be false: told without decoding, and at times by something else that looks so.
    pub fn may_deny(&self) -> bool {
        self.raw.get().contains("\"status\":\"False\"")
    }

    /// It is asked to go.
    pub fn leaves(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Peek<'a> {
    #[serde(borrow)]
    metadata: PeekMeta<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PeekMeta<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow, default)]
    resource_version: Cow<'a, str>,
    #[serde(default)]
    generation: Option<i64>,
    #[serde(default)]
    deletion_timestamp: Option<Time>,
}

impl<'de> Deserialize<'de> for LazyPod {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<LazyPod, D::Error> {
        let raw = Box::<RawValue>::deserialize(input)?;
        let Peek { metadata } = serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?;
        let some = |text: Cow<'_, str>| Some(text.into_owned()).filter(|text| !text.is_empty());
        let metadata = ObjectMeta {
            name: some(metadata.name),
            namespace: some(metadata.namespace),
            uid: some(metadata.uid),
            resource_version: some(metadata.resource_version),
            generation: metadata.generation,
            deletion_timestamp: metadata.deletion_timestamp,
            ..ObjectMeta::default()
        };
        Ok(LazyPod { metadata, raw })
    }
}

impl kube::Resource for LazyPod {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group(_: &()) -> Cow<'_, str> {
        "".into()
    }

    fn version(_: &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural(_: &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::WatchEvent;

    #[test]
    fn a_watch_event_is_looked_at_without_decoding_the_pod() {
        let line = r#"{"type":"MODIFIED","object":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"ns",
            "uid":"u","resourceVersion":"7","generation":2,"deletionTimestamp":"2026-01-01T00:00:00Z","labels":{"x":"\u00e4"}},
            "spec":{"nodeName":"n","containers":[{"name":"c"}]}}}"#;
        let WatchEvent::Modified(pod) = serde_json::from_str::<WatchEvent<LazyPod>>(line).unwrap() else { panic!() };
        assert_eq!((pod.uid(), pod.generation(), pod.leaves()), ("u", Some(2), true));
        assert!(!pod.may_deny());
        assert_eq!(pod.decode().unwrap().spec.unwrap().node_name.as_deref(), Some("n"));
    }
}
