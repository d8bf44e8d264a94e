//! The pods of a StatefulSet by number, and how they fare.

use std::collections::BTreeMap;
use std::ops::Range;

use api::Pod;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;

use super::identity;
use crate::{pods, specs};

/// A pod and its number.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    /// Its number.
    pub ordinal: i32,
    /// The pod.
    pub pod: &'a Pod,
    /// True if it is ready.
    pub ready: bool,
    /// True if it is ready for long enough.
    pub available: bool,
    /// True while it is being ended.
    pub going: bool,
}

/// All pods of a set.
pub struct Members<'a> {
    /// By number.
    pub all: BTreeMap<i32, Member<'a>>,
    /// Numbers that are to be there.
    pub wanted: Range<i32>,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: i32,
}

impl<'a> Members<'a> {
    /// Sorts the pods of a set.
    pub fn of(set: &StatefulSet, own: Vec<&'a Pod>, now: Timestamp) -> Members<'a> {
        let spec = specs::of_stateful_set(set);
        let wait = spec.min_ready_seconds.unwrap_or(0);
        let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
        let wanted = start..start.saturating_add(spec.replicas.unwrap_or(1));
        let numbered = own.into_iter().filter_map(|pod| Some((identity::ordinal(set, pod)?, pod)));
        let member = |(ordinal, pod): (i32, &'a Pod)| {
            let going = pods::is_deleted(pod);
            let running = !going && pods::phase(pod) == "Running";
            let ready = running && pods::is_ready(pod);
            (ordinal, Member { ordinal, pod, ready, available: ready && pods::is_available(pod, wait, now), going })
        };
        Members { all: numbered.map(member).collect(), wanted, min_ready_seconds: wait }
    }

    /// Number of pods that are to be there.
    pub fn replicas(&self) -> i32 {
        self.wanted.end - self.wanted.start
    }

    /// Those that are to be there, from the first.
    pub fn kept(&self) -> impl DoubleEndedIterator<Item = &Member<'a>> {
        self.all.range(self.wanted.clone()).map(|(_, member)| member)
    }

    /// Those that are too many, from the last.
    pub fn condemned(&self) -> impl Iterator<Item = &Member<'a>> {
        self.all.values().rev().filter(|member| !self.wanted.contains(&member.ordinal))
    }

    /// Number of pods that are to be there and are not available.
    pub fn unavailable(&self) -> i32 {
        let available = self.kept().filter(|member| member.available).count();
        self.replicas() - i32::try_from(available).unwrap_or(i32::MAX)
    }

    /// When the next ready pod becomes available only by the passing of time.
    pub fn next_available(&self) -> Option<Timestamp> {
        let waiting = self.all.values().filter(|member| member.ready && !member.available);
        waiting.filter_map(|member| pods::available_at(member.pod, self.min_ready_seconds)).min()
    }
}
