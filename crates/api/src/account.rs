//! What a cluster remembers of a rollout that Kubernetes has no field for: who asked for it, when and by which program, and how it
//! ended. Kept as annotations, so that it travels with the objects; a revision without them is one of which nothing is known.
//!
//! Who asked is written by the door on the workload and handed on to the revision like every other annotation; how it ended is
//! written on the revision by who decides about it. Clients can change neither.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The annotation with a [`Requested`], on a workload and on its revisions.
pub const REQUESTED: &str = "kapstan.dev/rollout-requested";
/// The annotation with an [`Ended`], on a ReplicaSet.
pub const ENDED: &str = "kapstan.dev/rollout-ended";

/// Who asked for a pod template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// When.
    pub at: Time,
    /// The user.
    pub by: String,
    /// The program that the user used, such as `kubectl/v1.32.3`.
    pub with: String,
}

/// How the rollout of a revision ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// In which way.
    pub how: How,
    /// When.
    pub at: Time,
    /// Whether it was left for an earlier revision.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undone: bool,
}

/// The ends of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// All pods have the template.
    Completed,
    /// It made no progress until its deadline. It may complete all the same, later.
    Failed,
    /// Another template was asked for before it was complete.
    Superseded,
}

impl Requested {
    /// The one that an object carries.
    pub fn of(meta: &ObjectMeta) -> Option<Requested> {
        read(meta.annotations.as_ref()?, REQUESTED)
    }

    /// The annotation's value.
    pub fn text(&self) -> String {
        text(self)
    }
}

impl Ended {
    /// A rollout that ended at `now`.
    pub fn at(now: Timestamp, how: How) -> Ended {
        Ended { how, at: Time(now), undone: false }
    }

    /// The one that an object carries.
    pub fn of(meta: &ObjectMeta) -> Option<Ended> {
        read(meta.annotations.as_ref()?, ENDED)
    }

    /// The annotation's value.
    pub fn text(&self) -> String {
        text(self)
    }
}

fn read<T: DeserializeOwned>(annotations: &BTreeMap<String, String>, name: &str) -> Option<T> {
    serde_json::from_str(annotations.get(name)?).ok()
}

fn text(account: &impl Serialize) -> String {
    serde_json::to_string(account).expect("plain fields are always representable as JSON")
}
