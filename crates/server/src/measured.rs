//! What agents have measured (taken in by HTTP, read by `metrics.k8s.io` and by the decisions) and what other metrics APIs
//! have answered ([`crate::metric_reader`]). In memory only.

use std::collections::BTreeSet;
use std::sync::RwLock;

use api::metric::{Query, Reading};
use api::usage::Report;
use api::{Kind, Snapshot, Usage};

/// The last reports, shared by readers, agents and the writer.
#[derive(Default)]
pub struct Measured(RwLock<Usage>);

impl Measured {
    /// All that is known now.
    pub fn usage(&self) -> Usage {
        self.0.read().expect("no holder of this lock panics").clone()
    }

    /// Takes reports in. Only nodes that exist are remembered, so that memory is bounded by them.
    pub fn take(&self, reports: Vec<Report>, world: &Snapshot) {
        let exists = |node: &str| world.object(Kind::Node, "", node).is_some();
        let mut usage = self.0.write().expect("no holder of this lock panics");
        reports.into_iter().filter(|report| exists(&report.node)).for_each(|report| usage.take(report));
        if world.count(Kind::Node) < usage.nodes() {
            usage.retain(exists);
        }
    }

    /// Takes an answer in.
    pub fn read(&self, query: Query, reading: Reading) {
        self.0.write().expect("no holder of this lock panics").read(query, reading);
    }

    /// Forgets answers to what nobody asks any more.
    pub fn retain_readings(&self, asked: &BTreeSet<Query>) {
        self.0.write().expect("no holder of this lock panics").retain_readings(|query| asked.contains(query));
    }
}
