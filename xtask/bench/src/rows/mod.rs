//! The rows of the benchmark, a file a subject.

mod apply;
mod crash;
mod decide;
mod fan_out;
mod idle;
mod list;
mod roll;
mod start;
mod workloads;

use std::path::PathBuf;

use crate::figures::Figure;
use crate::process::Nodes;
use workloads::Workload;

/// How to measure.
pub struct Settings {
    /// The program.
    pub binary: PathBuf,
    /// Runs of each measurement; the median counts.
    pub runs: usize,
}

/// What can be measured.
#[derive(Clone, Copy)]
pub enum Row {
    /// Rolling updates of one Deployment of that many replicas.
    Roll(usize, Nodes),
    /// From the start of the process to the first ready pod.
    Start,
    /// From `apply` of a Deployment of one replica to its ready pod.
    Apply(Nodes),
    /// 1,000 watchers of one object.
    FanOut,
    /// A list of 10,000 pods.
    List,
    /// Nothing happens.
    Idle,
    /// `kill -9` in the middle of a rolling update.
    Crash,
    /// Other workloads, and many at once.
    Work(Workload, Nodes),
    /// One decision at several sizes.
    Decide,
}

/// All rows by name.
pub const ALL: [(&str, Row); 18] = [
    ("roll-1000-inside", Row::Roll(1_000, Nodes::Inside(100))),
    ("roll-1000-outside", Row::Roll(1_000, Nodes::Outside(100))),
    ("roll-5000-inside", Row::Roll(5_000, Nodes::Inside(100))),
    ("roll-5000-outside", Row::Roll(5_000, Nodes::Outside(100))),
    ("wide-1000-inside", Row::Roll(1_000, Nodes::Inside(1_000))),
    ("wide-1000-outside", Row::Roll(1_000, Nodes::Outside(1_000))),
    ("start", Row::Start),
    ("apply-inside", Row::Apply(Nodes::Inside(100))),
    ("apply-outside", Row::Apply(Nodes::Outside(100))),
    ("watch", Row::FanOut),
    ("list", Row::List),
    ("idle", Row::Idle),
    ("crash", Row::Crash),
    ("deployments", Row::Work(Workload::Deployments(200, 50), Nodes::Inside(150))),
    ("daemon-set", Row::Work(Workload::DaemonSet, Nodes::Inside(1_000))),
    ("stateful-set", Row::Work(Workload::StatefulSet(500), Nodes::Inside(100))),
    ("jobs", Row::Work(Workload::Jobs(5_000), Nodes::Inside(100))),
    ("decide", Row::Decide),
];

impl Row {
    /// What the row is about, for a reader.
    pub fn title(self) -> String {
        let place = |nodes: Nodes| match nodes {
            Nodes::Inside(count) => format!("{count} nodes simulated in the server"),
            Nodes::Outside(count) => format!("{count} nodes simulated by a second process over HTTPS"),
            Nodes::None => "no nodes".into(),
        };
        match self {
            Row::Roll(replicas, nodes) => format!("rolling update of {replicas} replicas, {}", place(nodes)),
            Row::Start => "process start to first pod Ready".into(),
            Row::Apply(nodes) => format!("apply to pod Ready, one replica, {}", place(nodes)),
            Row::FanOut => format!("{} watchers of one object, {} updates", fan_out::WATCHERS, fan_out::UPDATES),
            Row::List => format!("list of {} pods", list::PODS),
            Row::Idle => "idle, 10 nodes simulated in the server".into(),
            Row::Crash => "kill -9 of the server in the middle of a rolling update of 1000 replicas".into(),
            Row::Work(workload, nodes) => format!("{}, {}", workload.title(), place(nodes)),
            Row::Decide => "one decision, without the server".into(),
        }
    }

    /// Measures.
    pub async fn measure(self, settings: &Settings) -> Result<Vec<Figure>, String> {
        match self {
            Row::Roll(replicas, nodes) => roll::measure(settings, replicas, nodes).await,
            Row::Start => start::measure(settings).await,
            Row::Apply(nodes) => apply::measure(settings, nodes).await,
            Row::FanOut => fan_out::measure(settings).await,
            Row::List => list::measure(settings).await,
            Row::Idle => idle::measure(settings).await,
            Row::Crash => crash::measure(settings).await,
            Row::Work(workload, nodes) => workloads::measure(settings, workload, nodes).await,
            Row::Decide => Ok(decide::measure(settings)),
        }
    }
}
