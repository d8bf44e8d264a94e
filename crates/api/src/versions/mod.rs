//! Versions of a kind beside the one that is stored: converted on the way in and on the way out, on JSON.
//!
//! There are two: autoscaling/v1 of HorizontalPodAutoscaler, and events.k8s.io/v1 of Event.

mod autoscaling_v1;
mod events_v1;

use serde_json::Value;

use crate::kinds::{Body, Kind, KindInfo, Scope};
use crate::validate::Errors;

/// One version.
#[derive(Debug)]
pub struct Version {
    /// How it is served.
    pub info: KindInfo,
    /// The kind that is stored.
    pub kind: Kind,
    /// A stored object as this version has it.
    pub shown: fn(Value) -> Value,
    /// An object of this version as it is stored.
    pub stored: fn(Value) -> Value,
    /// What is wrong with a write by this version, beside what is wrong with the object anyway: from what is there, to this.
    pub judge: fn(Option<&Body>, &Body) -> Errors,
}

/// All of them.
pub static VERSIONS: [Version; 2] = [
    Version {
        info: KindInfo {
            group: "autoscaling",
            version: "v1",
            kind: "HorizontalPodAutoscaler",
            plural: "horizontalpodautoscalers",
            singular: "horizontalpodautoscaler",
            short_names: &["hpa"],
            scope: Scope::Namespaced,
            subresources: &["status"],
            categories: &["all"],
        },
        kind: Kind::HorizontalPodAutoscaler,
        shown: autoscaling_v1::to_v1,
        stored: autoscaling_v1::to_v2,
        judge: |_, _| Errors::default(),
    },
    Version {
        info: KindInfo {
            group: "events.k8s.io",
            version: "v1",
            kind: "Event",
            plural: "events",
            singular: "event",
            short_names: &["ev"],
            scope: Scope::Namespaced,
            subresources: &[],
            categories: &[],
        },
        kind: Kind::Event,
        shown: events_v1::to_v1,
        stored: events_v1::to_core,
        judge: events_v1::judge,
    },
];

impl Version {
    /// The version that is served as `info` says.
    pub fn of(info: &KindInfo) -> Option<&'static Version> {
        VERSIONS.iter().find(|version| version.info == *info)
    }
}

/// Every row that is served from what is stored: the kinds, and their other versions.
pub fn rows() -> impl Iterator<Item = &'static KindInfo> {
    Kind::ALL.iter().map(|kind| kind.info()).chain(VERSIONS.iter().map(|version| &version.info))
}
