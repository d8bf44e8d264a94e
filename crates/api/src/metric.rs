//! What is asked of the metrics APIs (`custom.metrics.k8s.io`, `external.metrics.k8s.io`), and what they answered.
//!
//! Nobody here asks: the server does, outside its turns, and decisions get the answers as an argument
//! ([`crate::Usage::reading`]). Mirrors the calls of `pkg/controller/podautoscaler/metrics/client.go`.

use jiff::Timestamp;

/// A question. Two autoscalers that want to know the same ask once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Query {
    /// Namespace of who asks.
    pub namespace: String,
    /// Name of the metric.
    pub metric: String,
    /// Which of the metric's series, as the text of a selector; empty for all.
    pub selector: String,
    /// What the metric is about.
    pub about: About,
}

/// What a metric is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum About {
    /// The pods that this selector (as text) selects, each by itself.
    Pods(String),
    /// One object.
    Object {
        /// Group of its kind, empty for the core group.
        group: String,
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// Nothing in the cluster.
    External,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// When the question was asked.
    pub at: Timestamp,
    /// The values, or why there are none, in the words of upstream's client.
    pub values: Result<Vec<Value>, String>,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Name of the object that it is about; empty for external metrics.
    pub object: String,
    /// In thousandths.
    pub milli: i64,
}
