//! Rolling from one template to the next, node by node.
//!
//! Mirrors rollingUpdate (`pkg/controller/daemon/update.go`). Three differences, all so that available pods never fall
//! below `desired - maxUnavailable` by our act, however many updates follow each other (k/k#123232): an old pod that is
//! not available counts as unavailable, though replacing it costs nothing; a pod that is ready but not yet available is
//! not taken for a broken one; and a dead node does not count, so that it neither holds the update up (k/k#63465) nor
//! lends its share to it. An old pod on a node where none is to run any more ends within the same bounds.

use api::int_or_string::{Round, scaled};
use k8s_openapi::api::apps::v1::DaemonSetSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::nodes::Fit;
use super::spots::Spot;

/// How many nodes may be in between at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Pods are replaced only when somebody deletes them.
    OnDelete,
    /// The old pod ends before the new one starts, on so many nodes at once.
    Unavailable(usize),
    /// The new pod starts beside the old one, on so many nodes at once.
    Surge(usize),
}

/// What rolling asks for.
#[derive(Default)]
pub struct Steps {
    /// Indexes of spots whose old pod is to end.
    pub end_old: Vec<usize>,
    /// Indexes of spots that are to get a new pod beside the old one.
    pub surge: Vec<usize>,
    /// Nodes that still have to wait for their turn.
    pub waiting: usize,
}

impl Pace {
    /// Reads the strategy. Percentages are of the nodes on which a pod is to run, rounded up.
    pub fn of(spec: &DaemonSetSpec, desired: usize) -> Pace {
        let strategy = spec.update_strategy.clone().unwrap_or_default();
        if strategy.type_.as_deref() == Some("OnDelete") {
            return Pace::OnDelete;
        }
        let rolling = strategy.rolling_update.unwrap_or_default();
        let total = i32::try_from(desired).unwrap_or(i32::MAX);
        let count = |value: Option<IntOrString>, default: i32| {
            let value = value.unwrap_or(IntOrString::Int(default));
            usize::try_from(scaled(&value, total, Round::Up).unwrap_or(0)).unwrap_or(0)
        };
        match (count(rolling.max_surge, 0), count(rolling.max_unavailable, 1)) {
            // Both zero would be an update that never moves.
            (0, unavailable) => Pace::Unavailable(unavailable.max(1)),
            (surge, _) => Pace::Surge(surge),
        }
    }

    /// True if two pods may be on a node for a while.
    pub fn surges(self) -> bool {
        matches!(self, Pace::Surge(_))
    }
}

/// The next steps of an update. `spots` are as they will be once each has at most the pods it may have.
pub fn steps(spots: &[Spot], pace: Pace) -> Steps {
    match pace {
        Pace::OnDelete => Steps::default(),
        Pace::Unavailable(most) => end_then_start(spots, most),
        Pace::Surge(most) => start_then_end(spots, most),
    }
}

fn end_then_start(spots: &[Spot], most: usize) -> Steps {
    let mut steps = Steps::default();
    let unavailable = rolled(spots).filter(|(_, spot)| !spot.is_available()).count();
    let mut left = most.saturating_sub(unavailable);
    for (at, spot) in rolled(spots) {
        match spot.old_pod() {
            Some(old) if !old.ready => steps.end_old.push(at),
            Some(old) if old.available && left > 0 => {
                left -= 1;
                steps.end_old.push(at);
            }
            Some(_) => steps.waiting += 1,
            None => {}
        }
    }
    steps
}

fn start_then_end(spots: &[Spot], most: usize) -> Steps {
    let mut steps = Steps::default();
    let surged = running(spots).filter(|(_, spot)| spot.new_pod().is_some() && spot.old_pod().is_some()).count();
    let mut left = most.saturating_sub(surged);
    // What serves beyond the nodes that are to serve: nobody misses it (upstream: shouldNotRunPodsToDelete).
    let available = rolled(spots).filter(|(_, spot)| spot.is_available()).count();
    let mut spare = available.saturating_sub(running(spots).count());
    for (at, spot) in rolled(spots) {
        match (spot.old_pod(), spot.new_pod()) {
            (Some(old), None) if spot.fit == Fit::RunOut => {
                if old.available && spare > 0 {
                    spare -= 1;
                    steps.end_old.push(at);
                } else if !old.ready {
                    steps.end_old.push(at);
                } else {
                    steps.waiting += 1;
                }
            }
            (Some(old), None) if !old.ready => steps.surge.push(at),
            (Some(_), None) if left > 0 => {
                left -= 1;
                steps.surge.push(at);
            }
            (Some(_), None) => steps.waiting += 1,
            _ => {}
        }
    }
    steps
}

/// Where an update has or had something to do.
fn rolled<'s, 'a>(spots: &'s [Spot<'a>]) -> impl Iterator<Item = (usize, &'s Spot<'a>)> {
    let runs_out = |spot: &Spot| spot.fit == Fit::RunOut && (spot.old_pod().is_some() || spot.going > 0);
    spots.iter().enumerate().filter(move |(_, spot)| spot.fit == Fit::Run || runs_out(spot))
}

fn running<'s, 'a>(spots: &'s [Spot<'a>]) -> impl Iterator<Item = (usize, &'s Spot<'a>)> {
    spots.iter().enumerate().filter(|(_, spot)| spot.fit == Fit::Run)
}
